"""The convex bound: how far above its minimum the loss of any schedule may be, and which base learning rate is best."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws import _convex_bound
from keras_lrsched.laws._fitting import Curves
from keras_lrsched.laws.law import Law, RunRates, rates
from keras_lrsched.schedules import Tabulated
from keras_lrsched.schedules.profiles import ProfileLike


class OptimalRate(NamedTuple):
    """The factor on a schedule with the lowest bound, and that bound."""

    learning_rate: float
    bound: float


@register(
    "convex_bound",
    title="bound of SGD on convex problems",
    paper="arXiv:2501.18965",
    code=("fabian-sp/lr-scheduling",),
    checked="vectors",
    against="the official code, which was run",
    deviations=(
        "the bound is Theorem 10 of arXiv:2310.07831; the second form, the exact optimum and the fit by least squares are "
        "ours"
    ),
    kind="law of the loss",
)
class ConvexBound(Law):
    """A bound of the loss of SGD on convex problems under any schedule, and with it the best base learning rate.

    With learning rates eta_1 ... eta_T, the distance D from the start to the minimum, and gradient norms G_1 ... G_T:

        loss_T - minimum <= Omega_T = (D^2 + sum_(t=1..T) eta_t^2 G_t^2) / (2 sum_(t=1..T) eta_t)
            + 1/2 sum_(k=1..T-1) eta_k / sum_(t=k+1..T) eta_t * sum_(t=k..T) eta_t^2 G_t^2 / sum_(t=k..T) eta_t

    which is the same as

        Omega_T = (D^2 / sum_t eta_t + eta_T G_T^2 + sum_(k=1..T-1) eta_k^2 G_k^2 / sum_(t=k+1..T) eta_t) / 2

    and is computed so: one bound in linear time, and the curve of all T in near-linear time. For a base learning rate gamma
    it is T1 / gamma + gamma T2, lowest at gamma = sqrt(T1 / T2). Loss curves of large language models have its shape, with
    `fit` for D, G and the minimum.

    Omega_T is about the weights that update T starts from. Its rate eta_T enters only the bound, which is loose where it is
    far below the learning rate before. Updates with rate 0 change nothing and are left out; before the first other one,
    the bound is that of the first.

    Args:
        distance: D, positive. Defaults to `1.0`.
        gradient_norm: G, a positive number, or one for each update of a run. Defaults to `1.0`.
        offset: The minimum of the loss, which `predict` adds to the bound. Defaults to `0.0`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: Schaipp et al. 2025, arXiv:2501.18965; official code, fabian-sp/lr-scheduling. The bound is that of
    Defazio et al. 2023, arXiv:2310.07831, Theorem 10.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay
    >>> best = ConvexBound(distance=1.0, gradient_norm=1.0).optimal_rate(LinearDecay(1.0, 400), total_steps=400)
    >>> round(best.learning_rate, 7), round(best.bound, 5)
    (0.0495631, 0.10063)
    """

    parameters = ("distance", "offset")
    options = ("gradient_norm",)

    def __init__(
        self,
        distance: float = 1.0,
        gradient_norm: float | Sequence[float] | np.ndarray = 1.0,
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.distance = validation.positive_float("distance", distance)
        self.gradient_norm = (
            validation.each("gradient_norm", gradient_norm, validation.positive_float)
            if np.ndim(gradient_norm)
            else validation.positive_float("gradient_norm", gradient_norm)
        )
        self.offset = validation.non_negative_float("offset", offset)

    @classmethod
    def fit(cls, curves: Curves, skip: float = 0.3, points: int = 400) -> Self:
        """The distance, the gradient norm and the minimum with which the law describes measured curves best.

        The squares of the first two and the third enter the loss linearly: they come from non-negative least squares of the
        relative errors. (The official fit lets the gradient norm change with t: eight numbers.)

        Args:
            curves: One or more `LossCurve`s, best with different schedules.
            skip: Points before the end of warmup, and in this first part of each run, are not used: there the bound falls
                like 1 / t, from far above any loss. Defaults to `0.3`.
            points: Each curve is averaged into at most this many pieces. Defaults to `400`.

        Raises:
            ValueError: If there are fewer than three points, or the best distance or gradient norm is 0.

        Warns:
            RegimeWarning: If a curve leaves a plateau, or is missed by the law.
        """
        return _convex_bound.fit(cls, curves, skip, points)

    @property
    def only_length(self) -> int | None:
        return len(self.gradient_norm) if isinstance(self.gradient_norm, list) else None

    def loss_at(self, learning_rate: np.ndarray, at: np.ndarray) -> np.ndarray:
        initial, noise = _convex_bound.parts(learning_rate, self._norms(len(learning_rate)))
        return self.offset + _finite(self.distance**2 * initial + noise)[at]

    def bound(self, schedule: RunRates, total_steps: int | None = None) -> float:
        """Omega_T for the last update of a run. Arguments as of `predict`."""
        initial, noise = self._terms(rates(schedule, total_steps))
        return float(initial + noise)

    def optimal_rate(self, schedule: RunRates, total_steps: int | None = None) -> OptimalRate:
        """The factor on the schedule with the lowest bound at the last update, and this bound.

        For a schedule with peak 1 the factor is the peak learning rate. Arguments as of `predict`.
        """
        initial, noise = self._terms(rates(schedule, total_steps))
        return OptimalRate(float(np.sqrt(initial / noise)), float(2 * np.sqrt(initial * noise)))

    def transfer_rate(
        self,
        learning_rate: float,
        schedule: RunRates,
        total_steps: int | None,
        new_schedule: RunRates,
        new_total_steps: int | None,
    ) -> float:
        """The learning rate for a run with another schedule or length, where `learning_rate` is the best for the first.

        It is multiplied by the ratio of the two `optimal_rate`s, in which the distance cancels, and the gradient norm if it
        is one number. A schedule that decays to 0, stretched to a run of k times as many updates, gives about 1 / sqrt(k).

        Args:
            learning_rate: The best factor on `schedule`.
            schedule, total_steps: The run that it belongs to. See `predict`.
            new_schedule, new_total_steps: The run to find a learning rate for.
        """
        best = self.optimal_rate(schedule, total_steps).learning_rate
        new_best = self.optimal_rate(new_schedule, new_total_steps).learning_rate
        return validation.positive_float("learning_rate", learning_rate) * (new_best / best)

    def longer_cooldown(
        self,
        total_steps: int,
        new_total_steps: int,
        cooldown_fraction: float = 0.2,
        profile: ProfileLike = "linear",
    ) -> float:
        """The cooldown fraction with which a longer run has the same best learning rate, so a plateau can be extended.

        Args:
            total_steps: Updates of a run: constant, then a cooldown to 0.
            new_total_steps: Updates of the longer one.
            cooldown_fraction: The part of the first run that its cooldown takes. Defaults to `0.2`.
            profile: The cooldown's `Profile` or its name. Defaults to `"linear"`.

        Raises:
            ValueError: If no cooldown is long enough, or `new_total_steps` are not above `total_steps`.
        """
        return _convex_bound.longer_cooldown(self, total_steps, new_total_steps, cooldown_fraction, profile)

    def lower_plateau(
        self,
        total_steps: int,
        new_total_steps: int,
        cooldown_fraction: float = 0.2,
        profile: ProfileLike = "linear",
    ) -> float:
        """The factor on the rate of a plateau, from where its cooldown was to begin, that lets a run go on for longer.

        The largest factor with which the longer run, whose cooldown takes the same fraction, has the same best learning rate
        as the first. Arguments and errors as of `longer_cooldown`.
        """
        return _convex_bound.lower_plateau(self, total_steps, new_total_steps, cooldown_fraction, profile)

    def optimize(self, total_steps: int, peak_learning_rate: float | None = None, warmup_steps: int = 0) -> Tabulated:
        """The schedule with the lowest bound at the last update.

        Without a peak it is exact. With c_T = G_T^2 / 2 and c_k = G_k^2 (sqrt(1 + 2 c_(k+1) / G_k^2) - 1), the updates from
        k on cost least, c_k times the sum of their rates, if update k takes the part 1 - 1 / sqrt(1 + 2 c_(k+1) / G_k^2) of
        it. For equal gradient norms this is close to linear decay; only the last few rates are higher, up to ten times the
        last of the line.

        With a peak it is the lower of the peak and this schedule, on the best scale. If the gradient norms are equal, that
        is the best that never exceeds the peak: a peak below the best rate is held for long, and then decays linearly.

        Args:
            total_steps: Updates of the run.
            peak_learning_rate: The highest learning rate. Defaults to `None`: as high as is best.
            warmup_steps: Updates of linear warmup, W: t / W of the peak at update t < W. Defaults to `0`.

        Returns:
            A `Tabulated`, which `compile` takes.

        Warns:
            ExtrapolationWarning: If the run is longer, or its learning rate higher, than those that the law was fitted to.
        """
        best = self._best(total_steps, peak_learning_rate, warmup_steps)
        self._warn_of_extrapolation(best)
        return Tabulated(best)

    def _best(self, total_steps: int, peak_learning_rate: float | None, warmup_steps: int) -> np.ndarray:
        """The rates of `optimize`."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        total_steps, warmup_steps = int(total_steps), int(warmup_steps)
        warmup, norms = np.arange(warmup_steps) / max(1, warmup_steps), self._norms(total_steps)[warmup_steps:]
        if peak_learning_rate is None:
            shape = _convex_bound.free(norms)
            shape = np.append(shape[0] * warmup, shape)
            return self.optimal_rate(shape).learning_rate * shape
        peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
        return _convex_bound.capped(self.bound, norms, peak, peak * warmup)

    def _terms(self, learning_rate: np.ndarray) -> np.ndarray:
        """T1 and T2."""
        used = learning_rate > 0
        eta, norms = learning_rate[used], self._norms(len(learning_rate))[used]
        tails = np.cumsum(eta[::-1])[::-1]
        noise = eta[-1] * norms[-1] ** 2 + np.sum((eta[:-1] * norms[:-1]) ** 2 / tails[1:])
        return _finite(np.array([self.distance**2 / tails[0], noise]) / 2)

    def _norms(self, total_steps: int) -> np.ndarray:
        if isinstance(self.gradient_norm, list) and len(self.gradient_norm) != total_steps:
            raise ValueError(
                "`gradient_norm` must have one number for each update. "
                f"Received: gradient_norm with {len(self.gradient_norm)} numbers, total_steps={total_steps}"
            )
        return np.broadcast_to(self.gradient_norm, total_steps)

    def __repr__(self) -> str:
        return (
            f"ConvexBound(distance={self.distance:.6g}, gradient_norm={self.gradient_norm!r:.40}, offset={self.offset:.6g})"
        )


def _finite(bounds: np.ndarray) -> np.ndarray:
    if not np.isfinite(bounds).all():
        raise ValueError(
            "The bound is too large for a float: a learning rate is too far below the others. "
            f"Received: bounds up to {np.max(bounds)}"
        )
    return bounds

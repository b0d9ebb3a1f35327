"""The multi-power law: the loss of a run from the sum of its learning rates and from when they fell."""

import warnings
from functools import partial
from typing import Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws import _multi_power
from keras_lrsched.laws._fitting import Curves
from keras_lrsched.laws._lr_decrements import counted, lr_decrements
from keras_lrsched.laws._optimal_schedule import optimize
from keras_lrsched.laws.law import Law, finite_numbers
from keras_lrsched.schedules import Tabulated

ROWS = 1_000_000  # numbers in memory at a time, in each of a few arrays


@register(
    "multi_power",
    title="sum of learning rates, and power laws of their decrements",
    paper="arXiv:2503.12811",
    code=("thu-yao-01-luo/MultiPowerLaw",),
    checked="vectors",
    against="predictions of the official code, which was run",
    deviations=(
        "the fit starts from least squares, searches by L-BFGS-B, and holds C, beta and gamma near the published values "
        "unless the curves differ; old updates are summed in groups"
    ),
    kind="law of the loss",
)
class MultiPowerLaw(Law):
    """The loss curve of any schedule, predicted from a few runs of the same length with others.

        L(t)  = L0 + A * S1(t)^-alpha - B * LD(t)
        S1(t) = lr_0 + ... + lr_t
        LD(t) = sum over k = 1..t of (lr_(k-1) - lr_k) * G(lr_k^-gamma * S_k(t)),  S_k(t) = lr_k + ... + lr_t
        G(x)  = 1 - (C * x + 1)^-beta

    The loss falls with the learning rate that has been spent, S1, and falls further after each drop of the learning
    rate, the more the longer ago the drop lies. S_k is summed over groups of old updates, which costs less than 3e-5 in
    the losses of the paper's runs.

    Warmup is a rise of the learning rate, which the sum LD would count as a loss that does not happen. `warmup="full"`
    keeps it, as in the official fit: it adds about B * peak to every prediction, which L0 makes up for. `warmup="sum"`
    leaves the first rise out of LD, as in the official search for the best schedule. Parameters belong to the convention
    that they were fitted with: with the wrong one, all predictions are off by about B * peak.

    A rate of 0 has no power -gamma. Its limit is used, with a warning: nothing changes from there on.

    Args:
        L0, A, alpha, B, C, beta, gamma: The law's numbers.
        warmup: `"full"` or `"sum"`. Defaults to `"full"`.

    Raises:
        ValueError: If a number is negative, `gamma` is 1 or more, or `warmup` is unknown.

    Reference: Luo et al. 2025, arXiv:2503.12811; official code, thu-yao-01-luo/MultiPowerLaw.

    Example:

    >>> law = MultiPowerLaw.published("100M")
    >>> rates = np.concatenate([np.linspace(0, 3e-4, 2160), np.full(21840, 3e-4)])
    >>> round(law.final_loss(rates), 4)
    3.033
    """

    parameters = ("L0", "A", "alpha", "B", "C", "beta", "gamma")
    options = ("warmup",)
    L0: float
    A: float
    alpha: float
    B: float
    C: float
    beta: float
    gamma: float

    def __init__(
        self,
        L0: float,
        A: float,
        alpha: float,
        B: float,
        C: float,
        beta: float,
        gamma: float,
        warmup: str = "full",
    ) -> None:
        super().__init__()
        finite_numbers(self, L0=L0, A=A, alpha=alpha, B=B, C=C, beta=beta, gamma=gamma)
        self.warmup = validation.one_of("warmup", warmup, ("full", "sum"))
        if min(self.numbers) < 0 or self.gamma >= 1:
            raise ValueError(f"The numbers of the law must not be negative, and gamma below 1. Received: {self}")

    @classmethod
    def published(cls, model: str) -> Self:
        """The law with the numbers of the paper's three models: `"25M"`, `"100M"`, `"400M"` (peak 3e-4, 24,000 steps)."""
        return cls(*PUBLISHED[validation.one_of("model", model, tuple(PUBLISHED))])

    @property
    def numbers(self) -> tuple[float, ...]:
        """The law's numbers in the order of `parameters`."""
        return tuple(getattr(self, name) for name in self.parameters)

    @classmethod
    def fit(cls, curves: Curves, warmup: str = "sum", skip: float = 0.3, points: int = 400) -> Self:
        """The law that describes measured curves best.

        First L0, A, alpha and B of the reduced law L0 + A * S1^-alpha - B * (peak - lr), by non-negative least squares for a
        grid of alpha. From there all seven, which minimize the sum of Huber(log(loss) - log(prediction)), delta = 0.001, by
        L-BFGS-B.

        The official code searches from a grid in the first stage, and takes up to 200 steps of AdamW in the second. It uses
        all points after warmup; small models fall in another way at first, so `skip` leaves these points out. It has no
        bounds on C, beta and gamma, which few and noisy curves do not determine: here a small penalty holds them near the
        published ones, unless the curves differ.

        Args:
            curves: One or more `LossCurve`s; at least one in which the learning rate falls, and better one in which it
                falls at once. Points before the end of warmup are not used.
            warmup: See the class. Defaults to `"sum"`.
            skip: The first part of each run that is not used either, in [0, 1]. Defaults to `0.3`.
            points: Each curve is averaged into this many pieces. Defaults to `400`.

        Raises:
            ValueError: If there are too few points, or no learning rate falls.

        Warns:
            IdentifiabilityWarning: If the learning rate falls in the same way in all curves.
            RegimeWarning: If the curves bend as no law of this kind can.
        """
        return _multi_power.fit(cls, curves, warmup, skip, points)

    def optimize(
        self,
        total_steps: int,
        peak_learning_rate: float,
        warmup_steps: int = 0,
        floor: float = 1e-10,
        knots: int = 400,
    ) -> Tabulated:
        """The schedule with the lowest predicted final loss among those that never rise after warmup.

        Args:
            total_steps: Updates of the run.
            peak_learning_rate: The highest learning rate.
            warmup_steps: Updates of linear warmup, W: the learning rate peak * t / W at update t < W. Defaults to `0`.
            floor: The lowest learning rate. Defaults to `1e-10`.
            knots: Places between which the learning rate is a straight line. Defaults to `400`.

        Returns:
            A `Tabulated`, which `compile` takes.
        """
        final_loss = partial(_multi_power.final_loss, self)
        best = optimize(final_loss, total_steps, peak_learning_rate, warmup_steps, floor, knots)
        self._warn_of_extrapolation(best.values(total_steps))
        return best

    def loss_at(self, learning_rate: np.ndarray, at: np.ndarray) -> np.ndarray:
        if np.any(learning_rate[1:] == 0):
            warnings.warn(
                f"The learning rate is 0 at {np.sum(learning_rate[1:] == 0)} updates, where the multi-power law is not "
                "defined; its limit is used, in which nothing changes from there on",
                stacklevel=4,
            )
        spent = np.cumsum(learning_rate)
        drop = np.concatenate(
            [self._drop(learning_rate, part) for part in np.array_split(at, max(1, len(at) * 1000 // ROWS))]
        )
        with np.errstate(divide="ignore"):  # before the first rate above 0 the law has no finite loss
            return self.L0 + self.A * spent[at] ** -self.alpha - self.B * drop

    def _drop(self, learning_rate: np.ndarray, at: np.ndarray) -> np.ndarray:
        past = lr_decrements(counted(learning_rate, self.warmup), at)
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(past.since > 0, past.rate**-self.gamma * past.since, 0.0)
        return np.sum(past.fall * (1 - (self.C * reach + 1) ** -self.beta), axis=1)


PUBLISHED = {
    "25M": (3.0405, 0.52469, 0.50787, 363.79, 2.0656, 0.58279, 0.64142),
    "100M": (2.65145, 0.60115, 0.45296, 437.946, 2.13246, 0.59785, 0.65524),
    "400M": (2.37474, 0.65421, 0.42879, 523.425, 2.02463, 0.5935, 0.63472),
}

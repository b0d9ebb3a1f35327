"""The functional scaling law: the loss of a run from its intrinsic time, and from when its learning rate fell."""

from functools import partial
from typing import Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws import _functional
from keras_lrsched.laws._fitting import Curves
from keras_lrsched.laws._functional import lr_history
from keras_lrsched.laws._optimal_schedule import optimize
from keras_lrsched.laws.law import Law, finite_numbers
from keras_lrsched.schedules import Tabulated

POINTS = 1000
"""Points that are computed at a time: each has a few hundred earlier decrements."""


@register(
    "functional",
    title="intrinsic time, and decrements of the learning rate that count more early on",
    paper="arXiv:2509.19189",
    checked="read",
    against="two independent descriptions of the paper's equation 30, which agree",
    deviations=(
        "no official code or data; bounds, start and skipped points of the fit are ours; old updates are summed in groups; "
        "a rise of the learning rate counts as a loss, where others clip it"
    ),
    kind="law of the loss",
)
class FunctionalLaw(Law):
    """The loss curve of any schedule, predicted from two or more runs whose learning rates fall differently.

        L(t) = L0 + c1 * T(t)^-s - c2 * D(t)
        T(t) = lr_0 + ... + lr_t
        D(t) = sum over k = 1..t of (lr_(k-1) - lr_k) * (c3 + T(k)^-s) * (1 - (1 + c4 * (T(t) - T(k)))^-gamma)

    T is the intrinsic time. The loss falls with it, and falls further after each drop of the learning rate, the more the
    longer ago the drop lies, and the earlier in the run it came: then there was more noise to lose. It is `MultiPowerLaw`
    with B = c2 * (c3 + T^-s), and without the factor lr^-gamma.

    T has the unit of the learning rate, so the parameters c1, c2, c3 and c4 belong to the peak of the fitted runs.

    One decay does not determine c3, c4 and gamma: fits of two runs of the published curves that agree with them to 0.1 %
    predict the others 1 to 2 % off, worse than `AnnealingLaw`. `fit` warns, and `gamma` can be given.

    Args:
        L0, c1, s, c2, c3, c4, gamma: The law's numbers. In the theory gamma = 1 - 1 / capacity; see `PowerDecayToZero`.
        warmup: `"peak"` treats the warmup as if it had the peak rate, `"sum"` adds its own rates in T. Its rise counts in
            neither: at so early a time the law would make a large loss of it. Defaults to `"peak"`.

    Raises:
        ValueError: If a number is negative or not finite, or `warmup` is unknown.

    Reference: Li et al. 2025, arXiv:2509.19189, equation 30.

    Example:

    >>> law = FunctionalLaw(L0=2.0, c1=0.8, s=0.6, c2=3.0, c3=0.5, c4=20.0, gamma=0.7)
    >>> rates = np.concatenate([np.full(60, 0.02), 0.02 * (1 - np.arange(1, 41) / 40)])
    >>> law.predict(rates, at=[0, 59, 99]).round(4)
    array([10.3651,  2.7171,  2.5704])
    """

    parameters = ("L0", "c1", "s", "c2", "c3", "c4", "gamma")
    options = ("warmup",)
    L0: float
    c1: float
    s: float
    c2: float
    c3: float
    c4: float
    gamma: float

    def __init__(
        self,
        L0: float,
        c1: float,
        s: float,
        c2: float,
        c3: float,
        c4: float,
        gamma: float,
        warmup: str = "peak",
    ) -> None:
        super().__init__()
        finite_numbers(self, L0=L0, c1=c1, s=s, c2=c2, c3=c3, c4=c4, gamma=gamma)
        self.warmup = validation.one_of("warmup", warmup, _functional.WARMUPS)
        if min(L0, c1, s, c2, c3, c4, gamma) < 0:
            raise ValueError(f"The numbers of the law must not be negative. Received: {self}")

    @classmethod
    def fit(
        cls, curves: Curves, gamma: float | None = None, warmup: str = "peak", skip: float = 0.3, points: int = 400
    ) -> Self:
        """The law that describes measured curves best.

        It minimizes the sum of Huber(log(loss) - log(prediction)), delta = 0.001, by L-BFGS-B, from the non-negative least
        squares of the relative errors for the best of a grid of s, c4 and gamma.

        Args:
            curves: One or more `LossCurve`s; at least one in which the learning rate falls, and better two that fall over
                different lengths. Points before the end of warmup are not used.
            gamma: A positive number to hold gamma at. Defaults to `None`: fitted, between 0.1 and 2.
            warmup: See the class. Defaults to `"peak"`.
            skip: The first part of each run that is not used either, in [0, 1]. Defaults to `0.3`.
            points: Each curve is averaged into at most this many pieces. Defaults to `400`.

        Raises:
            ValueError: If there are too few points, or no learning rate falls.

        Warns:
            IdentifiabilityWarning: If the learning rate falls in the same way in all curves, and `gamma` is not given.
            RegimeWarning: If the curves bend as no law of this kind can.
        """
        return _functional.fit(cls, curves, gamma, warmup, skip, points)

    def optimize(
        self,
        total_steps: int,
        peak_learning_rate: float,
        warmup_steps: int = 0,
        floor: float = 1e-10,
        knots: int = 400,
    ) -> Tabulated:
        """The schedule with the lowest predicted final loss among those that never rise after warmup.

        Arguments, result and warnings as of `MultiPowerLaw.optimize`.
        """
        final_loss = partial(_functional.final_loss, self)
        best = optimize(final_loss, total_steps, peak_learning_rate, warmup_steps, floor, knots)
        self._warn_of_extrapolation(best.values(total_steps))
        return best

    def loss_at(self, learning_rate: np.ndarray, at: np.ndarray) -> np.ndarray:
        parts = np.array_split(at, max(1, len(at) // POINTS))
        return np.concatenate([self._loss_at(learning_rate, part) for part in parts])

    def _loss_at(self, learning_rate: np.ndarray, at: np.ndarray) -> np.ndarray:
        past = lr_history(learning_rate, at, self.warmup)
        weight = self.c3 + past.time**-self.s
        gain = 1 - (1 + self.c4 * past.since) ** -self.gamma
        drop = np.bincount(past.row, past.fall * weight * gain, len(at))
        with np.errstate(divide="ignore"):  # before the first rate above 0 the law has no finite loss
            return self.L0 + self.c1 * past.now**-self.s - self.c2 * drop

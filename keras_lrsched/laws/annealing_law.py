"""The annealing law: the loss of a run from the sum of its learning rates and the integral of their decrements."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws import diagnostics
from keras_lrsched.laws._fitting import Curves, Objective, log_huber, need_a_fall, reduced, search, usable
from keras_lrsched.laws._lr_integrals import WARMUPS, lr_integrals
from keras_lrsched.laws.law import Law, finite_numbers
from keras_lrsched.laws.loss_curve import LossCurve


@register(
    "annealing",
    title="sum of learning rates, and integral of their decrements",
    paper="arXiv:2408.11029",
    code=("zhes2Hen/Fit_Scaling_Laws",),
    checked="vectors",
    against="public code that is not the authors', for the formula, S1 and S2",
    deviations="the paper's own fits were not compared; there is no `optimize`",
    kind="law of the loss",
)
class AnnealingLaw(Law):
    """A loss curve of any schedule, predicted from one or two runs with others; four parameters, linear in three.

        L(t)  = L0 + A * S1(t)^-alpha - C * S2(t)
        S1(t) = lr_0 + ... + lr_t
        S2(t) = m_0 + ... + m_t,  m_0 = 0,  m_t = decay * m_(t-1) + (lr_(t-1) - lr_t)

    The loss falls with the learning rate that has been spent, and falls further after each drop of the learning rate,
    over about 1 / (1 - decay) updates. S2 grows without end only with the drops, to (how far the learning rate fell) /
    (1 - decay).

    A rise of the learning rate counts as a loss. Warmup is such a rise, of a loss that does not happen: `warmup="peak"`
    treats it as if it had the peak rate, `"sum"` leaves it out of S2 but adds its own rates in S1, `"full"` keeps it in
    both. Numbers belong to the convention and the decay that they were fitted with.

    There is no `optimize`: whether the schedules with the lowest predicted loss are good in training is not verified.

    Args:
        L0, A, alpha, C: The law's numbers. `alpha` is in units of the learning rates' sum, C in loss per S2.
        decay: The paper's lambda, between 0 and 1. Defaults to `0.999`.
        warmup: `"peak"`, `"sum"` or `"full"`. Defaults to `"peak"`.

    Raises:
        ValueError: If a number is negative or not finite, `decay` is not between 0 and 1, or `warmup` is unknown.

    Reference: Tissue et al. 2024, arXiv:2408.11029.

    Example:

    >>> law = AnnealingLaw(L0=2.6, A=0.6, alpha=0.45, C=0.4)
    >>> round(law.final_loss(3e-4, total_steps=10000), 4)
    2.966
    >>> round(law.final_loss(np.repeat([3e-4, 3e-5], [8000, 2000])), 4)
    2.9068
    """

    parameters = ("L0", "A", "alpha", "C")
    options = ("decay", "warmup")
    L0: float
    A: float
    alpha: float
    C: float

    def __init__(self, L0: float, A: float, alpha: float, C: float, decay: float = 0.999, warmup: str = "peak") -> None:
        super().__init__()
        finite_numbers(self, L0=L0, A=A, alpha=alpha, C=C)
        self.decay = validation.inner_fraction("decay", decay)
        self.warmup = validation.one_of("warmup", warmup, WARMUPS)
        if min(self.L0, self.A, self.alpha, self.C) < 0:
            raise ValueError(f"The numbers of the law must not be negative. Received: {self}")

    @classmethod
    def fit(
        cls,
        curves: Curves,
        decay: float | Sequence[float] = (0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999),
        warmup: str = "peak",
        skip: float = 0.3,
        points: int = 400,
    ) -> Self:
        """The law that describes measured curves best.

        It minimizes the sum of Huber(log(loss) - log(prediction)), delta = 0.001, by L-BFGS-B, from the non-negative least
        squares of the relative errors for the best of a grid of alpha.

        Args:
            curves: One or more `LossCurve`s; at least one in which the learning rate falls. Points before the end of
                warmup are not used.
            decay: The paper's lambda, or several to choose from. The paper has 0.999, for runs of tens of thousands of
                updates, and tried 0.99 to 0.9999. Defaults to `(0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)`.
            warmup: See the class. Defaults to `"peak"`.
            skip: The first part of each run that is not used, in [0, 1]. Defaults to `0.3`.
            points: Each curve is averaged into at most this many pieces. Defaults to `400`.

        Raises:
            ValueError: If there are too few points, or no learning rate falls.

        Warns:
            IdentifiabilityWarning: If the learning rate falls in the same way in all curves, and several `decay`s are given.
            RegimeWarning: If the curves bend as no law of this kind can.
        """
        return _fit(cls, curves, decay, warmup, skip, points)

    def loss_at(self, learning_rate: np.ndarray, at: np.ndarray) -> np.ndarray:
        spent, fallen = (integral[at] for integral in lr_integrals(learning_rate, self.decay, self.warmup))
        with np.errstate(divide="ignore"):  # before the first rate above 0 the law has no finite loss
            return self.L0 + self.A * spent**-self.alpha - self.C * fallen


LOWEST, HIGHEST = np.log([1e-8, 1e-8, 1e-3, 1e-12]), np.log([1e3, 1e6, 3.0, 1e6])


class Points(NamedTuple):
    """All points of all curves."""

    loss: np.ndarray
    spent: np.ndarray
    fallen: np.ndarray


def _fit(
    law: Any,
    curves: Curves,
    decay: float | Sequence[float],
    warmup: str,
    skip: float,
    points: int,
) -> Any:
    """`AnnealingLaw.fit`."""
    validation.one_of("warmup", warmup, WARMUPS)
    decays = validation.each("decay", np.atleast_1d(decay), validation.inner_fraction)
    if not decays:
        raise ValueError(f"`decay` must be a number, or several. Received: decay={decay!r}")
    curves = usable(curves, skip)
    need_a_fall(curves)
    measured = [curve.subsample(points) for curve in curves]
    found = [_best(_points(measured, decay, warmup)) for decay in decays]
    best = min(range(len(found)), key=lambda number: found[number].fun)
    fitted = law(*np.exp(found[best].x), decay=decays[best], warmup=warmup)._fitted_to(
        curves, partial(law.fit, decay=decays, warmup=warmup, skip=skip, points=points)
    )
    if len(decays) > 1:
        diagnostics.check_decays(curves, "`decay`", "give one `decay`")
    diagnostics.check(fitted, measured)
    return fitted


def _points(curves: list[LossCurve], decay: float, warmup: str) -> Points:
    parts = []
    for curve in curves:
        spent, fallen = lr_integrals(curve.rates, decay, warmup)
        parts.append(Points(curve.loss, spent[curve.step], fallen[curve.step]))
    return Points(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _best(data: Points) -> Any:
    return search(_objective(data), reduced(data.loss, data.spent, data.fallen), LOWEST, HIGHEST)


def _objective(data: Points) -> Objective:
    def objective(logs: np.ndarray) -> tuple[float, np.ndarray]:
        level, factor, alpha, drop = np.exp(logs)
        power = factor * data.spent**-alpha
        gradient = np.stack(
            [np.full_like(power, level), power, -alpha * power * np.log(data.spent), -drop * data.fallen],
        )
        return log_huber(level + power - drop * data.fallen, gradient, data.loss)

    return objective

"""The continual law: the loss while a trained model is trained further, on other data."""

import itertools
from copy import copy
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws import diagnostics
from keras_lrsched.laws._fitting import Curves, Objective, best_weights, log_huber, need_a_fall, search, usable
from keras_lrsched.laws._lr_integrals import WARMUPS, LRIntegrals, lr_integrals
from keras_lrsched.laws.law import Law, finite_numbers, rates
from keras_lrsched.laws.loss_curve import LossCurve


@register(
    "continual",
    title="annealing law of two phases, and the shift between their data",
    paper="arXiv:2505.07796",
    checked="read",
    against="the text of the paper",
    deviations=(
        "no official code was seen; that lambda is 0.999, and how warmup counts, is unverified; the replay ratio, which "
        "enters the shift in the paper, is left out"
    ),
    kind="law of the loss",
)
class ContinualLaw(Law):
    """The loss curve of continual pre-training under any schedule, on the old data or on the new.

        L(t) = L0 + A * (S1pt + S1(t))^-alpha - C1 * S2pt - C2 * S2(t) + B * (1 - (1 + E * S1(t))^-beta)

    S1 and S2 are the integrals of the continual phase, as in `AnnealingLaw`; S1pt and S2pt those of all pre-training. The
    first four terms are the annealing law of both phases; the last is the shift from one data set to the other, which does
    not depend on where pre-training ended. For the loss on the old data B is positive, on the new data negative. Schedules
    given to `predict` are those of the continual phase; a fall from the last rate of pre-training to its first counts in
    neither.

    Args:
        L0, A, alpha, C1, C2, B, E, beta: The law's numbers. `B` may be negative.
        S1pt: The sum of the learning rates of pre-training, positive. See `after`.
        S2pt: The integral of their decrements. Defaults to `0.0`.
        decay: As of `AnnealingLaw`. Defaults to `0.999`.
        warmup: As of `AnnealingLaw`, in both phases. Defaults to `"peak"`.

    Raises:
        ValueError: If a number is not finite, one other than `B` is negative, `S1pt` is 0, `decay` is not between 0 and 1,
            or `warmup` is unknown.

    Reference: Wang et al. 2025, arXiv:2505.07796.

    Example:

    >>> law = ContinualLaw.published("target", S1pt=4.0)
    >>> round(law.final_loss(1e-4, total_steps=20000), 4)
    2.6509
    """

    parameters = ("L0", "A", "alpha", "C1", "C2", "B", "E", "beta", "S1pt", "S2pt")
    options = ("decay", "warmup")
    L0: float
    A: float
    alpha: float
    C1: float
    C2: float
    B: float
    E: float
    beta: float
    S1pt: float
    S2pt: float

    def __init__(
        self,
        L0: float,
        A: float,
        alpha: float,
        C1: float,
        C2: float,
        B: float,
        E: float,
        beta: float,
        S1pt: float,
        S2pt: float = 0.0,
        decay: float = 0.999,
        warmup: str = "peak",
    ) -> None:
        super().__init__()
        finite_numbers(self, L0=L0, A=A, alpha=alpha, C1=C1, C2=C2, B=B, E=E, beta=beta, S1pt=S1pt, S2pt=S2pt)
        self.decay = validation.inner_fraction("decay", decay)
        self.warmup = validation.one_of("warmup", warmup, WARMUPS)
        if min(self.L0, self.A, self.alpha, self.C1, self.C2, self.E, self.beta) < 0:
            raise ValueError(f"The numbers of the law, other than B, must not be negative. Received: {self}")
        validation.positive_float("S1pt", self.S1pt)

    @classmethod
    def published(cls, loss: str, S1pt: float, S2pt: float = 0.0) -> Self:
        """The law with the paper's numbers for a model trained on FineWeb, then on Knowledge-Pile.

        Args:
            loss: `"general"`, that on the old data, or `"target"`, that on the new.
            S1pt, S2pt: See the class.
        """
        return cls(*PUBLISHED[validation.one_of("loss", loss, tuple(PUBLISHED))], S1pt, S2pt)

    @classmethod
    def fit(  # type: ignore[override]
        cls,
        curves: Curves,
        pretraining: LossCurve | np.ndarray,
        decay: float = 0.999,
        warmup: str = "peak",
        points: int = 400,
    ) -> Self:
        """The law that describes measured curves best.

        It minimizes the sum of Huber(log(loss) - log(prediction)), delta = 0.001, by L-BFGS-B, from the non-negative least
        squares of the relative errors for the best of a grid of alpha, E and beta, and the two signs of B.

        Args:
            curves: One or more `LossCurve`s of the continual phase, after the same pre-training; at least one in which the
                rate falls. Points before the end of warmup are not used.
            pretraining: The `LossCurve` of pre-training, on the same validation data, which is fitted too; or only its
                rates, for all updates: then C1 cannot be distinguished from L0, is set to 0, and the law holds for this
                pre-training alone.
            decay: The paper's lambda. Defaults to `0.999`.
            warmup: See the class. Defaults to `"peak"`.
            points: Each curve is averaged into at most this many pieces. Defaults to `400`.

        Raises:
            ValueError: If there are too few points, or no learning rate falls.

        Warns:
            RegimeWarning: If the law misses the curves of the continual phase.
        """
        return _fit(cls, curves, pretraining, decay, warmup, points)

    def after(self, pretraining: LossCurve | np.ndarray) -> Self:
        """The same law after another pre-training: a `LossCurve`, or the rates of all its updates.

        Raises:
            ValueError: If the law was fitted without the losses of a pre-training in which the learning rate fell.
        """
        if self.fitted and not self.C1:
            raise ValueError(
                f"The law was fitted to one pre-training, without its losses, and fits no other. Received: {self}"
            )
        law = copy(self)
        learning_rate = pretraining.rates if isinstance(pretraining, LossCurve) else rates(pretraining)
        law.S1pt, law.S2pt = (float(integral[-1]) for integral in lr_integrals(learning_rate, self.decay, self.warmup))
        return law

    def loss_at(self, learning_rate: np.ndarray, at: np.ndarray) -> np.ndarray:
        spent, fallen = (integral[at] for integral in lr_integrals(learning_rate, self.decay, self.warmup))
        shift = self.B * (1 - (1 + self.E * spent) ** -self.beta)
        power = self.A * (self.S1pt + spent) ** -self.alpha
        return self.L0 + power - self.C1 * self.S2pt - self.C2 * fallen + shift

    def _in_place(self, other: Self) -> Self:
        law = copy(other)
        law.S1pt, law.S2pt = self.S1pt, self.S2pt
        return law


PUBLISHED = {
    "general": (3.057, 0.490, 0.497, 0.299, 0.298, 0.366, 28.0, 0.189),
    "target": (3.024, 0.412, 0.677, 0.278, 0.324, -0.666, 5662.0, 0.146),
}


ALPHAS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3)
SCALES = np.geomspace(0.1, 1e5, 9)  # E times the largest S1
BETAS = (0.05, 0.1, 0.2, 0.4, 0.8)
LOWEST = np.log([1e-3, 1e-5, 1e-2, 1e-8, 1e-8, 1e-8, 1e-8, 1e-8])
HIGHEST = np.log([3.0, 1e8, 5.0, 1e3, 1e6, 1e6, 1e4, 1e6])


class Points(NamedTuple):
    """All points of all curves; those of pre-training have no integrals of the continual phase."""

    loss: np.ndarray
    spent_before: np.ndarray
    fallen_before: np.ndarray
    spent: np.ndarray
    fallen: np.ndarray


def _fit(
    law: Any,
    curves: Curves,
    pretraining: LossCurve | np.ndarray,
    decay: float,
    warmup: str,
    points: int,
) -> Any:
    """`ContinualLaw.fit`."""
    validation.one_of("warmup", warmup, WARMUPS)
    decay = validation.inner_fraction("decay", decay)
    curves = usable(curves)
    need_a_fall(curves)
    measured = [curve.subsample(points) for curve in curves]
    before = lr_integrals(pretraining.rates if isinstance(pretraining, LossCurve) else rates(pretraining), decay, warmup)
    parts = [_continual(curve, before, decay, warmup) for curve in measured]
    if isinstance(pretraining, LossCurve):
        parts += [_pretraining(curve.subsample(points), before) for curve in usable(pretraining)]
    data = Points(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    alpha, scale, beta, sign, weights = _best(data)
    level, factor, by_fall, by_shift, *by_fall_before = weights
    numbers = (level, factor, alpha, *(by_fall_before or [0.0]), by_fall, sign * by_shift, scale, beta)
    fitted = law(*numbers, before.spent[-1], before.fallen[-1], decay=decay, warmup=warmup)._fitted_to(
        curves, partial(law.fit, pretraining=pretraining, decay=decay, warmup=warmup, points=points)
    )
    diagnostics.check_misfit(fitted, measured)
    return fitted


def _continual(curve: LossCurve, before: LRIntegrals, decay: float, warmup: str) -> Points:
    spent, fallen = (integral[curve.step] for integral in lr_integrals(curve.rates, decay, warmup))
    return Points(curve.loss, np.full_like(spent, before.spent[-1]), np.full_like(spent, before.fallen[-1]), spent, fallen)


def _pretraining(curve: LossCurve, before: LRIntegrals) -> Points:
    nothing = np.zeros(len(curve.loss))
    return Points(curve.loss, before.spent[curve.step], before.fallen[curve.step], nothing, nothing)


def _best(data: Points) -> Any:
    """alpha, E, beta, the sign of B, and the weights of `_columns`."""
    found = []
    for sign in (1.0, -1.0):
        trials = [
            (best_weights(_columns(data, *powers, sign), data.loss), powers)
            for powers in itertools.product(ALPHAS, SCALES / data.spent.max(), BETAS)
        ]
        (weights, _), powers = min(trials, key=lambda trial: trial[0][1])
        start = np.log([*powers, *weights])
        result = search(_objective(data, sign), start, LOWEST[: len(start)], HIGHEST[: len(start)])
        found.append((result.fun, *np.exp(result.x[:3]), sign, np.exp(result.x[3:])))
    return min(found, key=lambda one: one[0])[1:]


def _columns(data: Points, alpha: float, scale: float, beta: float, sign: float) -> list[np.ndarray]:
    """The factors of L0, A, C2, B and C1; the last only if pre-training determines it."""
    power = (data.spent_before + data.spent) ** -alpha
    shift = sign * (1 - (1 + scale * data.spent) ** -beta)
    columns = [np.ones_like(power), power, -data.fallen, shift]
    return [*columns, -data.fallen_before] if np.ptp(data.fallen_before) else columns


def _objective(data: Points, sign: float) -> Objective:
    def objective(logs: np.ndarray) -> tuple[float, np.ndarray]:
        alpha, scale, beta, *weights = np.exp(logs)
        terms = np.array(weights)[:, None] * np.stack(_columns(data, alpha, scale, beta, sign))
        base = 1 + scale * data.spent
        left = sign * weights[3] * base**-beta
        by_alpha = -alpha * terms[1] * np.log(data.spent_before + data.spent)
        by_scale = left * beta * scale * data.spent / base
        by_beta = left * beta * np.log(base)
        return log_huber(terms.sum(axis=0), np.stack([by_alpha, by_scale, by_beta, *terms]), data.loss)

    return objective

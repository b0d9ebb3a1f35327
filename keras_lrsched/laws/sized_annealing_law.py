"""The annealing law with the size of the model: one law for models of several sizes."""

import itertools
from copy import copy
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.laws import diagnostics
from keras_lrsched.laws._fitting import Curves, Objective, best_weights, log_huber, need_a_fall, search, usable
from keras_lrsched.laws._lr_integrals import WARMUPS, lr_integrals
from keras_lrsched.laws.law import Law, finite_numbers
from keras_lrsched.laws.loss_curve import LossCurve


@register(
    "sized_annealing",
    title="annealing law, with a term of the model's size",
    paper="arXiv:2408.11029",
    checked="read",
    against="the abstract, and a description of the law",
    deviations="no official code; the paper's fits were not compared",
    kind="law of the loss",
)
class SizedAnnealingLaw(Law):
    """The loss curve of any schedule for models of any size, predicted from runs of two sizes or more.

        L(t) = L0 + A * S1(t)^-alpha + B * N^-beta - C * S2(t)

    S1 and S2 are those of `AnnealingLaw`; N is the number of parameters of the model, with or without the embeddings as long
    as it is the same for all: exponents depend on it. At a constant rate this is the form of Chinchilla's law. A law is for
    one size, `at_size` returns it for another.

    Fewer than three sizes do not determine L0: `fit` warns, and the law holds between the two.

    Args:
        L0, A, alpha, C, B, beta: The law's numbers.
        model_parameters: N, positive.
        decay: As of `AnnealingLaw`. Defaults to `0.999`.
        warmup: As of `AnnealingLaw`. Defaults to `"peak"`.

    Raises:
        ValueError: If a number is negative or not finite, N is 0, `decay` is not between 0 and 1, or `warmup` is unknown.

    Reference: Tissue et al. 2024, arXiv:2408.11029.

    Example:

    >>> law = SizedAnnealingLaw(L0=1.8, A=0.4, alpha=0.45, C=0.5, B=120, beta=0.3, model_parameters=1e8, decay=0.99)
    >>> rates = np.repeat([3e-4, 3e-5], [80, 20])
    >>> round(law.final_loss(rates), 4), round(law.at_size(1e9).final_loss(rates), 4)
    (4.3943, 4.156)
    """

    parameters = ("L0", "A", "alpha", "C", "B", "beta", "model_parameters")
    options = ("decay", "warmup")
    L0: float
    A: float
    alpha: float
    C: float
    B: float
    beta: float
    model_parameters: float

    def __init__(
        self,
        L0: float,
        A: float,
        alpha: float,
        C: float,
        B: float,
        beta: float,
        model_parameters: float,
        decay: float = 0.999,
        warmup: str = "peak",
    ) -> None:
        super().__init__()
        finite_numbers(self, L0=L0, A=A, alpha=alpha, C=C, B=B, beta=beta, model_parameters=model_parameters)
        self.decay = validation.inner_fraction("decay", decay)
        self.warmup = validation.one_of("warmup", warmup, WARMUPS)
        if min(self.L0, self.A, self.alpha, self.C, self.B, self.beta) < 0:
            raise ValueError(f"The numbers of the law must not be negative. Received: {self}")
        validation.positive_float("model_parameters", self.model_parameters)

    @classmethod
    def fit(cls, curves: Curves, decay: float = 0.999, warmup: str = "peak", skip: float = 0.3, points: int = 400) -> Self:
        """The law that describes measured curves best, at the size of the largest model among them.

        The objective and the search are those of `AnnealingLaw.fit`, over a grid of alpha and beta.

        Args:
            curves: `LossCurve`s with `model_parameters`, of two sizes or more; at least one in which the learning rate
                falls. Points before the end of warmup are not used.
            decay: The paper's lambda. Defaults to `0.999`.
            warmup: See `AnnealingLaw`. Defaults to `"peak"`.
            skip: The first part of each run that is not used, in [0, 1]. Defaults to `0.3`.
            points: Each curve is averaged into at most this many pieces. Defaults to `400`.

        Raises:
            ValueError: If a curve has no size, all have the same, there are too few points, or no learning rate falls.

        Warns:
            IdentifiabilityWarning: If the models have only two sizes.
            RegimeWarning: If the law misses a curve.
        """
        return _fit(cls, curves, decay, warmup, skip, points)

    def at_size(self, model_parameters: float) -> Self:
        """Return this law for a model of another size."""
        law = copy(self)
        law.model_parameters = validation.positive_float("model_parameters", model_parameters)
        return law

    def loss_at(self, learning_rate: np.ndarray, at: np.ndarray) -> np.ndarray:
        spent, fallen = (integral[at] for integral in lr_integrals(learning_rate, self.decay, self.warmup))
        level = self.L0 + self.B * self.model_parameters**-self.beta
        with np.errstate(divide="ignore"):  # before the first rate above 0 the law has no finite loss
            return level + self.A * spent**-self.alpha - self.C * fallen

    def _in_place(self, other: Self) -> Self:
        return other.at_size(self.model_parameters)

    def _for(self, curve: LossCurve) -> Self:
        return self if curve.model_parameters is None else self.at_size(curve.model_parameters)


ALPHAS = np.linspace(0.1, 1.5, 15)
BETAS = np.linspace(0.05, 1.0, 20)
LOWEST = np.log([1e-8, 1e-8, 1e-3, 1e-12, 1e-8, 1e-3])
HIGHEST = np.log([1e3, 1e6, 3.0, 1e6, 1e3, 3.0])


class Points(NamedTuple):
    """All points of all curves."""

    loss: np.ndarray
    spent: np.ndarray
    fallen: np.ndarray
    size: np.ndarray
    """The parameters of the model, in units of their geometric mean over the curves."""


def _fit(law: Any, curves: Curves, decay: float, warmup: str, skip: float, points: int) -> Any:
    """`SizedAnnealingLaw.fit`."""
    validation.one_of("warmup", warmup, WARMUPS)
    decay = validation.inner_fraction("decay", decay)
    curves = usable(curves, skip)
    need_a_fall(curves)
    sizes = [curve.model_parameters or 0.0 for curve in curves]
    if min(sizes) == 0 or len(set(sizes)) < 2:
        raise ValueError(
            "The curves must have `model_parameters`, of two sizes or more. "
            f"Received: {[curve.model_parameters for curve in curves]}"
        )
    unit = float(np.exp(np.mean(np.log(sizes))))
    measured = [curve.subsample(points) for curve in curves]
    data = _points(measured, decay, warmup, unit)
    L0, A, alpha, C, B, beta = np.exp(search(_objective(data), _start(data), LOWEST, HIGHEST).x)
    fitted = law(L0, A, alpha, C, B * unit**beta, beta, max(sizes), decay=decay, warmup=warmup)._fitted_to(
        curves, partial(law.fit, decay=decay, warmup=warmup, skip=skip, points=points)
    )
    diagnostics.check_sizes(curves)
    diagnostics.check_misfit(fitted, measured)
    return fitted


def _points(curves: list[LossCurve], decay: float, warmup: str, unit: float) -> Points:
    parts = []
    for curve in curves:
        spent, fallen = (integral[curve.step] for integral in lr_integrals(curve.rates, decay, warmup))
        parts.append(Points(curve.loss, spent, fallen, np.full_like(spent, (curve.model_parameters or 0.0) / unit)))
    return Points(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _start(data: Points) -> np.ndarray:
    """Logarithms of the law's numbers: for each alpha and beta the law is linear in the others."""
    trials = []
    for alpha, beta in itertools.product(ALPHAS, BETAS):
        columns = [np.ones_like(data.loss), data.spent**-alpha, -data.fallen, data.size**-beta]
        (L0, A, C, B), total = best_weights(columns, data.loss)
        trials.append((total, (L0, A, alpha, C, B, beta)))
    return np.log(min(trials)[1])


def _objective(data: Points) -> Objective:
    log_spent, log_size = np.log(data.spent), np.log(data.size)

    def objective(logs: np.ndarray) -> tuple[float, np.ndarray]:
        L0, A, alpha, C, B, beta = np.exp(logs)
        by_time, by_size, drop = A * np.exp(-alpha * log_spent), B * np.exp(-beta * log_size), C * data.fallen
        gradient = [
            np.full_like(drop, L0),
            by_time,
            -alpha * by_time * log_spent,
            -drop,
            by_size,
            -beta * by_size * log_size,
        ]
        return log_huber(L0 + by_time + by_size - drop, np.stack(gradient), data.loss)

    return objective

"""The common parts of all fits: the points that count, the objective, and the search."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched.laws.loss_curve import LossCurve

Curves: TypeAlias = LossCurve | Iterable[LossCurve]
"""One or more curves."""
Objective: TypeAlias = Callable[[np.ndarray], tuple[float, np.ndarray]]
"""A function to be minimized, with its gradient."""
DELTA = 1e-3
"""Beyond this difference of logarithms the objective grows linearly."""
ALPHAS = np.linspace(0.05, 1.5, 30)


def usable(curves: Curves, skip: float = 0.0, least: int = 20) -> list[LossCurve]:
    """The curves behind the end of warmup and the first part `skip` of each run.

    Raises:
        ValueError: If there is none, or one has fewer than `least` points there.
    """
    skip = validation.fraction("skip", skip)
    curves = as_curves(curves)
    usable = []
    for curve in curves:
        first = max(curve.peak_step, int(skip * len(curve.rates)))
        left = int(np.sum(curve.step >= first))
        if left < least:
            raise ValueError(
                f"A curve needs {least} points or more after warmup and the part that is skipped. Received: {left} points "
                f"from update {first} on{f' in {curve.name}' if curve.name else ''}"
            )
        usable.append(curve.between(first))
    return usable


def as_curves(curves: Curves) -> list[LossCurve]:
    """A list of `LossCurve`s, from several or one.

    Raises:
        ValueError: If there is none, or something else among them.
    """
    found: list = [curves] if isinstance(curves, LossCurve | str) or not hasattr(curves, "__iter__") else list(curves)
    if not found or not all(isinstance(curve, LossCurve) for curve in found):
        raise ValueError(
            f"`curves` must hold LossCurves, at least one; `LossCurve.read` makes one of a file. "
            f"Received: curves={curves!r:.200}"
        )
    return found


def need_a_fall(curves: Sequence[LossCurve]) -> None:
    """Raise unless the learning rate falls in one of the curves, before its last point."""
    if not any(np.any(np.diff(curve.rates[: curve.step[-1] + 1]) < 0) for curve in curves):
        raise ValueError("The law needs a curve in which the learning rate falls. Received: rates that never fall")


def huber(residual: np.ndarray) -> tuple[float, np.ndarray]:
    """sum of Huber(residual) / DELTA^2, of order 1 where the search must not stop yet, and its derivative."""
    residual = residual / DELTA
    size = np.abs(residual)
    total = np.sum(np.where(size <= 1, 0.5 * size**2, size - 0.5))
    return total, np.clip(residual, -1, 1) / DELTA


def log_huber(predicted: np.ndarray, gradient: np.ndarray, measured: np.ndarray) -> tuple[float, np.ndarray]:
    """`huber` of log(predicted) - log(measured), and its gradient from that of the predictions (numbers, points)."""
    predicted = np.maximum(predicted, 1e-3 * measured)  # a start may predict less than nothing
    total, slope = huber(np.log(predicted) - np.log(measured))
    return total, gradient @ (slope / predicted)


def search(objective: Objective, start: Any, lowest: np.ndarray, highest: np.ndarray, steps: int = 1000) -> Any:
    """The minimum of an objective that comes with its gradient, by L-BFGS-B."""
    start = np.clip(start, lowest, highest)
    bounds = list(zip(lowest, highest, strict=True))
    return scipy.optimize.minimize(
        objective, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": steps, "ftol": 1e-12, "gtol": 1e-9}
    )


def best_weights(columns: list[np.ndarray], measured: np.ndarray) -> tuple[np.ndarray, float]:
    """Non-negative weights of the columns with the least squares of the relative errors, and their `huber`.

    A weight of 0 is raised to where its column makes up 1e-5 of the loss: a search in logarithms could not leave 0.
    """
    relative = np.stack(columns, axis=1) / measured[:, None]
    size = np.abs(relative).max(axis=0)
    size[size == 0] = 1.0
    weights = np.maximum(scipy.optimize.nnls(relative / size, np.ones(len(measured)))[0], 1e-5)
    return weights / size, huber(relative / size @ weights - 1)[0]


def reduced(measured: np.ndarray, spent: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """Logarithms of L0, A, alpha and B in L0 + A * spent^-alpha - B * drop: `best_weights` for the best of some alphas."""
    trials = []
    for alpha in ALPHAS:
        (level, factor, by_drop), total = best_weights([np.ones_like(spent), spent**-alpha, -drop], measured)
        trials.append((total, (level, factor, alpha, by_drop)))
    return np.log(min(trials)[1])

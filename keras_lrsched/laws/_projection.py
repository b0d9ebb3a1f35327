"""Fits of laws with one number that is not linear: for each value of it, least squares give the others, without a start."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy


class Projection(NamedTuple):
    """The best exponent, the weights of the columns at it, and the sum of the squared residuals."""

    exponent: float
    weights: np.ndarray
    squares: float


def fit_projected(
    columns: Callable[[float], list[np.ndarray]], measured: np.ndarray, exponents: np.ndarray, tolerance: float = 1e-10
) -> Projection:
    """The non-negative weights of columns and the exponent that they depend on with the least squares.

    Args:
        columns: From an exponent to the columns.
        measured: What the weighted columns should add up to.
        exponents: A grid, increasing; the best exponent is searched between the neighbors of the best of these. One alone is
            taken as it is.
        tolerance: Of the exponent. Defaults to `1e-10`.
    """

    def project(exponent: float) -> Projection:
        matrix = np.stack(columns(exponent), axis=1)
        size = np.abs(matrix).max(axis=0)
        weights, norm = scipy.optimize.nnls(matrix / size, measured)
        return Projection(exponent, weights / size, norm**2)

    if len(exponents) == 1:
        return project(exponents[0])
    best = int(np.argmin([project(exponent).squares for exponent in exponents]))
    bounds = exponents[max(best - 1, 0)], exponents[min(best + 1, len(exponents) - 1)]
    found = scipy.optimize.minimize_scalar(
        lambda exponent: project(exponent).squares, bounds=bounds, method="bounded", options={"xatol": tolerance}
    )
    return project(found.x)

"""AutoLRS: the forecast of a loss curve, and the choice of the next learning rate to try."""

import warnings
from typing import Any

import numpy as np
import scipy


def forecast(losses: Any, step: float, passes: int = 10) -> float:
    """The loss at `step`, from the losses at 0, 1, ..., n - 1: a exp(b step) + c.

    Outliers of the first half are dropped in `passes` passes, a spline is laid through the rest, and an exponential through
    the spline. With more than one pass, each considers the 3% of points farthest from a spline, else at the farthest one.

    Returns:
        A float; NaN if there is no fit.
    """
    losses = np.asarray(losses, "float64")
    if len(losses) < 4 or not np.isfinite(losses).all():
        return np.nan
    try:
        a, b, c = exponential(spline(losses, kept(losses, passes)))
    except (ValueError, np.linalg.LinAlgError):
        return np.nan
    return float(a * np.exp(b * step) + c)


def kept(losses: Any, passes: int) -> np.ndarray:
    """The positions that are no outliers."""
    positions = np.arange(len(losses))
    half = positions[int((len(losses) - 1) * 0.5)]
    for _ in range(passes):
        residuals = np.abs(losses[positions] - spline(losses, positions)[positions])
        count = round(0.03 * len(positions)) if passes > 1 else 1
        farthest = np.argsort(residuals)[len(residuals) - count :]
        positions = np.delete(positions, farthest[positions[farthest] < half])
    return positions


def spline(losses: Any, positions: np.ndarray) -> np.ndarray:
    """The smoothing spline of degree 2 through some of the losses, at all positions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the requested smoothing may be out of reach
        return scipy.interpolate.UnivariateSpline(positions, losses[positions], k=2)(np.arange(len(losses)))


def exponential(curve: np.ndarray) -> tuple[float, float, float]:
    """a, b < 0, c of the exponential nearest to a curve: b by a search, a and c by linear least squares within it."""
    x = np.arange(len(curve))

    def linear(u: float) -> tuple[float, float, float]:
        design = np.stack([np.exp(-np.exp(u) * x), np.ones(len(x))], axis=1)
        (a, c), *_ = np.linalg.lstsq(design, curve, rcond=None)
        return a, c, np.sum((design @ [a, c] - curve) ** 2)

    with np.errstate(over="ignore"):
        best = scipy.optimize.minimize(
            lambda u: linear(u[0])[2], [0.0], method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-5}
        )
    a, c, _ = linear(best.x[0])
    return a, -np.exp(best.x[0]), c


POINTS = 1001
"""The rates between which the optimization chooses, evenly spaced over the logarithm."""


def log_grid(low: float, high: float, candidates: int, tried: list[list[float]]) -> float:
    return float(np.geomspace(low, high, candidates)[len(tried)])


def lower_confidence_bound(low: float, high: float, tried: list[list[float]], kappa: float, seed: list[int]) -> float:
    """The rate at which a Gaussian process, fitted to `tried`, has the least mean - kappa deviations.

    The first rate is random.

    Args:
        low: The least rate.
        high: The largest.
        tried: A list of pairs of a rate and what it led to; less is better.
        kappa: A number; the larger, the more is explored.
        seed: A list of integers.
    """
    if not tried:
        return float(low * (high / low) ** np.random.default_rng(seed).uniform())
    gaussian_process, kernels = scikit_learn()
    kernel = kernels.ConstantKernel() * kernels.Matern(nu=2.5) + kernels.WhiteKernel()
    options = {"normalize_y": True, "n_restarts_optimizer": 2, "random_state": seed[0]}
    process = gaussian_process.GaussianProcessRegressor(kernel, **options)
    rates, losses = np.array(tried).T
    grid = np.linspace(0, 1, POINTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a scale at the edge of its range is fine
        process.fit(_place(rates, low, high)[:, None], losses)
        mean, deviation = process.predict(grid[:, None], return_std=True)
    return float(low * (high / low) ** grid[np.argmin(mean - kappa * deviation)])


def scikit_learn() -> tuple:
    try:
        from sklearn import gaussian_process
        from sklearn.gaussian_process import kernels
    except ImportError as error:
        raise ImportError(
            "AutoLRS needs scikit-learn, unless search='log_grid': pip install 'keras-lrsched[adaptive]'"
        ) from error
    return gaussian_process, kernels


def _place(rates: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.log(rates / low) / np.log(high / low)

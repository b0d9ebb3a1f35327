"""Which learning rate to try next, from those tried: a grid, or Bayesian optimization."""

import warnings

import numpy as np

POINTS = 1001
"""The rates between which the optimization chooses, evenly spaced over the logarithm."""


def log_grid(low, high, candidates, tried):
    return float(np.geomspace(low, high, candidates)[len(tried)])


def lower_confidence_bound(low, high, tried, kappa, seed):
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


def scikit_learn():
    try:
        from sklearn import gaussian_process
        from sklearn.gaussian_process import kernels
    except ImportError as error:
        raise ImportError(
            "AutoLRS needs scikit-learn, unless search='log_grid': pip install 'keras-lrsched[adaptive]'"
        ) from error
    return gaussian_process, kernels


def _place(rates, low, high):
    return np.log(rates / low) / np.log(high / low)

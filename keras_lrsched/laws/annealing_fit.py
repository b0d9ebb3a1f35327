"""How the numbers of the annealing law are found: least squares for a grid of alpha, then all four numbers."""

from typing import NamedTuple

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched.laws import regime
from keras_lrsched.laws.areas import WARMUPS, areas
from keras_lrsched.laws.fitting import log_huber, need_a_fall, reduced, search, usable

LOWEST, HIGHEST = np.log([1e-8, 1e-8, 1e-3, 1e-12]), np.log([1e3, 1e6, 3.0, 1e6])


class Points(NamedTuple):
    """All points of all curves."""

    loss: np.ndarray
    spent: np.ndarray
    fallen: np.ndarray


def fit(law, curves, decay, warmup, skip, points):
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
    fitted = law(*np.exp(found[best].x), decay=decays[best], warmup=warmup)._fitted_to(curves)
    regime.check(fitted, measured)
    return fitted


def _points(curves, decay, warmup):
    parts = []
    for curve in curves:
        spent, fallen = areas(curve.rates, decay, warmup)
        parts.append(Points(curve.loss, spent[curve.step], fallen[curve.step]))
    return Points(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _best(data):
    return search(_objective(data), reduced(data.loss, data.spent, data.fallen), LOWEST, HIGHEST)


def _objective(data):
    def objective(logs):
        level, factor, alpha, drop = np.exp(logs)
        power = factor * data.spent**-alpha
        gradient = np.stack(
            [np.full_like(power, level), power, -alpha * power * np.log(data.spent), -drop * data.fallen],
        )
        return log_huber(level + power - drop * data.fallen, gradient, data.loss)

    return objective

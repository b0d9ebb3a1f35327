"""How the numbers of the continual law are found: least squares for a grid of its powers, then all numbers."""

import itertools
from typing import NamedTuple

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched.laws import regime
from keras_lrsched.laws.areas import WARMUPS, areas
from keras_lrsched.laws.fitting import best_weights, log_huber, need_a_fall, search, usable
from keras_lrsched.laws.law import rates
from keras_lrsched.laws.loss_curve import LossCurve

ALPHAS = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3)
SCALES = np.geomspace(0.1, 1e5, 9)  # E times the largest S1
BETAS = (0.05, 0.1, 0.2, 0.4, 0.8)
LOWEST = np.log([1e-3, 1e-5, 1e-2, 1e-8, 1e-8, 1e-8, 1e-8, 1e-8])
HIGHEST = np.log([3.0, 1e8, 5.0, 1e3, 1e6, 1e6, 1e4, 1e6])


class Points(NamedTuple):
    """All points of all curves; those of pre-training have no areas of the continual phase."""

    loss: np.ndarray
    spent_before: np.ndarray
    fallen_before: np.ndarray
    spent: np.ndarray
    fallen: np.ndarray


def fit(law, curves, pretraining, decay, warmup, points):
    """`ContinualLaw.fit`."""
    validation.one_of("warmup", warmup, WARMUPS)
    decay = validation.inner_fraction("decay", decay)
    curves = usable(curves)
    need_a_fall(curves)
    measured = [curve.subsample(points) for curve in curves]
    before = areas(pretraining.rates if isinstance(pretraining, LossCurve) else rates(pretraining), decay, warmup)
    parts = [_continual(curve, before, decay, warmup) for curve in measured]
    if isinstance(pretraining, LossCurve):
        parts += [_pretraining(curve.subsample(points), before) for curve in usable(pretraining)]
    data = Points(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    alpha, scale, beta, sign, weights = _best(data)
    level, factor, by_fall, by_shift, *by_fall_before = weights
    numbers = (level, factor, alpha, *(by_fall_before or [0.0]), by_fall, sign * by_shift, scale, beta)
    fitted = law(*numbers, before.spent[-1], before.fallen[-1], decay=decay, warmup=warmup)._fitted_to(curves)
    regime.check_misfit(fitted, measured)
    return fitted


def _continual(curve, before, decay, warmup):
    spent, fallen = (area[curve.step] for area in areas(curve.rates, decay, warmup))
    return Points(curve.loss, np.full_like(spent, before.spent[-1]), np.full_like(spent, before.fallen[-1]), spent, fallen)


def _pretraining(curve, before):
    nothing = np.zeros(len(curve.loss))
    return Points(curve.loss, before.spent[curve.step], before.fallen[curve.step], nothing, nothing)


def _best(data):
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


def _columns(data, alpha, scale, beta, sign):
    """What L0, A, C2, B and C1 are multiplied by; the last only if pre-training shows it."""
    power = (data.spent_before + data.spent) ** -alpha
    shift = sign * (1 - (1 + scale * data.spent) ** -beta)
    columns = [np.ones_like(power), power, -data.fallen, shift]
    return [*columns, -data.fallen_before] if np.ptp(data.fallen_before) else columns


def _objective(data, sign):
    def objective(logs):
        alpha, scale, beta, *weights = np.exp(logs)
        terms = np.array(weights)[:, None] * np.stack(_columns(data, alpha, scale, beta, sign))
        base = 1 + scale * data.spent
        left = sign * weights[3] * base**-beta
        by_alpha = -alpha * terms[1] * np.log(data.spent_before + data.spent)
        by_scale = left * beta * scale * data.spent / base
        by_beta = left * beta * np.log(base)
        return log_huber(terms.sum(axis=0), np.stack([by_alpha, by_scale, by_beta, *terms]), data.loss)

    return objective

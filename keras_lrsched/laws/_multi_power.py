"""The machinery of the multi-power law: the fit, and the final loss with its derivative."""

from functools import partial
from typing import NamedTuple

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched.laws import diagnostics
from keras_lrsched.laws._fitting import log_huber, need_a_fall, reduced, search, usable
from keras_lrsched.laws._lr_decrements import counted, lr_decrements

# The fit: the numbers of a reduced law, then all seven

LOWEST, HIGHEST = np.log([1e-8, 1e-8, 1e-3, 1e-8, 1e-4, 1e-3, 1e-3]), np.log([1e3, 1e6, 3.0, 1e8, 1e6, 10.0, 0.99])

TYPICAL = np.log([2.07, 0.592, 0.644])
"""C, beta and gamma of the published laws, which hardly differ from one another: their means."""
TRUST = 0.01
"""Penalty of a point for the squared differences from TYPICAL (of logarithms), in units of (0.1 % of the loss)^2."""


class Points(NamedTuple):
    """All points of all curves, and all falls before each of them, one after another."""

    loss: np.ndarray
    spent: np.ndarray
    below_peak: np.ndarray
    row: np.ndarray
    """The point that a fall belongs to."""
    fall: np.ndarray
    log_rate: np.ndarray
    since: np.ndarray


def fit(law, curves, warmup, skip, points):
    """`MultiPowerLaw.fit`."""
    validation.one_of("warmup", warmup, ("full", "sum"))
    curves = usable(curves, skip)
    need_a_fall(curves)
    measured = [curve.subsample(points) for curve in curves]
    data = _points(measured, warmup)
    start = reduced(data.loss, data.spent, data.below_peak)
    found = search(_full(data), [*start, *TYPICAL], LOWEST, HIGHEST)
    fitted = law(*np.exp(found.x), warmup=warmup)._fitted_to(
        curves, partial(law.fit, warmup=warmup, skip=skip, points=points)
    )
    diagnostics.check_decays(curves, "C, beta and gamma (they stay near the published ones)", "take a smaller law")
    diagnostics.check(fitted, measured)
    return fitted


def _points(curves, warmup):
    parts, first = [], 0
    for curve in curves:
        past = lr_decrements(counted(curve.rates, warmup), curve.step)
        row, column = np.nonzero((past.fall != 0) & (past.since > 0))
        parts.append(
            Points(
                curve.loss,
                np.cumsum(curve.rates)[curve.step],
                curve.rates.max() - curve.learning_rate,
                row + first,
                past.fall[row, column],
                np.log(np.maximum(past.rate[row, column], 1e-300)),
                past.since[row, column],
            )
        )
        first += len(curve.loss)
    return Points(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _full(data):
    """The objective of the whole law in the logarithms of its numbers."""

    def objective(logs):
        L0, A, alpha, B, C, beta, gamma = np.exp(logs)
        power = A * data.spent**-alpha
        reach = C * np.exp(-gamma * data.log_rate) * data.since
        log_base = np.log1p(reach)
        left = np.exp(-beta * log_base)
        slope = data.fall * beta * left * reach / (1 + reach)
        drop, by_c, by_beta, by_gamma = (
            np.bincount(data.row, values, len(data.loss))
            for values in (
                data.fall * (1 - left),
                slope,
                data.fall * left * log_base * beta,
                -slope * data.log_rate * gamma,
            )
        )
        by_alpha = -alpha * power * np.log(data.spent)
        gradient = np.stack([np.full_like(power, L0), power, by_alpha, -B * drop, -B * by_c, -B * by_beta, -B * by_gamma])
        total, by_number = log_huber(L0 + power - B * drop, gradient, data.loss)
        unusual, trust = logs[4:] - TYPICAL, TRUST * len(data.loss)
        return total + trust * unusual @ unusual, by_number + 2 * trust * np.concatenate([np.zeros(4), unusual])

    return objective


# The optimum


def final_loss(law, rates, warmup):
    """The loss after the last update, warmup's rise not counted, and its derivative by each rate after warmup."""
    spent = warmup.sum() + rates.sum()
    ahead = np.cumsum(rates[::-1])[::-1]  # lr_k + ... + lr_T
    falls = -np.diff(rates, prepend=rates[0])
    power = rates**-law.gamma
    base = law.C * power * ahead + 1
    gain = 1 - base**-law.beta
    slope = falls * law.beta * base ** (-law.beta - 1) * law.C * power
    by_rate = np.append(gain[1:], 0.0) - gain + np.cumsum(slope) - law.gamma * slope * ahead / rates
    by_rate[0] += gain[0]  # the first fall is 0 whatever the first rate
    loss = law.L0 + law.A * spent**-law.alpha - law.B * np.sum(falls * gain)
    return loss, -law.alpha * law.A * spent ** (-law.alpha - 1) - law.B * by_rate

"""The machinery of the multi-power law: the fit, and the schedule with the lowest predicted loss."""

from typing import NamedTuple

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched.laws import diagnostics
from keras_lrsched.laws._fitting import log_huber, need_a_fall, reduced, search, usable
from keras_lrsched.laws._lr_decrements import counted, lr_decrements
from keras_lrsched.schedules import Tabulated

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
    fitted = law(*np.exp(found.x), warmup=warmup)._fitted_to(curves)
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

FLAT = (0.6, 0.8, 0.9)
"""The search starts from schedules that are flat for this part of the run."""


def optimize(law, total_steps, peak_learning_rate, warmup_steps, floor, knots):
    """`MultiPowerLaw.optimize`.

    The learning rate is peak * exp(-(x_1 + ... + x_j)) at knot j, x >= 0, and a straight line between knots: it never
    rises, stays above 0, and a flat stretch is x = 0, a bound that L-BFGS-B meets exactly.
    """
    validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
    steps, warmup_steps = int(total_steps), int(warmup_steps)
    peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
    floor = validation.positive_float("floor", floor)
    validation.below("floor", floor, "peak_learning_rate", peak)
    warmup = peak * np.arange(warmup_steps) / max(warmup_steps, 1)
    frame = PiecewiseLinear(steps - warmup_steps, validation.positive_int("knots", knots))

    def heights(falls):
        return np.maximum(peak * np.exp(-np.cumsum(falls)), floor)

    def objective(falls):
        height = heights(falls)
        loss, by_rate = _final_loss(law, frame.rates(height), warmup.sum())
        by_log = frame.by_height(by_rate) * height * (height > floor)
        return loss, -np.cumsum(by_log[::-1])[::-1]

    found = [_search_from(objective, frame.place / max(frame.place[-1], 1), flat) for flat in FLAT]
    best = min(found, key=lambda result: result.fun)
    law._warn_of_extrapolation(np.full(steps, peak))
    return Tabulated(np.concatenate([warmup, frame.rates(heights(best.x))]))


def _search_from(objective, place, flat):
    tail = np.maximum((1 - place) / (1 - flat), 1e-4).clip(max=1.0) ** 1.5
    falls = -np.diff(np.log(tail), prepend=0.0)
    return scipy.optimize.minimize(
        objective,
        falls,
        jac=True,
        bounds=[(0.0, None)] * len(falls),
        method="L-BFGS-B",
        options={"maxiter": 1000, "maxfun": 2000, "ftol": 1e-13, "gtol": 1e-10},
    )


def _final_loss(law, rates, spent_before):
    """The loss after the last update, warmup's rise not counted, and its derivative by each rate."""
    spent = spent_before + rates.sum()
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


class PiecewiseLinear:
    """A schedule of many updates as straight lines between few knots.

    Half of the knots lie evenly, half ever denser towards the end, where the learning rate falls most.

    Attributes:
        place: The updates that are knots.
    """

    def __init__(self, steps, knots):
        even = np.linspace(0, steps - 1, knots // 2 + 2)
        dense = steps - np.geomspace(1, steps, knots // 2 + 2)
        self.place = np.unique(np.concatenate([even, dense]).round().astype(int))
        at = np.arange(steps)
        self._left = np.clip(np.searchsorted(self.place, at, side="right") - 1, 0, max(len(self.place) - 2, 0))
        self._right = np.minimum(self._left + 1, len(self.place) - 1)
        gap = np.maximum(self.place[self._right] - self.place[self._left], 1)
        self._share = (at - self.place[self._left]) / gap

    def rates(self, heights):
        """The rate of each update, from those at the knots."""
        return heights[self._left] * (1 - self._share) + heights[self._right] * self._share

    def by_height(self, by_rate):
        """The derivative by each height, from that by each rate."""
        count = len(self.place)
        return np.bincount(self._left, by_rate * (1 - self._share), count) + np.bincount(
            self._right, by_rate * self._share, count
        )

"""The schedule that the multi-power law likes best, among those that never rise after warmup."""

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched.laws.knots import Knots
from keras_lrsched.schedules import Tabulated

FLAT = (0.6, 0.8, 0.9)
"""The search starts from schedules that are flat for this part of the run."""


def optimize(law, steps, peak, warmup_steps, floor, knots):
    """`MultiPowerLaw.optimize`.

    The rate is peak * exp(-(x_1 + ... + x_j)) at knot j, x >= 0, and a straight line between knots: it never rises, stays
    above 0, and a flat stretch is x = 0, a bound that L-BFGS-B meets exactly.
    """
    validation.shorter("warmup_steps", warmup_steps, "steps", steps)
    steps, warmup_steps = int(steps), int(warmup_steps)
    peak, floor = validation.positive_float("peak", peak), validation.positive_float("floor", floor)
    validation.below("floor", floor, "peak", peak)
    warmup = peak * np.arange(warmup_steps) / max(warmup_steps, 1)
    frame = Knots(steps - warmup_steps, validation.positive_int("knots", knots))

    def heights(falls):
        return np.maximum(peak * np.exp(-np.cumsum(falls)), floor)

    def objective(falls):
        height = heights(falls)
        loss, by_rate = _final_loss(law, frame.rates(height), warmup.sum())
        by_log = frame.by_height(by_rate) * height * (height > floor)
        return loss, -np.cumsum(by_log[::-1])[::-1]

    found = [_search(objective, frame.place / max(frame.place[-1], 1), flat) for flat in FLAT]
    best = min(found, key=lambda result: result.fun)
    law._warn_of_extrapolation(np.full(steps, peak))
    return Tabulated(np.concatenate([warmup, frame.rates(heights(best.x))]))


def _search(objective, place, flat):
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

"""The machinery of the functional law: intrinsic times, the fit, and the final loss with its derivative."""

import itertools
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched.laws import diagnostics
from keras_lrsched.laws._fitting import Curves, Objective, best_weights, log_huber, need_a_fall, search, usable
from keras_lrsched.laws._lr_decrements import counted, lr_decrements

WARMUPS = ("peak", "sum")


class LRHistory(NamedTuple):
    """The intrinsic times of some points, and all falls of the learning rate before each of them, one after another."""

    now: np.ndarray
    """T at each point."""
    row: np.ndarray
    """The point that a fall belongs to."""
    fall: np.ndarray
    time: np.ndarray
    """T at the fall."""
    since: np.ndarray
    """T at the point less T at the fall."""


def lr_history(learning_rate: np.ndarray, at: np.ndarray, warmup: str) -> LRHistory:
    flat = counted(learning_rate, warmup)
    now = np.cumsum(flat if warmup == "peak" else learning_rate)[at]
    past = lr_decrements(flat, at)
    since = (past.since - past.rate).clip(min=0)  # the law counts from after the update that fell
    row, column = np.nonzero((past.fall != 0) & (since > 0))  # what fell just now has no effect yet
    since = since[row, column]
    return LRHistory(now, row, past.fall[row, column], np.maximum(now[row] - since, 1e-300), since)


# The fit

TIMES = (0.2, 0.4, 0.6, 0.9, 1.3)  # s
REACHES = (3.0, 10.0, 30.0, 100.0, 300.0)  # c4 times the largest T
GAMMAS = (0.3, 0.6, 1.0)
LOWEST, HIGHEST = np.log([1e-8, 1e-8, 1e-3, 1e-12, 1e-8, 1e-8, 0.1]), np.log([1e3, 1e6, 3.0, 1e8, 1e8, 1e8, 2.0])


class Points(NamedTuple):
    """The losses and histories of all points of all curves."""

    loss: np.ndarray
    past: LRHistory


def fit(law: Any, curves: Curves, gamma: float | None, warmup: str, skip: float, points: int) -> Any:
    """`FunctionalLaw.fit`."""
    validation.one_of("warmup", warmup, WARMUPS)
    gammas = GAMMAS if gamma is None else (validation.positive_float("gamma", gamma),)
    curves = usable(curves, skip)
    need_a_fall(curves)
    measured = [curve.subsample(points) for curve in curves]
    data = _points(measured, warmup)
    lowest, highest = LOWEST.copy(), HIGHEST.copy()
    if gamma is not None:
        lowest[-1] = highest[-1] = np.log(gammas[0])
    found = search(_objective(data), _start(data, gammas), lowest, highest)
    fitted = law(*np.exp(found.x), warmup=warmup)._fitted_to(
        curves, partial(law.fit, gamma=gamma, warmup=warmup, skip=skip, points=points)
    )
    if gamma is None:
        diagnostics.check_decays(curves, "c3, c4 and gamma", "give `gamma`")
    diagnostics.check(fitted, measured)
    return fitted


def _points(curves: list, warmup: str) -> Points:
    losses, histories, first = [], [], 0
    for curve in curves:
        past = lr_history(curve.rates, curve.step, warmup)
        histories.append(past._replace(row=past.row + first))
        losses.append(curve.loss)
        first += len(curve.loss)
    return Points(np.concatenate(losses), LRHistory(*map(np.concatenate, zip(*histories, strict=True))))


def _start(data: Points, gammas: tuple[float, ...]) -> np.ndarray:
    """Logarithms of the law's numbers: for each s, c4 and gamma the law is linear in L0, c1, c2 * c3 and c2."""
    past, count, trials = data.past, len(data.loss), []
    for reach, gamma in itertools.product(REACHES, gammas):
        c4 = reach / past.now.max()
        gained = past.fall * (1 - (1 + c4 * past.since) ** -gamma)
        always = np.bincount(past.row, gained, count)
        for s in TIMES:
            early = np.bincount(past.row, gained * past.time**-s, count)
            columns = [np.ones(count), past.now**-s, -always, -early]
            (L0, c1, by_always, c2), total = best_weights(columns, data.loss)
            trials.append((total, (L0, c1, s, c2, by_always / c2, c4, gamma)))
    return np.log(min(trials)[1])


def _objective(data: Points) -> Objective:
    """The objective in the logarithms of the law's numbers."""
    past, count = data.past, len(data.loss)
    log_now, log_time = np.log(past.now), np.log(past.time)

    def objective(logs: np.ndarray) -> tuple[float, np.ndarray]:
        L0, c1, s, c2, c3, c4, gamma = np.exp(logs)
        power, early = c1 * np.exp(-s * log_now), np.exp(-s * log_time)
        reach = c4 * past.since
        log_base = np.log1p(reach)
        left = np.exp(-gamma * log_base)
        gain, weight = past.fall * (1 - left), c3 + early
        drop, by_s, by_c3, by_c4, by_gamma = (
            c2 * np.bincount(past.row, values, count)
            for values in (
                gain * weight,
                -s * gain * early * log_time,
                gain * c3,
                past.fall * weight * gamma * left * reach / (1 + reach),
                past.fall * weight * gamma * left * log_base,
            )
        )
        gradient = [np.full(count, L0), power, -s * power * log_now - by_s, -drop, -by_c3, -by_c4, -by_gamma]
        return log_huber(L0 + power - drop, np.stack(gradient), data.loss)

    return objective


# The optimum


def final_loss(law: Any, rates: np.ndarray, warmup: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss after the last update, warmup's rise not counted, and its derivative by each rate after warmup."""
    before = len(warmup) * rates[0] if law.warmup == "peak" else warmup.sum()
    time = before + np.cumsum(rates)
    since, falls = time[-1] - time, -np.diff(rates, prepend=rates[0])
    early, base = time**-law.s, 1 + law.c4 * since
    weight, gain = law.c3 + early, 1 - base**-law.gamma
    # A rate acts through the falls before and after it, through the times of all falls from it on, and through what has
    # passed since all falls before it.
    through_falls = np.append((weight * gain)[1:], 0.0) - weight * gain
    through_falls[0] += weight[0] * gain[0]  # the first fall is 0 whatever the first rate
    by_time = -law.s * falls * gain * early / time
    by_since = falls * weight * law.gamma * law.c4 * base ** (-law.gamma - 1)
    by_rate = through_falls + np.cumsum(by_time[::-1])[::-1] + np.cumsum(by_since) - by_since
    if law.warmup == "peak":  # all of warmup counts with the first rate
        by_rate[0] += len(warmup) * by_time.sum()
    level = law.c1 * time[-1] ** -law.s
    by_level = np.full_like(rates, -law.s * level / time[-1])
    if law.warmup == "peak":
        by_level[0] *= 1 + len(warmup)
    loss = law.L0 + level - law.c2 * np.sum(falls * weight * gain)
    return loss, by_level - law.c2 * by_rate

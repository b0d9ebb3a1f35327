"""The final loss of a run that is under way, from its own curve and, if given, a law."""

import warnings
from typing import Any

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched.laws._uncertainty import LAST, Interval
from keras_lrsched.laws.law import Law, RunRates, rates
from keras_lrsched.laws.loss_curve import LossCurve
from keras_lrsched.laws.power_law import two_forms

SKIP = 0.1
"""The part of what was seen after warmup that is left out: the first updates fall in another way."""
LEAST_POINTS = 20
POINTS = 60
"""Means of so many pieces are fitted: relative errors of single noisy losses would take the curve too low."""
BLOCKS = 8
"""Parts of the curve that are left out in turn, for the error of chance: neighbors in a curve are not independent."""
LEAST = 0.1
"""A straight line ends at this part of the lowest loss at least."""
ERROR_OF_DOUBLING = 0.01
"""The standard deviation of the error of the forms for each doubling of the updates ahead, as a part of the loss."""
ERROR_OF_FALL = 0.02
"""That of a fall of the learning rate from the peak to 0 that the forms know nothing of."""

ERROR_OF_LAW = 0.0075
"""That of a law at least: it may be used for a schedule that is unlike all that it was fitted to."""


def forecast(
    curve: LossCurve,
    schedule: RunRates | None = None,
    total_steps: int | None = None,
    law: Law | None = None,
    level: float = 0.9,
) -> Interval:
    """The loss at the end of a run, from its curve so far.

    Without a law, the two forms of `extrapolate` are fitted to the curve, over the updates t after warmup, and their mean is
    taken. At a constant learning rate the first tends to err high and the second low:

        E + A * t^-b
        c - d * ln(t)    (over the later half)

    Neither knows the learning rate, so what a later fall of it will gain is only in the width of the interval. With a law,
    the prediction is that of the law, times the mean of measured over predicted loss in the later half of the curve.

    The width has the difference of the two forms, or the drift of the curve from the law; what leaving out blocks of the
    curve changes; the noise of the last 2 % of the run; and the error of the form. Without a law that is 1 % of the loss for
    each doubling of the updates, and 2 % for a fall of the learning rate to 0; with one, its errors on left-out runs, where
    it has been fitted, and 0.75 % at least. These percentages were chosen on the published curves of arXiv:2503.12811:
    for losses that fall fast, such as those near 0, they are too small.

    Args:
        curve: The curve of the run until now.
        schedule: The learning rate of the whole run: a schedule, a number, or the rates of all updates. Defaults to `None`:
            those of the curve, which then has them to the end of the run.
        total_steps: Updates of the run. Defaults to `None`: as many as there are rates.
        law: A `Law` of runs of this model. Defaults to `None`.
        level: The probability with which the loss lies in the interval. Defaults to `0.9`.

    Returns:
        An `Interval(low, predicted, high)` of the mean loss over the last 2 % of the run.

    Raises:
        ValueError: If there are fewer than 20 points after warmup and the first tenth of the rest, the run is not longer
            than the curve, or an argument is out of its range.

    Example:

    >>> step = np.arange(1, 1000)
    >>> curve = LossCurve(2.0 + step**-0.5, np.full(4000, 0.01), step)
    >>> low, predicted, high = forecast(curve)
    >>> low < 2 + 4000**-0.5 < high
    True
    """
    level = validation.inner_fraction("level", level)
    learning_rate = curve.rates if schedule is None else rates(schedule, total_steps)
    last = int(curve.step[-1])
    if len(learning_rate) <= last + 1:
        raise ValueError(
            f"`total_steps` must be more than the curve has, {last + 1}. Received: total_steps={len(learning_rate)}"
        )
    start = min(curve.peak_step, last)
    seen = used_part(curve)
    if len(seen.loss) < LEAST_POINTS:
        raise ValueError(
            f"A forecast needs {LEAST_POINTS} points or more after warmup. Received: a curve with {len(seen.loss)} there"
        )
    at = np.arange(int((1 - LAST) * len(learning_rate)), len(learning_rate))
    predicted, deviation = (
        _by_forms(seen.subsample(POINTS), start, learning_rate, at)
        if law is None
        else _by_law(law, seen.subsample(POINTS), start, learning_rate, at, level)
    )
    noise = _noise(seen) * np.sqrt(len(curve.rates[: last + 1]) / len(curve.step) / len(at))
    reach = scipy.stats.norm.ppf((1 + level) / 2) * np.hypot(deviation, noise)
    return Interval(float(predicted * np.exp(-reach)), float(predicted), float(predicted * np.exp(reach)))


def used_part(curve: LossCurve) -> LossCurve:
    """The part of a curve that a forecast is fitted to: that after warmup and the first tenth of the rest."""
    last = int(curve.step[-1])
    start = min(curve.peak_step, last)
    return curve.between(start + int(SKIP * (last - start)))


def _by_forms(curve: LossCurve, start: int, learning_rate: np.ndarray, at: np.ndarray) -> tuple[float, float]:
    """The mean of the two forms, and the standard deviation of its error, as a part of it."""
    time, end = curve.step - start + 1.0, at.mean() - start + 1.0

    def forms(used: Any) -> np.ndarray:
        bracket = two_forms(time[used], curve.loss[used], end)
        return np.maximum([bracket.low, bracket.high], LEAST * curve.loss.min())

    low, high = forms(slice(None))
    center = (low + high) / 2
    by_chance = _jackknife(lambda used: np.log(forms(used).mean()), len(time))
    doublings = np.log2(end / time[-1])
    ahead = learning_rate[curve.step[-1] :]
    fall = (ahead[0] - ahead.min()) / learning_rate.max()
    terms = [np.log(high / low) / 2, by_chance, ERROR_OF_DOUBLING * doublings, ERROR_OF_FALL * fall]
    return center, float(np.linalg.norm(terms))


def _by_law(
    law: Law, curve: LossCurve, start: int, learning_rate: np.ndarray, at: np.ndarray, level: float
) -> tuple[float, float]:
    """The law's prediction at the level of the run, and the standard deviation of its error, as a part of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        of_run = law._for(curve)
        fitted = np.log(curve.loss) - np.log(of_run.predict(learning_rate, at=curve.step))
        end = of_run.predict(learning_rate, at=at).mean()
    later = fitted[len(fitted) // 2 :]
    doublings = np.log2((at.mean() - start + 1) / (curve.step[-1] - start + 1.0))
    drift = (later[len(later) // 2 :].mean() - later[: len(later) // 2].mean()) * doublings
    by_chance = _jackknife(lambda used: later[used].mean(), len(later))
    terms = [drift, by_chance, _error_of(law, level)]
    return float(end * np.exp(later.mean())), float(np.linalg.norm(terms))


def _error_of(law: Law, level: float) -> float:
    """The standard deviation of the errors of left-out runs, raised by what Student's t is wider than the normal."""
    try:
        errors = np.log1p(law.leave_one_out().errors)
    except ValueError:  # made from numbers, loaded, or fitted to too few curves
        return ERROR_OF_LAW
    place = (1 + level) / 2
    error = np.sqrt(np.mean(errors**2)) * scipy.stats.t.ppf(place, len(errors)) / scipy.stats.norm.ppf(place)
    return max(float(error), ERROR_OF_LAW)


def _jackknife(statistic: Any, count: int) -> float:
    """The standard error of a statistic of points, of which blocks are left out in turn."""
    block = np.arange(count) * BLOCKS // count
    values = np.array([statistic(block != left_out) for left_out in range(BLOCKS)])
    return float(np.sqrt((BLOCKS - 1) * np.var(values)))


def _noise(curve: LossCurve) -> float:
    """The standard deviation of a point, as a part of the loss, from the differences of neighbors."""
    return float(np.std(np.diff(np.log(curve.loss))) / np.sqrt(2))

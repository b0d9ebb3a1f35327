"""Statistics of a study: differences paired by seed, verdicts, groups of equals, sensitivity, profiles and scores.

Interval of a mean difference. The percentile bootstrap of n numbers stays within their range, which holds the mean of a
symmetric distribution with a probability of 1 - 2^(1 - n) only: 75 % for three seeds, 94 % for five. For normal differences
its nominal 95 % are 75 % at three seeds, 84 % at five and 90 % at ten (simulated). So fewer than `FEW` differences have the
interval of Student's t: it covers exactly if they are normal, a little more if they have longer tails (96 to 97 %), a little
less if they have short ones (92 % for three uniform numbers). Differences of two runs with one seed are about symmetric
where both scatter alike, whatever the distribution of one run. From `FEW` on, each end is the outer one of Student's t and
of the studentized bootstrap, which covers skewed differences (94 % against 90 % for ten exponential numbers) but not long
tails. A verdict follows from the same interval: "not distinguishable" where it holds 0.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from keras_lrsched._core import validation

Mode = Literal["min", "max"]
Pair = tuple[str, str]
"""The labels of an optimizer and a schedule."""
Unit = Literal["steps", "seconds"]
Verdict = Literal["better", "worse", "not distinguishable"]
Interval = tuple[float, float]

FEW = 10
"""The number of differences from which on an interval is that of the bootstrap, too."""

_EVERYTHING = (-math.inf, math.inf)


def paired_differences(values: Any, reference: Any) -> np.ndarray:
    """Return the differences of two sets of runs, seed by seed.

    Args:
        values: Final values of a setting: a list in the order of the seeds, or a dict from a seed to its value. A run that
            did not finish has an infinite value.
        reference: Those of the setting to compare with.

    Returns:
        `values - reference` of each seed, in a dict of each seed that both have. NaN where both runs did not finish.

    Raises:
        ValueError: If lists differ in length, or no seed is common to both dicts.

    Example:

    >>> paired_differences({0: 0.5, 1: 0.75, 2: 0.5}, {1: 0.5, 0: 0.25})
    array([0.25, 0.25])
    """
    if isinstance(values, Mapping) and isinstance(reference, Mapping):
        seeds = sorted(set(values) & set(reference))
        if not seeds:
            raise ValueError(f"No seed is common to both. Received: seeds={sorted(values)}, reference={sorted(reference)}")
        values, reference = [values[seed] for seed in seeds], [reference[seed] for seed in seeds]
    first, second = np.asarray(values, float), np.asarray(reference, float)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(
            f"`values` and `reference` must hold one number for each seed. Received: shapes {first.shape} and {second.shape}"
        )
    with np.errstate(invalid="ignore"):
        return first - second


def t_interval(differences: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Return the interval of Student's t for the mean difference.

    An infinite difference means a run that did not finish: its mean is infinite, and so are both ends. Where both runs of a
    seed did not finish, or each of two settings has runs that did not, nothing is known.

    Args:
        differences: Numbers, one for each seed.
        level: The probability with which the interval holds the mean. Defaults to `0.95`.

    Returns:
        The lower and the upper end; infinite ones for a single difference.

    Raises:
        ValueError: If there is no difference, or `level` is not between 0 and 1.

    Example:

    >>> low, high = t_interval([0.1, 0.2, 0.3])
    >>> round(low, 4), round(high, 4)
    (-0.0484, 0.4484)
    """
    values, level = _numbers("differences", differences), validation.inner_fraction("level", level)
    if not np.all(np.isfinite(values)):
        return _infinite_interval(values)
    if values.size == 1:
        return _EVERYTHING
    mean, error = _mean_and_error(values)
    reach = float(stats.t.ppf((1 + level) / 2, values.size - 1)) * error
    return mean - reach, mean + reach


def bootstrap_interval(differences: npt.ArrayLike, level: float = 0.95, samples: int = 10_000, seed: int = 0) -> Interval:
    """Return an interval for the mean difference: from ten differences on, one that also covers skewed ones.

        [m - q(1 - a/2) s / sqrt(n), m - q(a/2) s / sqrt(n)],   a = 1 - level

    with the quantiles q of (m* - m) / (s* / sqrt(n)) over resampled differences, or each end of `t_interval` where that is
    further out. It is `t_interval` for fewer than ten differences, for which resampling covers too little.

    Args:
        differences: Numbers, one for each seed.
        level: The probability with which the interval holds the mean. Defaults to `0.95`.
        samples: The least number of resampled sets; a `level` close to 1 takes more. Defaults to `10_000`.
        seed: Of the resampling. Defaults to `0`.

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: If there is no difference, or an argument is out of its range.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 12.

    Example:

    >>> low, high = bootstrap_interval(np.linspace(0.1, 0.4, 12))
    >>> 0.18 < low < 0.2, 0.3 < high < 0.32
    (True, True)
    """
    values, level = _numbers("differences", differences), validation.inner_fraction("level", level)
    samples, seed = validation.positive_int("samples", samples), validation.non_negative_int("seed", seed)
    if values.size < FEW or not np.all(np.isfinite(values)) or np.ptp(values) == 0:
        return t_interval(values, level)
    mean, error = _mean_and_error(values)
    tail = (1 - level) / 2
    resampled = _studentized(values, max(samples, math.ceil(20 / tail)), np.random.default_rng(seed))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    inner = t_interval(values, level)
    return min(inner[0], mean - float(high) * error), max(inner[1], mean - float(low) * error)


def verdict(
    differences: npt.ArrayLike,
    mode: Mode = "min",
    level: float = 0.95,
    comparisons: int = 1,
    samples: int = 10_000,
    seed: int = 0,
) -> Verdict:
    """Return whether a setting is better or worse than its reference, from their differences paired by seed.

    The interval of `bootstrap_interval` decides, at a level of 1 - (1 - `level`) / `comparisons` (Bonferroni): with a
    probability of `level`, none of the verdicts is wrong.

    Args:
        differences: The setting's values minus the reference's, one for each seed.
        mode: `"min"` if lower values are better, `"max"` if higher ones are. Defaults to `"min"`.
        level: The probability with which all verdicts are right. Defaults to `0.95`.
        comparisons: The number of comparisons that are made. Defaults to `1`.
        samples: See `bootstrap_interval`. Defaults to `10_000`.
        seed: See `bootstrap_interval`. Defaults to `0`.

    Returns:
        `"better"`, `"worse"` or `"not distinguishable"`.

    Raises:
        ValueError: If there is no difference, or an argument is out of its range.

    Example:

    >>> verdict([-0.11, -0.09, -0.1]), verdict([-0.11, 0.09, -0.1])
    ('better', 'not distinguishable')
    """
    sign = _sign(mode)
    low, high = bootstrap_interval(sign * _numbers("differences", differences), adjusted(level, comparisons), samples, seed)
    if low > 0:
        return "worse"
    return "better" if high < 0 else "not distinguishable"


def adjusted(level: float, comparisons: int) -> float:
    """Return the level of each of several intervals that together have a probability of `level` (Bonferroni)."""
    level = validation.inner_fraction("level", level)
    return 1 - (1 - level) / validation.positive_int("comparisons", comparisons)


def seeds_needed(
    differences: npt.ArrayLike, level: float = 0.95, power: float = 0.8, comparisons: int = 1, limit: int = 10_000
) -> float:
    """Return the number of seeds with which a difference of this size would be distinguishable.

    It is the least n at which the paired t test, two-sided at `level`, has the given `power`, if mean and standard deviation
    of the differences are those given. Both are estimates: with few seeds, take the number for an order of magnitude.

    Args:
        differences: Numbers, one for each seed.
        level: As for `verdict`. Defaults to `0.95`.
        power: The probability with which a difference is found. Defaults to `0.8`.
        comparisons: As for `verdict`. Defaults to `1`.
        limit: The largest number that is looked at. Defaults to `10_000`.

    Returns:
        The number of seeds; infinite if it is above `limit`, or unknown as for a single difference.

    Raises:
        ValueError: If there is no difference, or an argument is out of its range.

    Example:

    >>> seeds_needed([0.0, 0.1, 0.2])  # a mean of one standard deviation
    10.0
    """
    values, level = _numbers("differences", differences), adjusted(level, comparisons)
    power, limit = validation.inner_fraction("power", power), validation.positive_int("limit", limit)
    if not np.all(np.isfinite(values)):
        return math.inf if _infinite_interval(values) == _EVERYTHING else float(values.size)
    if values.size == 1:
        return math.inf
    mean, deviation = abs(float(np.mean(values))), float(np.std(values, ddof=1))
    if mean == 0 or deviation == 0:
        return math.inf if mean == 0 else 2.0
    return _first(lambda count: _power(mean / deviation, count, level) >= power, 2, limit)


def groups_of_equals(
    values: Mapping[Any, Any], mode: Mode = "min", level: float = 0.95, samples: int = 10_000, seed: int = 0
) -> list[list[Any]]:
    """Return settings in groups, best first, of which a group holds what its best one is not distinguishable from.

    The first group holds the setting with the best mean, and each other that is not worse by `verdict`, at as many
    comparisons as there are other settings; the next group is formed in the same way from those that are left. If one
    setting is truly best, it is in the first group with a probability of `level`, although the one with the best mean was
    picked after the fact: it drops out only if one of the comparisons of it with the others is wrong.

    Args:
        values: From each setting to its values, as for `paired_differences`.
        mode: As for `verdict`. Defaults to `"min"`.
        level: As for `verdict`. Defaults to `0.95`.
        samples: See `bootstrap_interval`. Defaults to `10_000`.
        seed: See `bootstrap_interval`. Defaults to `0`.

    Returns:
        Lists of the keys of `values`, each in order of the mean.

    Raises:
        ValueError: If values do not have the same seeds.

    Example:

    >>> groups_of_equals({"cosine": [0.31, 0.29, 0.3], "linear": [0.3, 0.3, 0.31], "constant": [0.51, 0.49, 0.5]})
    [['cosine', 'linear'], ['constant']]
    """
    sign, groups = _sign(mode), []
    left = sorted(values, key=lambda key: sign * _mean(values[key]))
    comparisons = max(1, len(left) - 1)
    while left:
        best = left[0]
        found = {
            key: verdict(paired_differences(values[key], values[best]), mode, level, comparisons, samples, seed)
            for key in left[1:]
        }
        groups.append([best, *(key for key in left[1:] if found[key] != "worse")])
        left = [key for key in left[1:] if found[key] == "worse"]
    return groups


def learning_rate_sensitivity(rates: npt.ArrayLike, losses: npt.ArrayLike, initial_loss: float) -> float:
    """Return how much loss is given up, on average, by a learning rate other than the best.

        mean over rates of min(loss(rate), initial loss)  -  the least loss

    where a rate counts by the part of the logarithmic axis that is closest to it; all count alike if they are spaced evenly.

    Args:
        rates: Learning rates, in increasing order.
        losses: The final loss of each; if there are two axes, that of each rate and seed. NaN and infinity for a run that
            diverged, which counts as the initial loss.
        initial_loss: That of the untrained model.

    Returns:
        The sensitivity, in units of the loss.

    Raises:
        ValueError: If rates are not positive and increasing, or losses are not one for each.

    Reference:
        Wortsman et al., Small-scale proxies for large-scale Transformer training instabilities, arXiv:2309.14322.

    Example:

    >>> learning_rate_sensitivity([0.001, 0.01, 0.1], [0.5, 0.25, float("nan")], initial_loss=2.25)
    0.75
    """
    rates, table = _curve(rates, losses)
    initial_loss = validation.finite_float("initial_loss", initial_loss)
    clipped = np.minimum(np.where(np.isnan(table), np.inf, table), initial_loss).mean(axis=1)
    return float(np.average(clipped, weights=_log_cells(rates)) - clipped.min())


def basin(rates: npt.ArrayLike, losses: npt.ArrayLike, tolerance: float = 0.1, mode: Mode = "min") -> Interval:
    """Return the range of learning rates around the best that are nearly as good.

    Between two rates the value is interpolated linearly on the logarithmic axis. Next to a rate at which a run diverged, the
    basin ends at the last one at which none did; it does not reach beyond the rates.

    Args:
        rates: Learning rates, in increasing order.
        losses: The final value of each; if there are two axes, of each rate and seed, whose mean is taken.
        tolerance: How much worse a value may be than the best, as a fraction of it. Defaults to `0.1`.
        mode: As for `verdict`. Defaults to `"min"`.

    Returns:
        The lowest and the highest learning rate; NaN if all runs diverged.

    Raises:
        ValueError: If rates are not positive and increasing, or losses are not one for each.

    Example:

    >>> low, high = basin([0.001, 0.01, 0.1], [2.0, 1.0, 1.2])
    >>> round(low, 5), round(high, 5)
    (0.00794, 0.03162)
    """
    rates, table = _curve(rates, losses)
    tolerance = validation.non_negative_float("tolerance", tolerance)
    values = (_sign(mode) * np.where(np.isfinite(table), table, _sign(mode) * np.inf)).mean(axis=1)
    best = int(np.argmin(values))
    if not math.isfinite(values[best]):
        return math.nan, math.nan
    bound = float(values[best] + tolerance * abs(values[best]))
    logs = np.log(rates)
    return _edge(logs[best::-1], values[best::-1], bound), _edge(logs[best:], values[best:], bound)


def basin_width(rates: npt.ArrayLike, losses: npt.ArrayLike, tolerance: float = 0.1, mode: Mode = "min") -> float:
    """Return the width of the `basin`: the quotient of its highest and its lowest learning rate.

    Example:

    >>> round(basin_width([0.001, 0.01, 0.1], [2.0, 1.0, 1.2]), 2)
    3.98
    """
    low, high = basin(rates, losses, tolerance, mode)
    return high / low


def significance(
    new: npt.ArrayLike, old: npt.ArrayLike, new_steps: float = 0.0, old_steps: float = 0.0, slope: float = 0.0
) -> float:
    """Return by how much a method is better than another, in the unit in which `significantly_better` compares it.

        (mean_old - mean_new + (steps_old - steps_new) slope) / sqrt(1 / n_old + 1 / n_new)

    Args:
        new: Final losses of the method.
        old: Those of the other; or one number, a target, which has no error.
        new_steps: The optimizer steps of the method. Defaults to `0.0`.
        old_steps: Those of the other. Defaults to `0.0`.
        slope: The loss that a step is worth near the end. Defaults to `0.0`.

    Returns:
        A number in units of the loss.

    Raises:
        ValueError: If there are no losses.

    Example:

    >>> round(significance([3.2776] * 4, 3.28), 4)
    0.0048
    """
    first, second = _numbers("new", new), _numbers("old", np.atleast_1d(old))
    variance = 1 / first.size + (1 / second.size if np.ndim(old) else 0)
    return float((second.mean() - first.mean() + (old_steps - new_steps) * slope) / math.sqrt(variance))


def significantly_better(
    new: npt.ArrayLike,
    old: npt.ArrayLike,
    standard_deviation: float | None = None,
    z: float = 3.09,
    new_steps: float = 0.0,
    old_steps: float = 0.0,
    slope: float = 0.0,
) -> bool:
    """Return whether a method is better than another, or than a target, when the standard deviation is known.

    The rule of the optimization records of modded-nanogpt is a one-sided z test with a standard deviation known from many
    runs, for runs that are not paired by seed; use `verdict` for those of a study. All runs of a set must have stopped at
    the same step, chosen beforehand.

    Args:
        new: Final losses of the method.
        old: Those of the other; or one number, a target.
        standard_deviation: That of the loss over seeds. Defaults to `None`: from `old`, which must then hold at least ten.
        z: The quantile of the normal distribution; 3.09 is one-sided 99.9 %. Defaults to `3.09`.
        new_steps: The optimizer steps of the method. Defaults to `0.0`.
        old_steps: Those of the other. Defaults to `0.0`.
        slope: The loss that a step is worth near the end. Defaults to `0.0`.

    Returns:
        Whether `significance(...) >= z standard_deviation`.

    Raises:
        ValueError: If there are no losses, or too few to estimate the standard deviation.

    Example:

    >>> significantly_better([3.2776] * 4, 3.28, standard_deviation=1.3e-3)
    True
    """
    if standard_deviation is None:
        if np.size(old) < FEW:
            raise ValueError(
                f"`standard_deviation` must be given unless `old` holds at least {FEW} losses. "
                f"Received: {np.size(old)} of them"
            )
        standard_deviation = float(np.std(_numbers("old", old), ddof=1))
    threshold = validation.positive_float("z", z) * validation.positive_float("standard_deviation", standard_deviation)
    return significance(new, old, new_steps, old_steps, slope) >= threshold


def _numbers(name: str, values: npt.ArrayLike) -> np.ndarray:
    array = np.asarray(values, float)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"`{name}` must be a list of at least one number. Received: {name}={values!r:.200}")
    return array


def _sign(mode: Mode) -> int:
    return 1 if validation.one_of("mode", mode, ("min", "max")) == "min" else -1


def _mean(values: Any) -> float:
    """The mean of a list, or of the values of a dict."""
    return float(np.mean(_numbers("values", list(values.values()) if isinstance(values, Mapping) else values)))


def _mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(values.size)


def _infinite_interval(values: np.ndarray) -> Interval:
    """The interval where runs did not finish: infinite if it was always the same side, else everything."""
    signs = np.unique(np.sign(values[~np.isfinite(values)]))
    if signs.size != 1 or np.isnan(signs[0]):
        return _EVERYTHING
    return float(signs[0] * math.inf), float(signs[0] * math.inf)


def _studentized(values: np.ndarray, samples: int, random: np.random.Generator) -> np.ndarray:
    """(m* - m) / (s* / sqrt(n)) of resampled values, without samples that hold one value only."""
    drawn = values[random.integers(values.size, size=(samples, values.size))]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(values.size)
    proper = errors > 0
    return (drawn.mean(axis=1)[proper] - values.mean()) / errors[proper]


def _power(effect: float, count: int, level: float) -> float:
    """The power of a two-sided paired t test at a mean of `effect` standard deviations."""
    bound = float(stats.t.ppf((1 + level) / 2, count - 1))
    shift = effect * math.sqrt(count)
    upper = float(stats.nct.sf(bound, count - 1, shift))
    lower = float(stats.nct.cdf(-bound, count - 1, shift))
    return upper + lower if math.isfinite(upper + lower) else float(shift > bound)  # far out, SciPy returns NaN


def _first(holds: Callable[[int], bool], low: int, high: int) -> float:
    """The least integer for which a condition holds that stays true, infinite if there is none up to `high`."""
    if not holds(high):
        return math.inf
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return float(low)


def _curve(rates: Any, losses: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The rates, and the losses with an axis of seeds."""
    checked = np.array(validation.increasing("rates", rates, validation.positive_float))
    table = np.asarray(losses, float)
    if not checked.size or table.ndim not in (1, 2) or len(table) != checked.size or not table.size:
        raise ValueError(
            f"`losses` must hold a loss for each rate. Received: {checked.size} rates and losses of the shape {table.shape}"
        )
    return checked, table.reshape(checked.size, -1)


def _log_cells(rates: np.ndarray) -> np.ndarray:
    """The part of the logarithmic axis next to each rate; those at the ends reach as far outwards as inwards."""
    if rates.size == 1:
        return np.ones(1)
    gaps = np.diff(np.log(rates))
    return (np.append(gaps[0], gaps) + np.append(gaps, gaps[-1])) / 2


def _edge(logs: np.ndarray, values: np.ndarray, bound: float) -> float:
    """The rate at which values, from the best one outwards, first exceed a bound."""
    beyond = np.flatnonzero(values > bound)
    if not beyond.size:
        return math.exp(logs[-1])
    outer = int(beyond[0])
    inner = outer - 1
    share = (bound - values[inner]) / (values[outer] - values[inner])  # 0 if the outer one is infinite
    return math.exp(logs[inner] + share * (logs[outer] - logs[inner]))

"""The machinery of the convex bound: its terms for all updates at once, the fit, the optimum, longer runs."""

from functools import partial

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched.laws import diagnostics
from keras_lrsched.laws._fitting import as_curves
from keras_lrsched.schedules import profiles

# The terms for every update of a run at once, in near-linear time and linear memory

BLOCK = 256
SPACING = 0.3  # of the nodes below; the error of the sum is 1e-13 of it
DIGITS = 30  # e^-30 = 1e-13


def parts(learning_rate, norms):
    """The factor of D^2 in the bound of every update, and the rest of the bound."""
    used = learning_rate > 0
    eta, norms = learning_rate[used], norms[used]
    noise = eta * norms**2 + sums(eta, (eta * norms) ** 2)
    latest = np.maximum(np.cumsum(used) - 1, 0)
    return 0.5 / np.cumsum(eta)[latest], 0.5 * noise[latest]


def sums(rates, weights):
    """For each t, the sum over k < t of weights_k / (rates_(k+1) + ... + rates_t), with rates above 0.

    Within a block of updates it is added up as it stands. Older updates come in by 1 / x = integral of exp(u - x exp(u)) du:
    at each node u, their sum of weights_k * exp(-exp(u) * (rates_(k+1) + ... + rates_t)) is carried from block to block.
    Nothing is ever subtracted, so no digits are lost at the end of a long decay.
    """
    decay = np.exp(np.arange(-DIGITS - np.log(rates.sum()), np.log(1.2 * DIGITS) - np.log(rates.min()), SPACING))
    carried = np.zeros_like(decay)
    total = np.empty_like(rates)
    for start in range(0, len(rates), BLOCK):
        block = slice(start, start + BLOCK)
        spent = _tails(rates[block])
        within = np.divide(1.0, spent, out=np.zeros_like(spent), where=spent > 0)
        older = np.exp(-np.outer(np.cumsum(rates[block]), decay)) @ (SPACING * decay * carried)
        total[block] = within[:, 1:] @ weights[block][:-1] + older
        left = np.append(spent[-1, 1:], 0.0)
        carried = carried * np.exp(-spent[-1, 0] * decay) + weights[block] @ np.exp(-np.outer(left, decay))
    return total


def _tails(rates):
    """In row t and column j: rates_j + ... + rates_t; 0 where j > t."""
    lower = np.tril(np.broadcast_to(rates, (len(rates), len(rates))))
    return np.cumsum(lower[:, ::-1], axis=1)[:, ::-1]


# The fit to measured curves, by non-negative least squares


def fit(kind, curves, skip, points):
    """See `ConvexBound.fit`."""
    curves, skip, points = as_curves(curves), validation.fraction("skip", skip), validation.positive_int("points", points)
    used = [curve.between(first) for curve in curves if (first := _first_used(curve, skip)) <= curve.step[-1]]
    measured = [curve.subsample(points) for curve in used]
    columns = np.concatenate([np.empty((0, 3)), *map(_rows, measured)])
    if len(columns) < 3:
        raise ValueError(f"The convex bound is fitted to three or more points after warmup. Received: {len(columns)}")
    size = columns.max(axis=0)
    (distance, norm, offset), _ = scipy.optimize.nnls(columns / size, np.ones(len(columns)))
    distance, norm, offset = np.array([distance, norm, offset]) / size
    if not (distance and norm):
        raise ValueError(
            "The curves do not fall as a convex problem's: fit to runs that differ in their learning rates. "
            f"Received: curves with a best distance^2 of {distance:.3g} and gradient_norm^2 of {norm:.3g}"
        )
    fitted = kind(distance**0.5, norm**0.5, offset)._fitted_to(curves, partial(kind.fit, skip=skip, points=points))
    diagnostics.check(fitted, measured)
    return fitted


def _first_used(curve, skip):
    """The first update that is used."""
    return max(curve.peak_step, int(skip * len(curve.rates)))


def _rows(curve):
    """The factors of distance^2, gradient_norm^2 and offset at the points of a curve, divided by the loss there."""
    initial, noise = parts(curve.rates, np.ones(len(curve.rates)))
    return np.stack([initial, noise, np.ones(len(curve.rates))], axis=1)[curve.step] / curve.loss[:, None]


# The schedule with the lowest bound: among all, and among those below a peak


def free(norms):
    """The rates with the lowest bound for their sum, 1."""
    cost, parts = norms[-1] ** 2 / 2, [1.0]
    for square in norms[-2::-1] ** 2:
        root = np.sqrt(1 + 2 * cost / square)
        parts.append((root - 1) / root)
        cost = square * (root - 1)
    part = np.array(parts[::-1])
    return part * np.append(1.0, np.cumprod(1 - part[:-1]))


def capped(bound, norms, peak, warmup):
    """min(peak, a * free) with the best a, behind a warmup of given rates.

    Whatever the rates before, those from some update on have the lowest bound for their sum if they are `free`. So where
    these fall from update to update, as for equal norms, no schedule below the peak has a lower bound.
    """
    shape = free(norms)

    def rates(log_scale):
        return np.append(warmup, np.minimum(peak, peak / shape.max() * np.exp(log_scale) * shape))

    flat = np.log(shape.max() / shape.min())  # from here on, all rates are the peak
    best = scipy.optimize.minimize_scalar(lambda log_scale: bound(rates(log_scale)), bounds=(-20.0, flat), method="bounded",
                           options={"xatol": 1e-7})  # fmt: skip
    return rates(best.x)


# How a run can go on beyond its end with the learning rate it has had

TRIALS = 33


def longer_cooldown(law, steps, new_steps, cooldown_fraction, profile):
    """See `ConvexBound.longer_cooldown`."""
    steps, new_steps, cooldown_fraction, profile = _checked(steps, new_steps, cooldown_fraction, profile)
    target = law.optimal_rate(_plateau(steps, cooldown_fraction, profile)).learning_rate

    def excess(fraction):
        return law.optimal_rate(_plateau(new_steps, fraction, profile)).learning_rate / target - 1

    return _first_root(excess, np.linspace(cooldown_fraction, 1.0, TRIALS), "cooldown fraction", steps, new_steps)


def lower_plateau(law, steps, new_steps, cooldown_fraction, profile):
    """See `ConvexBound.lower_plateau`."""
    steps, new_steps, cooldown_fraction, profile = _checked(steps, new_steps, cooldown_fraction, profile)
    target = law.optimal_rate(_plateau(steps, cooldown_fraction, profile)).learning_rate
    whole = _plateau(new_steps, cooldown_fraction, profile)
    later = np.arange(new_steps) >= (1 - cooldown_fraction) * steps

    def excess(factor):
        return law.optimal_rate(np.where(later, factor * whole, whole)).learning_rate / target - 1

    return _first_root(excess, np.linspace(1.0, 0.01, TRIALS), "factor", steps, new_steps)


def _checked(steps, new_steps, cooldown_fraction, profile):
    validation.shorter("total_steps", validation.positive_int("total_steps", steps), "new_total_steps", new_steps)
    fraction = validation.positive_fraction("cooldown_fraction", cooldown_fraction)
    return int(steps), int(new_steps), fraction, profiles.get(profile, floor=0.0)


def _plateau(steps, cooldown_fraction, profile):
    """1, then the profile over the last `cooldown_fraction` of the run, which need not be a whole number of steps."""
    done = (np.arange(steps) - (1 - cooldown_fraction) * steps) / (cooldown_fraction * steps)
    return profile(np.clip(done, 0, 1))


def _first_root(excess, trials, what, steps, new_steps):
    """The first place along the trials at which `excess` turns positive."""
    values = [excess(trial) for trial in trials]
    first = next((i for i, value in enumerate(values) if value >= 0), None)
    if first is None:
        raise ValueError(
            f"No {what} lets the run go on so far at the same learning rate; the best of them allows "
            f"{1 + max(values):.4g} of it. Received: total_steps={steps}, new_total_steps={new_steps}"
        )
    if first == 0:  # only in runs of a few updates
        return float(trials[0])
    return float(scipy.optimize.brentq(excess, *sorted(trials[first - 1 : first + 1])))

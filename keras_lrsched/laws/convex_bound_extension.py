"""How a run can go on beyond its end with the learning rate it has had, by the convex bound (Schaipp et al. 2025)."""

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched.schedules import profiles

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
    validation.shorter("steps", validation.positive_int("steps", steps), "new_steps", new_steps)
    fraction = validation.positive_fraction("cooldown_fraction", cooldown_fraction)
    return int(steps), int(new_steps), fraction, profiles.get(profile, floor=0.0)


def _plateau(steps, cooldown_fraction, profile):
    """1, then the profile over the last `cooldown_fraction` of the run, which need not be a whole number of steps."""
    done = (np.arange(steps) - (1 - cooldown_fraction) * steps) / (cooldown_fraction * steps)
    return profile(np.clip(done, 0, 1))


def _first_root(excess, trials, what, steps, new_steps):
    """Where `excess` first turns positive along the trials."""
    values = [excess(trial) for trial in trials]
    first = next((i for i, value in enumerate(values) if value >= 0), None)
    if first is None:
        raise ValueError(
            f"No {what} lets the run go on so far at the same learning rate; the best of them allows "
            f"{1 + max(values):.4g} of it. Received: steps={steps}, new_steps={new_steps}"
        )
    if first == 0:  # only in runs of a few updates
        return float(trials[0])
    return float(scipy.optimize.brentq(excess, *sorted(trials[first - 1 : first + 1])))

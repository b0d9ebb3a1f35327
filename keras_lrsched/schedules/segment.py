"""Segments: the pieces that a schedule is made of, each from one value to another along a profile."""

import math
from dataclasses import dataclass
from typing import Any

from keras_lrsched.schedules import profiles
from keras_lrsched.schedules._arrays import to_float
from keras_lrsched.schedules.profiles import Profile


@dataclass(frozen=True)
class Segment:
    """A profile stretched over steps: from the value `start` to the value `end` in `steps` steps.

    A falling segment follows the profile; a rising one is the profile played backwards, so that its small values, too, are
    small numbers and not differences of large ones.

    Args:
        steps: The length; need not be whole.
        start: The value at its first step.
        end: The value at the first step after it.
        profile: The shape, a `Profile`. Defaults to `profiles.linear`.

    Example:

    >>> from keras_lrsched.schedules import profiles
    >>> Segment(100, 1.0, 0.1, profiles.cosine)
    Segment(steps=100, start=1.0, end=0.1, profile=cosine)
    """

    steps: float
    start: float
    end: float
    profile: Profile = profiles.linear

    def value(self, done: Any, left: Any, xp: Any) -> Any:
        """The value when the fraction `done` of the segment is over and `left` is to come; `xp` as in `Schedule.compute`."""
        if self.start == self.end:
            return xp.full_like(done, self.end)
        if self.start < self.end:
            done, left = left, done
        shape = self.profile.shape(done, left, xp)
        if self.profile.end:  # a shape with its own floor, stretched to fall from 1 to 0 like the others
            shape = (shape - self.profile.end) / (1 - self.profile.end)
        low, high = sorted((self.start, self.end))
        return low + (high - low) * shape if low else high * shape


def progress(step: Any, start: float, end: float, xp: Any) -> tuple[Any, Any]:
    """The fractions of the segment from `start` to `end` that are done and that are left, both within [0, 1].

    Clipping and differences are done on whole steps, before rounding to float32: steps above 2^24 do not merge, and the last
    steps of a long segment are as exact as its first. An edge between two steps is left to the float that follows.
    """
    first, last = math.ceil(start), math.floor(end)
    step = xp.clip(step, first, last)
    done = to_float(step - first if first else step, xp)
    left = to_float(last - step, xp)
    if first > start:
        done = done + (first - start)
    if last < end:
        left = left + (end - last)
    return done / (end - start), left / (end - start)


def floor_of(peak: float, alpha: float, profile: Profile) -> float:
    """The value at which a decay from `peak` ends: `alpha * peak`, or where the profile's own floor lies.

    Raises:
        ValueError: If `alpha` is less than the profile can reach.
    """
    if 0 < alpha < profile.end:
        raise ValueError(f"`alpha` must not lie below the floor of {profile}. Received: alpha={alpha}")
    return peak * max(alpha, profile.end)

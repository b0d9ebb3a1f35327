"""Phases: a schedule that is told as "from here to there, over so many steps, along this profile", one after the other."""

import math
from dataclasses import dataclass

from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.base import Schedule, to_float
from keras_lrsched.schedules.profiles import Profile


@dataclass(frozen=True)
class Phase:
    """From the value `start` to the value `end` in `steps` steps along a profile.

    A falling phase follows the profile; a rising one is the profile played backwards, so that its small values, too, are
    small numbers and not differences of large ones. `steps` need not be whole.
    """

    steps: float
    start: float
    end: float
    profile: Profile = profiles.linear

    def value(self, done, left, xp):
        """The value when the fraction `done` of the phase is over and `left` is to come."""
        if self.start == self.end:
            return xp.full_like(done, self.end)
        if self.start < self.end:
            done, left = left, done
        shape = self.profile.shape(done, left, xp)
        if self.profile.end:  # a shape with its own floor, stretched to fall from 1 to 0 like the others
            shape = (shape - self.profile.end) / (1 - self.profile.end)
        low, high = sorted((self.start, self.end))
        return low + (high - low) * shape if low else high * shape


class PhasedSchedule(Schedule):
    """Phases in their order; the last value stays. A subclass sets `self.phases` and with it `total_steps`."""

    @property
    def phases(self):
        return self._phases

    @phases.setter
    def phases(self, phases):
        self._phases = [phase for phase in phases if phase.steps]
        self.total_steps = _first_step_at(sum(phase.steps for phase in self._phases))

    def compute(self, step, xp):
        # As an array at once: a backend takes a bare number to be of the model's precision, which may be bfloat16.
        value = xp.full_like(to_float(step, xp), self._phases[-1].end)
        end = sum(phase.steps for phase in self._phases)
        for phase in reversed(self._phases):
            start = end - phase.steps
            done, left = progress(step, start, end, xp)
            value = xp.where(step < _first_step_at(end), phase.value(done, left, xp), value)
            end = start
        return value


def _first_step_at(point):
    """The first step not before `point`, a sum of fractions of a run: 3.0000000000000004 is step 3."""
    return math.ceil(point - 1e-6)


def progress(step, start, end, xp):
    """The fractions of the phase from `start` to `end` that are done and that are left, both within [0, 1].

    The differences are taken of whole steps, before rounding to float32: steps above 2^24 do not merge, and the last steps
    of a long phase are as exact as its first.
    """
    length = end - start
    done = to_float(step - math.floor(start), xp) - (start - math.floor(start))
    left = to_float(math.ceil(end) - step, xp) - (math.ceil(end) - end)
    return xp.clip(done / length, 0.0, 1.0), xp.clip(left / length, 0.0, 1.0)


def floor_of(peak, alpha, profile):
    """The value at which a decay from `peak` ends: `alpha * peak`, or where the profile's own floor lies.

    Raises:
        ValueError: If `alpha` asks for less than the profile can reach.
    """
    if 0 < alpha < profile.end:
        raise ValueError(f"`alpha` must not lie below the floor of {profile}. Received: alpha={alpha}")
    return peak * max(alpha, profile.end)

"""Phases: a schedule that is told as "from here to there, over so many steps, along this profile", one after the other."""

import itertools
import math
from dataclasses import dataclass

from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.base import Schedule, to_float
from keras_lrsched.schedules.profiles import Profile

ROUNDING = 1e-6
"""Steps that are less than this apart are one: sums of fractions are not exact."""


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
        self._phases = [phase for phase in phases if phase.steps > ROUNDING]
        self._edges = [_snapped(edge) for edge in itertools.accumulate((phase.steps for phase in self._phases), initial=0)]
        self.total_steps = math.ceil(self._edges[-1])
        if self._edges[-1] < self.total_steps:  # the end lies between two steps; from the second on, it is reached
            last = self._phases[-1].end
            self._phases.append(Phase(self.total_steps - self._edges[-1], last, last))
            self._edges.append(self.total_steps)

    def compute(self, step, xp):
        value = None
        spans = list(zip(self._phases, itertools.pairwise(self._edges), strict=True))
        for phase, (start, end) in reversed(spans):
            done, left = progress(step, start, end, xp)
            here = phase.value(done, left, xp)
            value = here if value is None else xp.where(step < math.ceil(end), here, value)
        return value


def _snapped(edge):
    """An edge between phases; as an int if it is whole, also when a sum of fractions has made it 3.0000000000000004."""
    return round(edge) if abs(edge - round(edge)) < ROUNDING else edge


def progress(step, start, end, xp):
    """The fractions of the phase from `start` to `end` that are done and that are left, both within [0, 1].

    Clipping and differences are done on whole steps, before rounding to float32: steps above 2^24 do not merge, and the last
    steps of a long phase are as exact as its first. An edge between two steps is left to the float that follows.
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


def floor_of(peak, alpha, profile):
    """The value at which a decay from `peak` ends: `alpha * peak`, or where the profile's own floor lies.

    Raises:
        ValueError: If `alpha` asks for less than the profile can reach.
    """
    if 0 < alpha < profile.end:
        raise ValueError(f"`alpha` must not lie below the floor of {profile}. Received: alpha={alpha}")
    return peak * max(alpha, profile.end)

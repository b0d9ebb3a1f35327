"""Warmup: any schedule, preceded by a rise to its first value (Goyal et al. 2017, arXiv:1706.02677)."""

import keras

from keras_lrsched._core import validation
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.base import Schedule, at_least
from keras_lrsched.schedules.operands import as_schedule, compute
from keras_lrsched.schedules.phases import Phase, progress


@keras.saving.register_keras_serializable(package="keras_lrsched")
class Warmup(Schedule):
    """A rise to the first value of a schedule, and then that schedule from its step 0 on.

    With peak = schedule(0), W = `warmup_steps` and s = `warmup_start`:

        t < W:   peak * (s + (1 - s) * t / W)
        t >= W:  schedule(t - W)

    The peak is reached at t = W. Another `profile` rises along that profile played backwards.

    Args:
        schedule: A `LearningRateSchedule`, or a number for a constant.
        warmup_steps: Updates until the peak; 0 for the schedule as it is.
        warmup_start: The value at t = 0 as a fraction of the peak. Defaults to `0.0`. Goyal et al. start at 1 / k for a
            batch that is k times the usual one.
        profile: A `Profile` or its name. Defaults to `"linear"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: arXiv:1706.02677.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay
    >>> Warmup(LinearDecay(1.0, decay_steps=4), warmup_steps=2).values(7)
    array([0.  , 0.5 , 1.  , 0.75, 0.5 , 0.25, 0.  ])
    """

    def __init__(self, schedule, warmup_steps, warmup_start=0.0, profile="linear"):
        self.schedule = as_schedule("schedule", schedule)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        self.warmup_start = validation.fraction("warmup_start", warmup_start)
        self.profile = profiles.get(profile, floor=self.warmup_start)
        rest = getattr(self.schedule, "total_steps", None)
        self.total_steps = None if rest is None else self.warmup_steps + rest
        self._rise = Phase(self.warmup_steps, self.warmup_start, 1.0, self.profile)

    def compute(self, step, xp):
        if not self.warmup_steps:
            return compute(self.schedule, step, xp)
        done, left = progress(step, 0, self.warmup_steps, xp)
        rise = self._rise.value(done, left, xp)
        rest = compute(self.schedule, at_least(step - self.warmup_steps, 0, xp), xp)
        # During the rise, `rest` is the schedule's first value: the peak.
        return xp.where(step < self.warmup_steps, rise * rest, rest)

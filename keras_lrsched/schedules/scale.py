"""Scale: a schedule times a number."""

import keras

from keras_lrsched._core import validation
from keras_lrsched.schedules.base import Schedule
from keras_lrsched.schedules.operands import as_schedule, compute


@keras.saving.register_keras_serializable(package="keras_lrsched")
class Scale(Schedule):
    """A schedule times a number: value(t) = factor * schedule(t). Written `0.5 * schedule`.

    Args:
        schedule: A `LearningRateSchedule`, or a number for a constant.
        factor: A number, at least 0.

    Raises:
        ValueError: If `factor` is negative.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay
    >>> (0.5 * LinearDecay(1.0, decay_steps=4)).values(5)
    array([0.5  , 0.375, 0.25 , 0.125, 0.   ])
    """

    def __init__(self, schedule, factor):
        self.schedule = as_schedule("schedule", schedule)
        self.factor = validation.non_negative_float("factor", factor)
        self.total_steps = getattr(self.schedule, "total_steps", None)

    def compute(self, step, xp):
        return self.factor * compute(self.schedule, step, xp)

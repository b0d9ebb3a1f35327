"""Product: schedules times one another."""

import keras

from keras_lrsched.schedules.base import Schedule
from keras_lrsched.schedules.operands import as_schedule, compute


@keras.saving.register_keras_serializable(package="keras_lrsched")
class Product(Schedule):
    """Schedules times one another: value(t) = f_0(t) * f_1(t) * ... Two of them can be written `schedule * factor`.

    Args:
        schedules: A list of at least two `LearningRateSchedule`s or numbers.

    Raises:
        ValueError: If there are fewer than two, or one is neither a schedule nor a non-negative number.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay, PiecewiseConstant
    >>> (LinearDecay(1.0, decay_steps=4) * PiecewiseConstant([2], [1, 2])).values(5)
    array([1.  , 0.75, 1.  , 0.5 , 0.  ])
    """

    def __init__(self, schedules):
        if not isinstance(schedules, (list, tuple)) or len(schedules) < 2:
            raise ValueError(f"`schedules` must be a list of two or more. Received: schedules={schedules!r}")
        self.schedules = [as_schedule("schedules", schedule) for schedule in schedules]
        ends = [getattr(schedule, "total_steps", None) for schedule in self.schedules]
        self.total_steps = max((end for end in ends if end is not None), default=None)

    def compute(self, step, xp):
        value = compute(self.schedules[0], step, xp)
        for schedule in self.schedules[1:]:
            value = value * compute(schedule, step, xp)
        return value

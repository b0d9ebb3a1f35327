"""What a combinator takes: a schedule of ours, any other Keras schedule, or a number, which stands for a constant."""

import keras
import numpy as np

from keras_lrsched.schedules.base import Schedule, to_float
from keras_lrsched.schedules.constant import Constant


def as_schedule(name, value):
    """`value` as a schedule.

    Raises:
        ValueError: If it is neither a `LearningRateSchedule` nor a non-negative number.
    """
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return value
    try:
        return Constant(value)
    except ValueError:
        raise ValueError(
            f"`{name}` must be a LearningRateSchedule or a non-negative number. Received: {name}={value!r}"
        ) from None


def compute(schedule, step, xp):
    """`schedule.compute(step, xp)`, also for schedules that are not ours: those are asked step by step in NumPy."""
    if isinstance(schedule, Schedule):
        return schedule.compute(step, xp)
    if xp is not np:
        return to_float(schedule(step), xp)
    values = [keras.ops.convert_to_numpy(schedule(int(t))) for t in np.ravel(step)]
    return np.reshape(np.asarray(values, "float64"), np.shape(step))

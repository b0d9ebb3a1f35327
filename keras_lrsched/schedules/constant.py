"""A constant: the schedule that changes nothing, for combinators and as the baseline of every comparison."""

import keras

from keras_lrsched._core import validation
from keras_lrsched.schedules.base import Schedule, to_float


@keras.saving.register_keras_serializable(package="keras_lrsched")
class Constant(Schedule):
    """The same value at every update: value(t) = `value`.

    Args:
        value: A non-negative number.

    Raises:
        ValueError: If `value` is negative, not finite, or no number.

    Example:

    >>> Constant(0.1).values(3)
    array([0.1, 0.1, 0.1])
    """

    def __init__(self, value):
        self.value = validation.non_negative_float("value", value)

    def compute(self, step, xp):
        return xp.full_like(to_float(step, xp), self.value)

    @classmethod
    def for_budget(cls, peak_learning_rate, total_steps, warmup_steps=0, **options):
        """Constant at the peak, behind a linear warmup if there is one."""
        from keras_lrsched.schedules.warmup import Warmup

        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        return Warmup(peak_learning_rate, warmup_steps, **options) if warmup_steps else cls(peak_learning_rate, **options)

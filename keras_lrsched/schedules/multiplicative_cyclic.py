"""Multiplicative cyclic schedule: one run that gives the whole curve of accuracy over time (Portes et al. 2022)."""

from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules._arrays import at_least, float_dtype, to_float, to_int
from keras_lrsched.schedules.piecewise_constant import piece
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment, progress


@register(
    "multiplicative_cyclic",
    title="cosines, each twice as long",
    paper="arXiv:2206.00832",
    code=("jacobfulano/cyclic-learning-rate-schedules",),
    checked="read",
    against="the authors' repository, for T0, m and the warmup",
    deviations="the values are from the formula, not from running the code",
    kind="learning rate",
    choices={"cycles": ((1, 2, 3, 4), 3), "t_mul": ((1, 2, 3), 2)},
)
class MultiplicativeCyclic(Schedule):
    """Linear warmup, then cosines from the peak to 0, each `t_mul` times as long as the one before, without an end.

    With W = `warmup_steps`, T0 = `first_decay_steps`, m = `t_mul` and t = W + T0 (1 + m + ... + m^(k-1)) + r in cycle k:

        t < W:   peak * t / W
        t >= W:  peak * (1 + cos(pi * r / (T0 m^k))) / 2,  0 <= r < T0 m^k

    At the end of each cycle the value leaps back to the peak at once. The model just before it is as good as one that was
    trained on a schedule of that length, so one run draws the trade-off between accuracy and time. With m = 2 and T0 = W,
    cycles end at 2 W, 4 W, 8 W, ...

    Args:
        peak_learning_rate: The value at the start of each cycle, positive.
        first_decay_steps: T0, updates of the first cycle, a positive integer.
        t_mul: m, how many times longer each cycle is, a positive integer. Defaults to `2`.
        warmup_steps: W, updates until the first peak. Defaults to `0`. The paper has W = T0, 8 epochs.
        name: A label. Defaults to `"MultiplicativeCyclic"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: arXiv:2206.00832; official code, jacobfulano/cyclic-learning-rate-schedules.

    Example:

    >>> MultiplicativeCyclic(1.0, first_decay_steps=2, warmup_steps=2).values(10).round(4)
    array([0.    , 0.5   , 1.    , 0.5   , 1.    , 0.8536, 0.5   , 0.1464,
           1.    , 0.9619])
    """

    def __init__(
        self,
        peak_learning_rate: float,
        first_decay_steps: int,
        t_mul: int = 2,
        warmup_steps: int = 0,
        name: str = "MultiplicativeCyclic",
    ) -> None:
        self.peak_learning_rate = validation.positive_float("peak_learning_rate", peak_learning_rate)
        self.first_decay_steps = validation.positive_int("first_decay_steps", first_decay_steps)
        self.t_mul = validation.positive_int("t_mul", t_mul)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        self.name = name
        self._rise = Segment(self.warmup_steps, 0.0, self.peak_learning_rate)
        self._starts, self._lengths = [0], [self.first_decay_steps]
        while self.t_mul > 1 and self._starts[-1] + self._lengths[-1] < 2**62:
            self._starts.append(self._starts[-1] + self._lengths[-1])
            self._lengths.append(self._lengths[-1] * self.t_mul)

    @classmethod
    def from_epochs(
        cls,
        peak_learning_rate: float,
        steps_per_epoch: int,
        first_decay_epochs: int = 8,
        t_mul: int = 2,
        warmup_epochs: int = 8,
        name: str = "MultiplicativeCyclic",
    ) -> Self:
        """The schedule with its lengths in epochs; by default the paper's."""
        steps = validation.positive_int("steps_per_epoch", steps_per_epoch)
        first = validation.positive_int("first_decay_epochs", first_decay_epochs)
        warmup = validation.non_negative_int("warmup_epochs", warmup_epochs)
        return cls(peak_learning_rate, first * steps, t_mul, warmup * steps, name)

    def compute(self, step: Any, xp: Any) -> Any:
        left = self._left(at_least(step - self.warmup_steps, 0, xp), xp)
        value = self.peak_learning_rate * profiles.cosine.shape(1 - left, left, xp)
        if not self.warmup_steps:
            return value
        done, left = progress(step, 0, self.warmup_steps, xp)
        rise = self._rise.value(done, left, xp)
        return xp.where(step < self.warmup_steps, rise, value)

    def _left(self, since: Any, xp: Any) -> Any:
        """The part of its cycle that is left, `since` the warmup; from differences of whole numbers."""
        if self.t_mul == 1:
            done = since % self.first_decay_steps
            return to_float(self.first_decay_steps - done, xp) / to_float(self.first_decay_steps, xp)
        cycle = to_int(piece(since, self._starts[1:], xp), xp)
        if xp is np:
            length = np.take(self._lengths, cycle)
            return to_float(length - (since - np.take(self._starts, cycle)), xp) / to_float(length, xp)
        dtype = keras.backend.standardize_dtype(since.dtype)
        limit = (np.iinfo if "int" in dtype else np.finfo)(dtype).max
        start, length = (
            ops.take(ops.convert_to_tensor([min(steps, limit) for steps in table], dtype), cycle)
            for table in (self._starts, self._lengths)
        )
        excess = ops.take(
            ops.convert_to_tensor([float(max(steps - limit, 0)) for steps in self._lengths], float_dtype()), cycle
        )
        return (to_float(length - (since - start), xp) + excess) / (to_float(length, xp) + excess)

    @classmethod
    def for_budget(
        cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, cycles: int = 3, **options: Any
    ) -> Schedule:
        """`cycles` cycles, 3 by default, of which the last ends with the budget."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        t_mul = validation.positive_int("t_mul", options.pop("t_mul", 2))
        parts = sum(t_mul**k for k in range(validation.positive_int("cycles", cycles)))
        first = options.pop("first_decay_steps", -(-(total_steps - warmup_steps) // parts))
        return cls(peak_learning_rate, first, t_mul, warmup_steps, **options)

"""A batch size that follows a schedule, and the learning rate that goes with it."""

from typing import Literal

import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core.registry import register
from keras_lrsched.callbacks._batch_size import BatchSizeControl
from keras_lrsched.schedules.schedule import as_schedule, compute


class Share:
    """The batch size of one of several processes, as a function of the number of batches before.

    Args:
        schedule: The size of the whole batch.
        processes: How many share it.
    """

    def __init__(self, schedule: LearningRateSchedule | float, processes: int) -> None:
        self.schedule, self.processes = schedule, processes

    def __call__(self, number: int) -> int:
        size = round(float(compute(self.schedule, np.asarray(number), np)))
        if size % self.processes:
            raise ValueError(
                f"The batch size must be a multiple of the number of processes, {self.processes}. "
                f"Received: {size} for batch {number}"
            )
        return size // self.processes


@register(
    title="Scheduled batch size",
    paper="arXiv:2505.23971",
    code=("allenai/OLMo-core",),
    checked="read",
    against="the official `batch_size_scheduler.py`",
    kind="controller",
)
class BatchSizeSchedule(BatchSizeControl):
    """Batch size that follows a schedule: batch t has round(schedule(t)) samples, fewer where a pass over the data ends.

    With t, the batches before are counted, over all `fit`s on these data. When the size becomes k times what it was, the
    learning rate is multiplied by 1, sqrt(k) or k, at the same update.

    The data given to `fit` must be `ScheduledBatches`, which keep to the schedule also after this `fit`. A learning rate
    that is itself a schedule goes with `"none"` only; it counts updates, so what is meant in samples has to be converted.

    On JAX, and with `jit_compile` on TensorFlow, each new size is compiled for: let it change seldom.

    Args:
        schedule: A `LearningRateSchedule` such as `BatchSizeWarmup`, or a number for a constant: the size of the whole
            batch, which the processes that train together share equally.
        learning_rate_rule: `"none"`, `"sqrt"` (Adam) or `"linear"` (SGD). Defaults to `"none"`.

    Attributes:
        batch_size: A list of the samples that each batch had, in all processes.

    Raises:
        ValueError: At construction, if an argument is not of its kind. When `fit` begins, as `Controller`, or if the data
            are no `ScheduledBatches`. When an epoch begins, if a batch would be empty, larger than the data, or no multiple
            of the number of processes.

    Reference: arXiv:2505.23971 for growing batches with sqrt(k), as in the official `batch_size_scheduler.py` of
    allenai/OLMo-core, which was read; arXiv:1706.02677 for linear scaling.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_lrsched.data import ScheduledBatches
    >>> from keras_lrsched.schedules import BatchSizeWarmup
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.Adam(0.001), loss="mse")
    >>> batches = ScheduledBatches(np.ones((20, 1)), np.ones((20, 1)), batch_size=2)
    >>> grow = BatchSizeSchedule(BatchSizeWarmup([2, 8], boundaries=[2]), learning_rate_rule="sqrt")
    >>> history = model.fit(batches, verbose=0, callbacks=[grow])
    >>> grow.batch_size, round(float(model.optimizer.learning_rate), 6)
    ([2, 2, 8, 8], 0.002)
    """

    def __init__(
        self, schedule: LearningRateSchedule | float, learning_rate_rule: Literal["none", "sqrt", "linear"] = "none"
    ) -> None:
        super().__init__(learning_rate_rule, monitor=())
        self.schedule = as_schedule("schedule", schedule)

    def begin(self) -> None:
        super().begin()
        self._batches.follow(self.schedule if self._shares == 1 else Share(self.schedule, self._shares))

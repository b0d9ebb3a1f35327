"""What callbacks share that change the batch size of `ScheduledBatches`, and the learning rate with it."""

from typing import Any

from keras_lrsched._core import training_loop, validation
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.callbacks.scheduled_batches import ScheduledBatches

POWERS = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}
"""The learning rate goes with this power of the batch size."""


class BatchSizeControl(Controller):
    """Base of callbacks that change the batch size of the data that `fit` is given, which must be `ScheduledBatches`.

    Where several processes train together, each on `ScheduledBatches` of its own part of the data, all sizes are those of
    the whole batch; a process has an equal share of it.

    Args:
        learning_rate_rule: `"none"`; `"sqrt"`, for Adam and its like: k times the batch goes with sqrt(k) times the
            learning rate; or `"linear"`, for SGD. Defaults to `"none"`, with which the learning rate may be a schedule.

    Attributes:
        batch_size: A list of the samples that each batch had, in all processes: what was asked for, or less where a pass
            ends.
    """

    saved: tuple[str, ...] = ("batch_size", "asked")

    def __init__(self, learning_rate_rule="none", **options):
        super().__init__(**options)
        self.learning_rate_rule = validation.one_of("learning_rate_rule", learning_rate_rule, tuple(POWERS))
        self.sets_learning_rate = learning_rate_rule != "none"
        self.batch_size: list[int] = []
        self.asked: int | None = None
        self._batches: Any = None

    def begin(self):
        super().begin()
        self._shares = self.processes
        iterator = training_loop.epoch_iterator()
        self._batches = training_loop.dataset()
        if not isinstance(self._batches, ScheduledBatches):
            data = "data that are no PyDataset" if self._batches is None else type(self._batches).__name__
            raise ValueError(
                f"{type(self).__name__} needs data whose batch size can change: give `fit` ScheduledBatches. "
                f"Received: {'no running `fit`' if iterator is None else data}"
            )

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self._batches.hold_back()

    def on_train_batch_begin(self, batch, logs=None):
        asked = self._shares * self._batches.asked_size_of(batch)
        if self.asked not in (None, asked) and self.sets_learning_rate:
            self.learning_rate *= (asked / self.asked) ** POWERS[self.learning_rate_rule]
        self.asked = asked
        super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self.batch_size.append(self._shares * self._batches.size_of(batch))
        self._batches.trained(batch + 1)
        super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if logs is not None and self.batch_size:
            logs["batch_size"] = self.batch_size[-1]

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        self._batches = None

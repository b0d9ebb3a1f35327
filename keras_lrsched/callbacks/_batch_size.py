"""Machinery of callbacks that measure gradient noise in small batches or change the batch size."""

from typing import Any, Literal

import keras
from keras import ops

from keras_lrsched._core import keras_private, training_loop, validation
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.callbacks.gradient_controller import GradientController, global_square
from keras_lrsched.data.scheduled_batches import ScheduledBatches

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
        batch_size: A list of the samples that each batch had, in all processes: what was requested, or less where a pass
            ends.
    """

    saved: tuple[str, ...] = ("batch_size", "requested")

    def __init__(self, learning_rate_rule: Literal["none", "sqrt", "linear"] = "none", **options: Any) -> None:
        super().__init__(**options)
        self.learning_rate_rule = validation.one_of("learning_rate_rule", learning_rate_rule, tuple(POWERS))
        self.sets_learning_rate = learning_rate_rule != "none"
        self.batch_size: list[int] = []
        self.requested: Any = None
        self._batches: Any = None

    def begin(self) -> None:
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

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._batches.limit_prefetch()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        requested = self._shares * self._batches.requested_size_of(batch)
        if self.requested not in (None, requested) and self.sets_learning_rate:
            self.learning_rate *= (requested / self.requested) ** POWERS[self.learning_rate_rule]
        self.requested = requested
        super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.batch_size.append(self._shares * self._batches.size_of(batch))
        self._batches.trained(batch + 1)
        super().on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if logs is not None and self.batch_size:
            logs["batch_size"] = self.batch_size[-1]

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        self._batches = None


class MicroBatchController(GradientController):
    """Base of callbacks that compare the gradients g_j of small batches with their mean, which the update uses.

    The optimizer accumulates J = `gradient_accumulation_steps` gradients, so both are there at no cost. At each update,
    `after_statistics` gets the mean of the |g_j|^2 and the square of the mean's norm, with the sizes that go with them: the
    harmonic mean b of those of the J batches, and J b. These are right also for batches of unequal sizes, whose gradients
    Keras weighs alike.
    """

    sets_learning_rate = False
    step_settings = ()
    works_on_replicas = False  # TensorFlow accumulates no gradients there

    saved: tuple[str, ...] = ("sizes",)

    def __init__(self, **options: Any) -> None:
        super().__init__(monitor=("loss",), **options)
        self.sizes: list[int] = []

    def after_statistics(self, small_square: float, big_square: float, small_batch: float, big_batch: float) -> None:
        """After an update."""

    def begin(self) -> None:
        super().begin()
        if self.accumulation_steps < 2:
            raise ValueError(
                f"{type(self).__name__} compares small batches with the mean of several: construct the optimizer with "
                f"gradient_accumulation_steps of at least 2. Received: gradient_accumulation_steps={self.accumulation_steps}"
            )
        self._small = self.add_variable("small")
        self._big = self.add_variable("big")
        self._count = keras_private.iterations(self.optimizer)

    def before_apply(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        is_first = self._count % self.accumulation_steps == 0
        so_far = ops.where(is_first, 0.0, ops.convert_to_tensor(self._small))
        self._small.assign(so_far + global_square(gradients) / self.accumulation_steps)
        self._big.assign(global_square(self.of_update(gradients, variables)))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._applied = self.applied()

    def after_update(self) -> None:
        applied = self.applied()
        if applied == self._applied:
            return  # left out by loss scaling
        self._applied = applied
        self.sizes.append(self._batch_size())
        if applied % self.accumulation_steps == 0:
            sizes, self.sizes = self.sizes, []
            if len(sizes) == self.accumulation_steps:
                small_batch = len(sizes) / sum(1 / size for size in sizes)
                small, big = float(self.read(self._small)), float(self.read(self._big))
                self.after_statistics(small, big, small_batch, len(sizes) * small_batch)

    def _batch_size(self) -> int:
        size = self._batch_values.batch_size
        if not size:
            raise ValueError(
                f"{type(self).__name__} needs the number of samples of each batch, which is not known in a custom loop "
                f"around a model with a custom `train_step`. Received: model={type(self._trainer).__name__}"
            )
        return size


def unbiased(small_square: float, big_square: float, small_batch: float, big_batch: float) -> tuple[float, float]:
    """|G|^2 of the true gradient, and the variance S of that of a sample, summed over all weights:

    |G|^2 = (B |g_B|^2 - b |g_b|^2) / (B - b),   S = (|g_b|^2 - |g_B|^2) / (1/b - 1/B)
    """
    square = (big_batch * big_square - small_batch * small_square) / (big_batch - small_batch)
    variance = (small_square - big_square) / (1 / small_batch - 1 / big_batch)
    return square, variance

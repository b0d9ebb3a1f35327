"""The true loss and learning rate of every update, which Keras' own logs do not have."""

import keras
import numpy as np


class LossRecorder(keras.callbacks.Callback):
    """Records the loss of each batch and the learning rate of each update.

    `logs["loss"]` in a batch callback is the mean over the epoch so far. The loss of the batch itself is the difference of
    the sums behind two such means:

        loss_t = (total_t - total_(t-1)) / (count_t - count_(t-1))

    The sums are float32, so the digits that are left shrink as an epoch grows: about 1e-5 of the loss after 100 updates,
    1e-3 after 10,000.

    Attributes:
        loss: A list, one number an update.
        learning_rate: A list of what each update used.

    Raises:
        ValueError: When `fit` begins, if `steps_per_execution` is above 1, with which Keras reports every so many updates.

    Example:

    >>> recorder = LossRecorder()
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile(keras.optimizers.SGD(0.25), loss="mse")
    >>> history = model.fit(np.ones((3, 1)), np.ones((3, 1)), batch_size=1, verbose=0, callbacks=[recorder])
    >>> recorder.loss
    [1.0, 0.0, 0.0]
    """

    def __init__(self):
        super().__init__()
        self.loss: list[float] = []
        self.learning_rate: list[float] = []

    def on_train_begin(self, logs=None):
        if self.model.steps_per_execution != 1:
            raise ValueError(
                f"LossRecorder needs to see every update. Received: steps_per_execution={self.model.steps_per_execution}"
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._total = self._count = 0.0

    def on_train_batch_begin(self, batch, logs=None):
        self.learning_rate.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    def on_train_batch_end(self, batch, logs=None):
        total, count = self._sums(batch, logs)
        self.loss.append((total - self._total) / (count - self._count))
        self._total, self._count = total, count

    def _sums(self, batch, logs):
        """The epoch's sum of losses so far and the weight behind it."""
        tracker = getattr(self.model, "_loss_tracker", None)  # private in Keras, so there is a way without it
        if tracker is None:
            return logs["loss"] * (batch + 1), batch + 1
        return tuple(float(np.asarray(keras.ops.convert_to_numpy(sum_))) for sum_ in (tracker.total, tracker.count))

"""Training on single batches within `fit`, to be undone afterwards."""

from typing import Any

import keras

from keras_lrsched._core import training_loop
from keras_lrsched.callbacks._batch_values import BatchValues


class TrialTraining:
    """Training on single batches within `fit`; the caller restores what that changes.

    Args:
        model: The model.
        monitor: The name of the value in the logs that counts as the loss.
    """

    def __init__(self, model: keras.Model, monitor: str) -> None:
        self._model, self._monitor = model, monitor
        self._values = BatchValues(monitor)
        self._values.start(model)

    def loss_of(self, batch: Any) -> float:
        """The loss of a batch, which is trained on."""
        self._model.reset_metrics()  # as `train_on_batch` is about to do
        self._values.rebase()
        self._values.before_batch()
        with training_loop.batch_as_given(self._model, batch):
            logs = self._model.train_on_batch(*keras.utils.unpack_x_y_sample_weight(batch), return_dict=True)
        return self._values.read(logs)[self._monitor]

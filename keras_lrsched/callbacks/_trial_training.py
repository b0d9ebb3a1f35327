"""Training on single batches within `fit`, to be undone afterwards."""

import contextlib

import keras

from keras_lrsched.callbacks._batch_values import BatchValues


class TrialTraining:
    """Trains a model on single batches within `fit`; what that changes is for the caller to put back.

    Args:
        model: The model.
        monitor: The name of the value in the logs that counts as the loss.
    """

    def __init__(self, model, monitor):
        self._model, self._monitor = model, monitor
        self._values = BatchValues(monitor)
        self._values.start(model)

    def loss_of(self, batch):
        """The loss of a batch, which is trained on."""
        self._model.reset_metrics()  # as `train_on_batch` is about to do
        self._values.rebase()
        self._values.before_batch()
        with _handing_over(self._model, batch):
            logs = self._model.train_on_batch(*keras.utils.unpack_x_y_sample_weight(batch), return_dict=True)
        return self._values.read(logs)[self._monitor]


@contextlib.contextmanager
def _handing_over(model, batch):
    """Let the training step get a batch as `fit` hands it over.

    `train_on_batch` makes a triple of it, `(x, y, None)`, which a `train_step` of the model's own cannot unpack.
    """
    model.make_train_function()
    train_function = model.train_function

    def train_on_the_same(*arguments):
        *state, data = arguments
        x, *others = next(iter(data))
        batches = [(x, *others)[: len(batch)] if isinstance(batch, tuple) else x]
        return train_function(*state, batches if isinstance(data, list) else iter(batches))  # PyTorch takes a list

    model.train_function = train_on_the_same
    try:
        yield
    finally:
        model.train_function = train_function

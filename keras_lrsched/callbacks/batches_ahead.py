"""The batches that a running `fit` will train on, for training that is tried out before."""

import contextlib
import itertools
import warnings

import keras

from keras_lrsched._core import training_loop
from keras_lrsched.callbacks import data_of_fit
from keras_lrsched.callbacks.batch_values import BatchValues


def data_adapter(name):
    """What stands between `fit` and its data.

    Args:
        name: The name of the callback that needs it.

    Raises:
        ValueError: If the data can be read only once, or there is no `fit`.

    Warns:
        UserWarning: If the data are a `tf.data` pipeline that a further pass changes.
    """
    adapter = getattr(training_loop.epoch_iterator(), "data_adapter", None)
    if adapter is None:
        raise ValueError(
            f"{name} trains on the data of `fit`, so it cannot be used in a training loop of one's own: call `model.fit`. "
            "Received: no running `fit`"
        )
    if type(adapter).__name__ == "GeneratorDataAdapter":
        raise ValueError(
            f"{name} reads the data several times, which a generator's cannot be: give `fit` arrays or a dataset. "
            "Received: a generator"
        )
    changed = data_of_fit.changed_by_a_pass(adapter)
    if changed:
        listed = "; ".join(f"`{path}`, {reason}" for path, reason in changed.items())
        warnings.warn(
            f"{name} makes further passes over the data, which change the batches that `fit` trains on afterwards, as "
            f"another seed would: {listed}",
            stacklevel=4,
        )
    return adapter


def batches_ahead(adapter):
    """An endless iterator: of the very batches that come next, if these are `ScheduledBatches`, else of new passes."""
    dataset = getattr(adapter, "py_dataset", None)
    if dataset is None:
        return itertools.chain.from_iterable(adapter.get_numpy_iterator() for _ in itertools.count())
    if hasattr(dataset, "peek"):
        return (adapter._standardize_batch(dataset.peek(i)) for i in itertools.count())
    size = dataset.num_batches  # `None` for endless data
    return (adapter._standardize_batch(dataset[i % size if size else i]) for i in itertools.count())


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

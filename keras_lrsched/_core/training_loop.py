"""What a running `fit` consists of: its callbacks, its data and its compiled step.

Keras passes neither the data nor the other callbacks to a callback, so they are looked up in the call stack. No other module
reads frames, patches a training step or reorders callbacks.
"""

import functools
import sys
from types import FrameType

import keras

from keras_lrsched._core import keras_private

_LIST = keras.callbacks.CallbackList


def callback_list():
    """The `CallbackList` whose method is running; `None` outside of one."""
    return _nearest(lambda names: _if(names.get("self"), lambda it: isinstance(it, _LIST)))


def callbacks_of_fit():
    """The callbacks of the running `fit`, or of the `CallbackList` whose method is running; none outside of both."""
    found = callback_list() or _nearest(lambda names: _if(names.get("callbacks"), lambda it: isinstance(it, _LIST)))
    return [] if found is None else list(found.callbacks)


def place_first(callback):
    """Lets `callback` be called before all others from the next event on; to be called in `set_model`.

    A callback that is not in the list yet is added to it. Does nothing where there is no `CallbackList`.
    """
    _reorder(callback, lambda others: [callback, *others])


def place_last(callback):
    """Lets `callback` be called after all others, those that Keras adds included; to be called in `set_model`.

    Tools such as KerasTuner and MLflow append callbacks of their own, so that the order in which a user lists them is no
    condition that can be asked for.
    """
    _reorder(callback, lambda others: [*others, callback])


def initial_epoch():
    """The number of the epoch at which the running `fit` begins; 0 outside of `fit`."""
    return _nearest(lambda names: names.get("initial_epoch")) or 0


def is_validation_of_fit():
    """Whether the running `evaluate` is the validation of an epoch in `fit`, and no call by anybody else."""
    callbacks = callback_list()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("callbacks") is callbacks is not None:
            return True
        frame = frame.f_back
    return False


def epoch_iterator():
    """The `EpochIterator` of the running `fit`; `None` outside of `fit`."""
    return _nearest(lambda names: names.get("epoch_iterator") or _if(names.get("self"), _is_epoch_iterator))


def dataset():
    """The `PyDataset` that `fit` was given; `None` for any other data."""
    return getattr(getattr(epoch_iterator(), "data_adapter", None), "py_dataset", None)


def data_adapter(dataset):
    """The adapter between `fit` and a `PyDataset`, while it reads `num_batches`; `None` if something else reads it."""
    return _nearest(lambda names: _if(names.get("self"), lambda it: getattr(it, "py_dataset", None) is dataset))


def is_running(callbacks, frame):
    """Whether a function that has this `CallbackList` as a variable, such as `fit`, has led to `frame`.

    Variables of a module do not count: they outlive a loop that has failed.
    """
    while callbacks is not None and frame is not None:
        if frame.f_locals is not frame.f_globals and any(it is callbacks for it in frame.f_locals.values()):
            return True
        frame = frame.f_back
    return False


def is_building():
    """Whether Keras takes a batch only to build the model (JAX, PyTorch, `tf.distribute`)."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in ("_symbolic_build", "_maybe_symbolic_build"):
            return True
        frame = frame.f_back
    return False


def build(model):
    """Create the variables that the first training step would create: of the model, its metrics, losses and optimizers.

    To be called within `fit`, from `on_train_begin` on. The shapes come from the data of this `fit`; no batch is trained and
    none is taken from the data. On TensorFlow, a model with a `train_step` of its own is built by tracing that step, so that
    an optimizer has the variables that the step gives to it, and no others.

    Raises:
        ValueError: If there are variables to be made, but no running `fit` that has data.
    """
    layers_built = all(layer.built for layer in keras_private.layers_of(model))
    optimizer_built = model.optimizer is None or model.optimizer.built
    if layers_built and optimizer_built and keras_private.is_compiled_part_built(model):
        return
    own_step = keras_private.trains_by_own_step(model)
    if own_step and keras.backend.backend() != "tensorflow":
        return  # Keras builds all but the optimizer on JAX and PyTorch; there, the step is plain Python
    if layers_built and not own_step and not optimizer_built and keras_private.is_compiled_part_built(model):
        model.optimizer.build(model.trainable_variables)
        return
    iterator = epoch_iterator()
    if iterator is None:
        raise ValueError(f"Call the model on data first: it has no weights yet. Received: model={model.name!r}, not built")
    spec = keras_private.element_spec(iterator)
    if own_step:
        _trace(model, spec)
    else:
        keras_private.build_symbolically(model, spec)


def _trace(model, spec):
    """Trace the training step of TensorFlow for batches of a specification."""
    import tensorflow as tf

    loop = None if model.run_eagerly else keras_private.compiled_loop(model)
    if loop is not None:
        loop.get_concrete_function(tf.data.IteratorSpec(spec))  # the trace that `fit` will use
    else:
        tf.function(model.train_step, autograph=False).get_concrete_function(spec)


def watch_batch_size(model):
    """Something whose `read()` is the number of samples of the last batch that `fit` has trained, or 0 if it is not known.

    To be called within `fit`, in `on_train_begin`; for models with a `train_step` of their own, of which nothing is known.
    The number is the length of the first axis of the first array of the batch, of all replicas and processes together. On
    TensorFlow the compiled step stores it; on JAX and PyTorch, where a batch is fetched before its step, it is read there.
    """
    if keras.backend.backend() == "tensorflow":
        return _watch_step(model)
    iterator = epoch_iterator()
    watch = keras_private.batch_watcher(iterator)
    if watch is None:
        watch = _BatchSize()
        if iterator is not None:
            keras_private.watch_batches(iterator, watch)
    return watch


class _BatchSize:
    size = 0

    def __call__(self, batch):
        self.size = next(part.shape[0] for part in keras.tree.flatten(batch) if part is not None and len(part.shape))

    def read(self):
        return int(self.size)


def _watch_step(model):
    """Let the training step of TensorFlow store the size of its batch."""
    import tensorflow as tf

    original = model.train_step
    watch = getattr(original, "batch_size", None)
    if watch is not None:
        return watch
    with model.distribute_strategy.scope():
        size = tf.Variable(
            0,
            trainable=False,
            dtype="int64",
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )

    @functools.wraps(original)
    def train_step(data):
        size.assign(tf.cast(_samples(data), "int64"))
        return original(data)

    vars(train_step).update(batch_size=_StoredSize(size))
    vars(model)["train_step"] = train_step
    model.make_train_function(force=True)
    return train_step.batch_size


class _StoredSize:
    def __init__(self, variable):
        self.variable = variable

    def read(self):
        return int(self.variable.read_value().numpy())


def _samples(batch):
    import tensorflow as tf

    part = next(part for part in keras.tree.flatten(batch) if part is not None and part.shape.rank != 0)
    if isinstance(part, tf.RaggedTensor):
        return part.nrows()
    return part.dense_shape[0] if isinstance(part, tf.SparseTensor) else tf.shape(part)[0]


def _reorder(callback, ordered):
    callbacks = callback_list()
    if callbacks is not None:  # a new list, since Keras is iterating over the old one
        callbacks.callbacks = ordered([it for it in callbacks.callbacks if it is not callback])


def _nearest(find):
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        found = find(frame.f_locals)
        if found is not None:
            return found
        frame = frame.f_back
    return None


def _if(it, condition):
    return it if condition(it) else None


def _is_epoch_iterator(it):
    return hasattr(it, "data_adapter") and hasattr(it, "steps_per_epoch")

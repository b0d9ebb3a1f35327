"""What a running `fit` consists of: its callbacks, its data and its compiled step.

Keras passes neither the data nor the other callbacks to a callback, so they are looked up in the call stack. No other module
reads frames, patches a training step or reorders callbacks.
"""

import contextlib
import functools
import sys
from types import FrameType
from typing import Any

import keras

from keras_lrsched._core import keras_private
from keras_lrsched._core.control_flow import after

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


def optimizers_of(model):
    """The optimizers of a model by their paths: `"optimizer"`, `"d_optimizer"`, `"optimizers.0"`, `"critic.optimizer"`, ...

    Those that its attributes hold, also in lists and dictionaries, and those of models that are attributes. An optimizer
    that is wrapped around others stands for them. None occurs twice.
    """
    attributes = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    if hasattr(model, "named_children"):  # PyTorch keeps models in a dictionary of its own
        attributes |= {name: value for name, value in model.named_children() if not name.startswith("_")}
    found: dict[str, Any] = {}
    for path, optimizer in [("optimizer", model.optimizer), *_optimizers_in(attributes)]:
        if optimizer is not None and all(optimizer is not it for it in found.values()):
            found[path] = optimizer
    return found


def other_optimizers(model):
    """The paths of the optimizers of a model beside `model.optimizer` and those inside of it."""
    mine, inner = [], model.optimizer
    while inner is not None:
        mine.append(inner)
        inner = getattr(inner, "inner_optimizer", None)
    return [path for path, each in optimizers_of(model).items() if all(each is not it for it in mine)]


def _optimizers_in(attributes):
    for name, value in attributes.items():
        parts = dict(enumerate(value)) if isinstance(value, (list, tuple)) else value
        items = [(f"{name}.{key}", it) for key, it in parts.items()] if isinstance(parts, dict) else [(name, value)]
        for path, it in items:
            if isinstance(it, keras.optimizers.Optimizer):
                yield path, it
            elif isinstance(it, keras.Model):
                yield f"{path}.optimizer", getattr(it, "optimizer", None)


def waiting_epoch_iterator():
    """The `EpochIterator` of a `fit` that waits for the batch that another thread is about to read; `None` without one.

    TensorFlow reads data in threads of its own, in whose stack there is no `fit`. A `fit` that looks at data only to learn
    their shapes, or whose callback does so, does not count.
    """
    for frame in sys._current_frames().values():
        if not _looks_ahead(frame):
            found = _epoch_iterator_of_fit(frame)
            if found is not None:
                return found
    return None


def probing_adapter():
    """The data adapter that reads the first batches to learn their shapes, in any thread, as Keras' for Grain does."""
    for innermost in sys._current_frames().values():
        frame: FrameType | None = innermost
        while frame is not None:
            if frame.f_code.co_name == "_get_dataset_info":
                return frame.f_locals["self"]
            frame = frame.f_back
    return None


def is_looking_ahead():
    """Whether Keras, in any thread, reads data for something else than training: to learn their shapes, to evaluate."""
    return any(map(_looks_ahead, sys._current_frames().values()))


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


# Hooks in the training step. A hook is any object; while it is at work, methods that the step calls are patched. It may have
# a `step_key`, which equals that of another hook if both make the same step and is `None` otherwise, and `step_variables`, a
# dictionary by name of those that the compiled step has for it. A method `in_step` gets the arguments of `train_step`, and
# returns a context in which each step is run or traced; `after_step` gets what the step returns. Its method `leave_step`
# calls `remove_hook`.


def hooks(model):
    """The hooks that are at work in the training step of a model, in the order in which they were added."""
    record = vars(model).get(_HOOKS)
    return [] if record is None else list(record.hooks)


def add_hook(model, hook):
    """Let a hook be at work in the training step of a model; `make_step` has to follow."""
    if _HOOKS not in vars(model):
        vars(model)[_HOOKS] = _Hooks(model)
        patch(model, model, "train_step", _step_with_hooks(model))
    vars(model)[_HOOKS].hooks.append(hook)


def is_patched(model, owner, name):
    """Whether `patch` has been called for a method since the first hook was added."""
    return any(each is owner and method == name for each, method, _ in vars(model)[_HOOKS].patches)


def patch(model, owner, name, function):
    """Put a function in the place of a method, until the last hook is removed."""
    vars(model)[_HOOKS].patches.append((owner, name, vars(owner).get(name)))
    vars(owner)[name] = function


def variables_to_reuse(model, hook):
    """The variables, by name, that an equal hook had in the last `fit`, whose compiled step may be used again."""
    record = vars(model)[_HOOKS]
    place = record.hooks.index(hook)
    keys = record.reusable.keys if record.reusable is not None else []
    return record.reusable.variables[place] if place < len(keys) and keys[place] == _key(hook) else {}


def make_step(model):
    """Let Keras make the compiled step anew, or use that of the last `fit` if its hooks were equal.

    To be called when a hook has been added and has its variables: on JAX with several devices a step is compiled for the
    variables that the optimizer has by then.
    """
    record = vars(model)[_HOOKS]
    if model.train_function is not record.function:  # somebody else has let it be made anew
        record.reusable = None
    record.keys = [_key(hook) for hook in record.hooks]
    if record.reusable is not None and record.reusable.keys == record.keys:
        model.train_function = record.reusable.function
    else:
        model.make_train_function(force=True)
    record.function = model.train_function


def is_step_reused(model):
    """Whether the compiled step is that of the last `fit`, so that hooks may not be called any more."""
    record = vars(model)[_HOOKS]
    return record.reusable is not None and model.train_function is record.reusable.function


def remove_hook(model, hook):
    """Undo `add_hook`, and with the last hook all of `patch`."""
    record = vars(model).get(_HOOKS)
    if record is None or hook not in record.hooks:
        return
    if record.step is None:
        record.step = _reusable_step(model, record)
    record.hooks.remove(hook)
    if record.hooks:
        return
    for owner, name, previous in reversed(record.patches):
        if previous is None:
            del vars(owner)[name]
        else:
            vars(owner)[name] = previous
    del vars(model)[_HOOKS]
    model.train_function = record.step


def remove_left_hooks(model):
    """Remove the hooks of a `fit` that did not end; to be called in `set_model`."""
    for hook in hooks(model):
        hook.leave_step()


_HOOKS = "_hooks_of_step"


class _Hooks:
    """The hooks of a model while `fit` runs, and what was patched for them."""

    def __init__(self, model):
        self.hooks: list = []
        self.patches: list[tuple] = []
        self.function = model.train_function
        self.keys: list = []
        self.reusable = self.function if isinstance(self.function, _ReusableStep) else None
        self.step = None
        """What is left of the compiled step, from the removal of the first hook on."""


class _ReusableStep:
    """What a model has in the place of a compiled step after a `fit` with hooks.

    Called as the step, by a `fit` without hooks, it lets Keras make its own. For the next `fit` with equal hooks it holds
    theirs, which need not be traced once more. Whatever makes Keras trace anew, such as `compile`, drops it.
    """

    def __init__(self, model, function, keys, variables):
        self.model, self.function, self.keys, self.variables = model, function, keys, variables

    def __call__(self, *args):
        self.model.make_train_function(force=True)
        return self.model.train_function(*args)


def _step_with_hooks(model):
    original = model.train_step

    @functools.wraps(original)
    def train_step(*args, **kwargs):
        with contextlib.ExitStack() as stack:
            # Where something is waited for, variables cannot be made.
            if (model.optimizer is None or model.optimizer.built) and keras_private.is_compiled_part_built(model):
                stack.enter_context(after(args))
            for hook in hooks(model):
                if hasattr(hook, "in_step"):
                    stack.enter_context(hook.in_step(args))
            result = original(*args, **kwargs)
        for hook in hooks(model):
            if hasattr(hook, "after_step"):
                hook.after_step(result)
        return result

    return train_step


def _reusable_step(model, record):
    """`None` where nothing is compiled, where it was for other hooks, or where it cannot be made in the middle of `fit`."""
    if keras.backend.backend() == "torch" or keras.distribution.distribution() is not None:
        return None
    if model.train_function is not record.function or None in record.keys or len(record.keys) != len(record.hooks):
        return None
    variables = [dict(getattr(hook, "step_variables", {})) for hook in record.hooks]
    return _ReusableStep(model, record.function, record.keys, variables)


def _key(hook):
    return getattr(hook, "step_key", None)


def trace(model):
    """Trace the compiled training step of TensorFlow before its first batch, within `fit`; does nothing elsewhere."""
    iterator = epoch_iterator()
    if keras.backend.backend() == "tensorflow" and iterator is not None and not model.run_eagerly:
        _trace(model, keras_private.element_spec(iterator))


def _trace(model, spec):
    """Trace the training step of TensorFlow for batches of a specification."""
    import tensorflow as tf

    loop = None if model.run_eagerly else keras_private.compiled_loop(model)
    if loop is not None:
        loop.get_concrete_function(tf.data.IteratorSpec(spec))  # the trace that `fit` will use
    else:
        tf.function(model.train_step, autograph=False).get_concrete_function(spec)


def watch_metric_resets(model):
    """Something whose `number` counts how often the metrics of a model are reset, from now to the end of the training.

    In a training loop of one's own, `train_on_batch` resets them at each call, which `fit` does between epochs only.
    """
    watch = vars(model).get("reset_metrics")
    if not isinstance(watch, _CountsResets):
        watch = _CountsResets(model)
        place_last(watch)
    return watch


class _CountsResets(keras.callbacks.Callback):
    """Stands in for `model.reset_metrics`."""

    def __init__(self, model):
        super().__init__()
        self.number = 0
        self._reset = model.reset_metrics
        vars(model)["reset_metrics"] = self

    def __call__(self):
        self.number += 1
        self._reset()

    def on_train_end(self, logs=None):
        vars(self._reset.__self__).pop("reset_metrics", None)


def watch_batch_size(model):
    """Something whose `read()` is the number of samples of the last batch that `fit` has trained, or 0 if it is not known.

    To be called within `fit`, in `on_train_begin`; for models with a `train_step` of their own, of which nothing is known.
    The number is the length of the first axis of the first array of the batch, of all replicas and processes together. On
    TensorFlow the compiled step stores it; on JAX and PyTorch, where a batch is fetched before its step, it is read there.

    What it has to do ends with `fit`, if a `CallbackList` is running.
    """
    if keras.backend.backend() != "tensorflow":
        return _watch_data()
    watch = next((hook for hook in hooks(model) if isinstance(hook, _StoresBatchSize)), None)
    if watch is None:
        watch = _StoresBatchSize(model)
    if not any(isinstance(it, _LeavesStep) and it.hook is watch for it in callbacks_of_fit()):
        place_first(_LeavesStep(watch))
    return watch


def _watch_data():
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


class _StoresBatchSize:
    """A hook in the training step of TensorFlow.

    Attributes:
        checks: Functions of what the step logs, which may raise while the step is traced, before anything is trained.
    """

    def __init__(self, model):
        import tensorflow as tf

        self.step_key = (type(self),)
        self.checks: list = []
        self._model = model
        add_hook(model, self)
        self._size = variables_to_reuse(model, self).get("size")
        if self._size is None:
            with model.distribute_strategy.scope():
                self._size = tf.Variable(
                    0,
                    trainable=False,
                    dtype="int64",
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.SUM,
                )
        self.step_variables = {"size": self._size}
        make_step(model)

    @contextlib.contextmanager
    def in_step(self, args):
        self._size.assign(_samples(args))
        yield

    def after_step(self, logs):
        for check in self.checks:
            check(logs)

    def read(self):
        return int(self._size.read_value().numpy())

    def leave_step(self):
        remove_hook(self._model, self)


class _LeavesStep(keras.callbacks.Callback):
    """Takes a hook out of the training step when `fit` ends."""

    def __init__(self, hook):
        super().__init__()
        self.hook = hook

    def on_train_end(self, logs=None):
        self.hook.leave_step()

    def state(self):
        return {}

    def restore_state(self, state):
        pass


def _samples(batch):
    import tensorflow as tf

    part = next(part for part in keras.tree.flatten(batch) if part is not None and part.shape.rank != 0)
    if isinstance(part, tf.RaggedTensor):
        size = part.nrows()
    else:
        size = part.dense_shape[0] if isinstance(part, tf.SparseTensor) else tf.shape(part)[0]
    return tf.cast(size, "int64")


def _looks_ahead(frame):
    while frame is not None:
        if frame.f_code.co_name in ("_symbolic_build", "_maybe_symbolic_build", "_get_dataset_info"):
            return True
        if isinstance(frame.f_locals.get("self"), keras.callbacks.CallbackList):
            return True
        if frame.f_code.co_name in ("evaluate", "predict") and "epoch_iterator" in frame.f_locals:
            return True
        frame = frame.f_back
    return False


def _epoch_iterator_of_fit(frame):
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("epoch_iterator") is not None:
            return frame.f_locals["epoch_iterator"]
        frame = frame.f_back
    return None


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

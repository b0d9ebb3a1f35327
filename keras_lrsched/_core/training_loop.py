"""What a running `fit` consists of: its callbacks, its data and its compiled step.

Keras passes neither the data nor the other callbacks to a callback, so they are looked up in the call stack. No other module
reads frames, patches a training step or reorders callbacks.
"""

import sys
from types import FrameType

import keras


def callback_list():
    """The `CallbackList` whose method is running; `None` outside of one."""
    return _nearest(lambda names: _if(names.get("self"), lambda it: isinstance(it, keras.callbacks.CallbackList)))


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


def epoch_iterator():
    """The `EpochIterator` of the running `fit`; `None` outside of `fit`."""
    return _nearest(lambda names: names.get("epoch_iterator") or _if(names.get("self"), _is_epoch_iterator))


def dataset():
    """The `PyDataset` that `fit` was given; `None` for any other data."""
    return getattr(getattr(epoch_iterator(), "data_adapter", None), "py_dataset", None)


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

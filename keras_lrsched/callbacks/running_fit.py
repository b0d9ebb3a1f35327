"""What a running `fit` is made of. Keras tells callbacks and data sets nothing of each other, so the call stack is asked."""

import sys
from types import FrameType

import keras


def callback_list():
    """The `CallbackList` whose method is being run."""
    return _nearest(lambda names: _if(names.get("self"), lambda it: isinstance(it, keras.callbacks.CallbackList)))


def epoch_iterator():
    """What `fit` draws its batches from; `None` outside of `fit`."""
    return _nearest(lambda names: names.get("epoch_iterator") or _if(names.get("self"), _is_epoch_iterator))


def dataset():
    """The `PyDataset` that `fit` was given; `None` for any other data."""
    return getattr(getattr(epoch_iterator(), "data_adapter", None), "py_dataset", None)


def is_building():
    """Whether Keras only looks at a batch so as to build the model (JAX, PyTorch, `tf.distribute`)."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in ("_symbolic_build", "_maybe_symbolic_build"):
            return True
        frame = frame.f_back
    return False


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

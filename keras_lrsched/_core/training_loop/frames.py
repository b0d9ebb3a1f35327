"""The callbacks and the data of a running `fit`, read from the call stack.

Keras passes neither the data nor the other callbacks to a callback. No other module reads frames.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import keras

from keras_lrsched._core import keras_private

_LIST = keras.callbacks.CallbackList


def callback_list() -> keras.callbacks.CallbackList | None:
    """The `CallbackList` whose method is running; `None` outside of one."""
    return _nearest(lambda names: _if(names.get("self"), lambda it: isinstance(it, _LIST)))


def callbacks_of_fit() -> list[keras.callbacks.Callback]:
    """The callbacks of the running `fit`, or of the `CallbackList` whose method is running; none outside of both."""
    found = callback_list() or _nearest(lambda names: _if(names.get("callbacks"), lambda it: isinstance(it, _LIST)))
    return [] if found is None else list(found.callbacks)


def place_first(callback: keras.callbacks.Callback) -> None:
    """Let `callback` be called before all others from the next event on; to be called in `set_model`.

    A callback that is not in the list yet is added to it. Does nothing where there is no `CallbackList`.
    """
    _reorder(callback, lambda others: [callback, *others])


def place_last(callback: keras.callbacks.Callback) -> None:
    """Let `callback` be called after all others, those that Keras adds included; to be called in `set_model`.

    Tools such as KerasTuner and MLflow append callbacks of their own, so that the order in which a user lists them is no
    requirement that can be made.
    """
    _reorder(callback, lambda others: [*others, callback])


def initial_epoch() -> int:
    """The number of the epoch at which the running `fit` begins; 0 outside of `fit`."""
    return _nearest(lambda names: names.get("initial_epoch")) or 0


def is_validation_of_fit() -> bool:
    """Return `True` if the running `evaluate` is the validation of an epoch in `fit`, and not a call from elsewhere."""
    callbacks = callback_list()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("callbacks") is callbacks is not None:
            return True
        frame = frame.f_back
    return False


def epoch_iterator() -> Any:
    """The `EpochIterator` of the running `fit`; `None` outside of `fit`."""
    return _nearest(lambda names: names.get("epoch_iterator") or _if(names.get("self"), _is_epoch_iterator))


def dataset() -> Any:
    """The `PyDataset` that `fit` was given; `None` for any other data."""
    return getattr(getattr(epoch_iterator(), "data_adapter", None), "py_dataset", None)


def data_adapter(dataset: Any) -> Any:
    """The adapter between `fit` and a `PyDataset`, while it reads `num_batches`; `None` if something else reads it."""
    return _nearest(lambda names: _if(names.get("self"), lambda it: getattr(it, "py_dataset", None) is dataset))


def is_running(callbacks: Any, frame: FrameType | None) -> bool:
    """Return `True` if a function that has this `CallbackList` as a variable, such as `fit`, has led to `frame`.

    Variables of a module do not count: they outlive a loop that has failed.
    """
    while callbacks is not None and frame is not None:
        if frame.f_locals is not frame.f_globals and any(it is callbacks for it in frame.f_locals.values()):
            return True
        frame = frame.f_back
    return False


def waiting_epoch_iterator() -> Any:
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


def probing_adapter() -> Any:
    """The data adapter that reads the first batches to learn their shapes, in any thread, as Keras' for Grain does."""
    for innermost in sys._current_frames().values():
        frame: FrameType | None = innermost
        while frame is not None:
            if frame.f_code.co_name == keras_private.PROBING:
                return frame.f_locals["self"]
            frame = frame.f_back
    return None


def is_looking_ahead() -> bool:
    """Return `True` if Keras, in any thread, reads data for another purpose than training: for their shapes, to evaluate."""
    return any(map(_looks_ahead, sys._current_frames().values()))


def phase() -> str | None:
    """The innermost running step of a Keras model: `"train"`, `"test"` or `"predict"`; `None` outside of all."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name, _, rest = frame.f_code.co_name.partition("_")
        if rest == "step" and name in ("train", "test", "predict") and isinstance(frame.f_locals.get("self"), keras.Model):
            return name
        frame = frame.f_back
    return None


def is_building() -> bool:
    """Return `True` if Keras takes a batch only to build the model (JAX, PyTorch, `tf.distribute`)."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in keras_private.BUILDING:
            return True
        frame = frame.f_back
    return False


def is_exporting() -> bool:
    """Return `True` if the call stack has led here from an exporter: of Keras, TensorFlow, LiteRT, ONNX, JAX or PyTorch."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(keras_private.EXPORTERS):
            return True
        frame = frame.f_back
    return False


def _looks_ahead(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in (*keras_private.BUILDING, keras_private.PROBING):
            return True
        if isinstance(frame.f_locals.get("self"), keras.callbacks.CallbackList):
            return True
        if frame.f_code.co_name in ("evaluate", "predict") and "epoch_iterator" in frame.f_locals:
            return True
        frame = frame.f_back
    return False


def _epoch_iterator_of_fit(frame: FrameType | None) -> Any:
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("epoch_iterator") is not None:
            return frame.f_locals["epoch_iterator"]
        frame = frame.f_back
    return None


def _reorder(callback: keras.callbacks.Callback, ordered: Callable) -> None:
    callbacks = callback_list()
    if callbacks is not None:  # a new list, since Keras is iterating over the old one
        callbacks.callbacks = ordered([it for it in callbacks.callbacks if it is not callback])


def _nearest(find: Callable) -> Any:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        found = find(frame.f_locals)
        if found is not None:
            return found
        frame = frame.f_back
    return None


def _if(it: Any, condition: Callable) -> Any:
    return it if condition(it) else None


def _is_epoch_iterator(it: Any) -> bool:
    return hasattr(it, "data_adapter") and hasattr(it, "steps_per_epoch")

"""Residuals of a forward pass: codes, and not the wider numbers that they stand for."""

from collections.abc import Callable

from keras import ops

from keras_lrsched._core import backends
from keras_lrsched._core.training_loop import is_exporting


def custom_gradient(function: Callable) -> Callable:
    """As `keras.ops.custom_gradient`, but arguments are no residuals on PyTorch, either; and see `unless_exporting`."""
    return _forward(function) if is_exporting() else backends.custom_gradient(function)


def unless_exporting(function: Callable) -> Callable:
    """As `keras.ops.custom_gradient`; while a model is exported, the forward pass alone, for exports are for inference.

    A SavedModel would have the whole backward pass beside it.
    """
    return _forward(function) if is_exporting() else ops.custom_gradient(function)


def _forward(function):
    return lambda *args: function(*args)[0]

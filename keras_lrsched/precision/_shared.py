"""Functions that a graph of TensorFlow holds once, and calls.

A quantizer in plain operations has hundreds of them, and a model dozens of quantizers: as parts of one graph, they would
take minutes and gigabytes to be traced and optimized.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import keras

from keras_lrsched._core.training_loop import is_exporting


def shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function without state or gradient: of tensors, sizes or `None` by position, of settings by keyword."""

    @functools.wraps(function)
    def call(*tensors: Any, **settings: Hashable) -> Any:
        if not _is_in_graph():
            return function(*tensors, **settings)
        return _graph_function(function, tuple(sorted(settings.items())))(*tensors)

    return call


def _is_in_graph() -> bool:
    if keras.backend.backend() != "tensorflow" or is_exporting():  # converters have operations, not calls
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


@functools.cache
def _graph_function(function: Callable[..., Any], settings: tuple[tuple[str, Hashable], ...]) -> Callable[..., Any]:
    """One graph for each signature: with the same settings, dtypes and shapes."""
    import tensorflow as tf

    options = {"autograph": False, "experimental_attributes": {"_noinline": True}}
    return tf.function(functools.partial(function, **dict(settings)), **options)

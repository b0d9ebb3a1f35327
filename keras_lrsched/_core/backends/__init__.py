"""Functions that differ between the backends of Keras, from the module of the running one.

The three modules define the same functions, which a test compares; `tensorflow.py` documents them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_lrsched._core.backends.variables import raw_variable

if TYPE_CHECKING or keras.backend.backend() == "tensorflow":
    from keras_lrsched._core.backends.tensorflow import *
elif keras.backend.backend() == "jax":
    from keras_lrsched._core.backends.jax import *
else:
    from keras_lrsched._core.backends.torch import *


def gradient(function: Callable, values: list) -> list:
    """Return the gradient of the scalar `function(values)`: a tensor for each of the values."""
    return value_and_gradient(lambda at: (function(at),), values)[1]


def view(x: Any, dtype: str) -> Any:
    """Return `x` with its bits read as another dtype of the same size, whatever its shape.

    That is `ops.view` since Keras 3.12, which needs a last axis of known size, and before 3.15 an axis at all.
    """
    if not hasattr(ops, "view"):
        return bitcast(x, dtype)
    if not len(x.shape) or x.shape[-1] is None:
        return ops.squeeze(ops.view(ops.expand_dims(x, -1), dtype), -1)
    return ops.view(x, dtype)

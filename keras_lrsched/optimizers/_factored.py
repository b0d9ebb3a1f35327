"""A second moment that is kept as the means of its rows and columns: what Adafactor and AdaLomo share."""

from typing import Any

from keras import ops

from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._update_context import OptimizerState

LARGEST = 1e16
"""The largest entry of a gradient that counts with its own size; that of larger ones is this."""


def add_factors(optimizer: Any, variable: Variable) -> dict[str, Any]:
    """State for the means over the last axis and over the one before, of each matrix that a variable is a stack of.

    A variable with less than two axes has a mean for each entry.
    """
    shape = tuple(variable.shape)
    if len(shape) < 2:
        return {"v": optimizer.add_state(variable, "v")}
    return {
        "rows": optimizer.add_state(variable, "rows", shape=shape[:-1]),
        "columns": optimizer.add_state(variable, "columns", shape=(*shape[:-2], shape[-1])),
    }


def normalize(g: Tensor, state: OptimizerState, rate: Tensor, epsilon: float, clip_threshold: float) -> Tensor:
    """g over the root of its second moment, scaled down to a root mean square of at most `clip_threshold`.

    Args:
        g: The gradient.
        state: What `add_factors` made; they are updated.
        rate: The weight of this gradient in the means.
        epsilon: Added to its square.
        clip_threshold: A number.
    """
    # Larger ones have squares, or sums of squares, that are no float32. Scaled down, they have the same u at first.
    g = g * ops.minimum(1.0, LARGEST / ops.maximum(ops.max(ops.abs(g)), 1.0))
    square = ops.square(g) + epsilon

    def updated(old: Tensor, new: Tensor) -> Tensor:
        return (1 - rate) * old + rate * new

    if "v" in state:
        state.v = updated(state.v, square)
        u = g * ops.rsqrt(state.v)
    else:
        state.rows = updated(state.rows, ops.mean(square, axis=-1))
        state.columns = updated(state.columns, ops.mean(square, axis=-2))
        # One root at a time: the product of two means of 1e-30 is no float32.
        rows = ops.rsqrt(state.rows / ops.mean(state.rows, axis=-1, keepdims=True))
        u = g * ops.expand_dims(rows, -1) * ops.expand_dims(ops.rsqrt(state.columns), -2)
    return u / ops.maximum(1.0, rms(u) / clip_threshold)


def rms(x: Tensor) -> Tensor:
    """The root mean square over the whole tensor."""
    return ops.sqrt(ops.mean(ops.square(x)))

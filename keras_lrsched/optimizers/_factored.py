"""A second moment that is kept as the means of its rows and columns: what Adafactor and AdaLomo share."""

from typing import Any

from keras import ops

from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._update_context import OptimizerState

LARGEST = 1e16
"""The largest entry of a gradient that counts with its own size; that of larger ones is this."""


def add_factors(optimizer: Any, variable: Variable, prefix: str = "", least: int = 0) -> dict[str, Any]:
    """State for the means over the last axis and over the one before, of each matrix that a variable is a stack of.

    A variable with less than two axes, or with one of the last two shorter than `least`, has a mean for each entry.
    """
    shape = tuple(variable.shape)
    is_whole = len(shape) < 2 or min(shape[-2:]) < least
    shapes = {"v": shape} if is_whole else {"rows": shape[:-1], "columns": (*shape[:-2], shape[-1])}
    return {prefix + name: optimizer.add_state(variable, prefix + name, shape=its) for name, its in shapes.items()}


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
    u = g * inverse_root(ops.square(g) + epsilon, state, rate)
    return u / ops.maximum(1.0, rms(u) / clip_threshold)


def inverse_root(square: Tensor, state: OptimizerState, rate: Tensor, prefix: str = "") -> Tensor:
    """1 over the root of the mean of squares, from its factors, which are moved towards those of `square` by `rate`."""

    def moved(name: str, new: Tensor) -> Tensor:
        setattr(state, prefix + name, (1 - rate) * getattr(state, prefix + name) + rate * new)
        return getattr(state, prefix + name)

    if prefix + "v" in state:
        return ops.rsqrt(moved("v", square))
    rows, columns = moved("rows", ops.mean(square, axis=-1)), moved("columns", ops.mean(square, axis=-2))
    # One root at a time: the product of two means of 1e-30 is no float32.
    of_rows = ops.rsqrt(rows / ops.mean(rows, axis=-1, keepdims=True))
    return ops.expand_dims(of_rows, -1) * ops.expand_dims(ops.rsqrt(columns), -2)


def rms(x: Tensor) -> Tensor:
    """The root mean square over the whole tensor."""
    return ops.sqrt(ops.mean(ops.square(x)))

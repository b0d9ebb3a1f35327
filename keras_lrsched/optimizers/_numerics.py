"""Pieces of the formulas that many update rules share."""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_lrsched._core.types import Tensor


def average(beta: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """The moving average: beta old + (1 - beta) new."""
    return beta * old + (1 - beta) * new


def bias_correction(beta: Tensor, t: Tensor) -> Any:
    """1 - beta^t. As `expm1`, because 1 - 0.999^1 in float32 keeps only four digits."""
    if not isinstance(beta, float):  # a tensor, from a schedule
        return -ops.expm1(t * ops.log(beta))
    return -ops.expm1(t * math.log(beta)) if beta else 1.0


def sign(x: Tensor) -> Tensor:
    """The sign; NaN for NaN also on PyTorch, which returns 0, which would hide that a run is broken."""
    return ops.where(ops.isnan(x), x, ops.sign(x))


def norm(x: Tensor) -> Tensor:
    """The L2 norm over the whole tensor."""
    return ops.sqrt(ops.sum(ops.square(x)))


def matrix_norm(x: Tensor) -> Tensor:
    """The L2 norm of a matrix, or of each of several, (..., rows, columns), with axes of length 1 in their place."""
    return norm(x) if len(x.shape) == 2 else ops.sqrt(ops.sum(ops.square(x), axis=(-2, -1), keepdims=True))


def global_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm over all tensors together."""
    return ops.sqrt(sum(ops.sum(ops.square(x)) for x in tensors))


def sum_of_sizes(x: Tensor) -> Tensor:
    """The L1 norm over the whole tensor, in float32."""
    return ops.cast(ops.sum(ops.abs(x)), "float32")


def dot(x: Tensor, y: Tensor) -> Tensor:
    """The inner product over the whole tensors, in float32."""
    return ops.cast(ops.sum(x * y), "float32")

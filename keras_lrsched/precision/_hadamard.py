"""Hadamard transforms of groups along an axis: outliers spread over their group, and matrix products do not change."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.philox import random_bits
from keras_lrsched._core.registry import register

SIZES = (16, 32, 128)
NEGLIGIBLE = 2.0**-98
NVFP4_SIGNS = (1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, -1)
"""The signs that the recipe for NVFP4 uses with transforms of 16."""


@register(
    title="Hadamard transforms of groups",
    paper="arXiv:2404.00456",
    code=("NVIDIA/TransformerEngine",),
    checked="vectors",
    against="rotated numbers of NVIDIA/TransformerEngine; the signs are those of arXiv:2509.25149",
    kind="rotation",
)
def hadamard(x: Any, size: int = 128, axis: int = -1, signs: Any = None, inverse: bool = False) -> Any:
    """Each group of `size` numbers along `axis`, times an orthonormal Hadamard matrix.

        x diag(signs) H / sqrt(size),  H = [[H', H'], [H', -H']]

    The result has the same bits on every backend: the sums are taken in one order, in float32, and numbers below 2^-98 count
    as zero, so that no sum is one that compilers would flush.

    Args:
        x: A floating-point tensor.
        size: 16, 32 or 128; must divide the size of the axis. Defaults to `128`.
        axis: Defaults to `-1`.
        signs: As many numbers 1 or -1 as `size`, such as `random_signs(size, seed)`. Defaults to `None`: all 1.
        inverse: Whether to undo the transform: x H diag(signs) / sqrt(size). Defaults to `False`.

    Raises:
        ValueError: If an argument is none of these.

    Reference:
        Ashkboos et al., QuaRot, arXiv:2404.00456; NVIDIA, arXiv:2509.25149, for the signs.

    Example:

    >>> x = keras.ops.concatenate([keras.ops.array([[4.0]]), keras.ops.zeros((1, 15))], axis=1)
    >>> keras.ops.convert_to_numpy(hadamard(x, size=16))[0, :3]
    array([1., 1., 1.], dtype=float32)
    """
    x = ops.convert_to_tensor(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    if "float" not in dtype:
        raise ValueError(f"`x` must be a floating-point tensor. Received: dtype={dtype}")
    signs = checked_signs(x, size, axis, signs)
    x = ops.moveaxis(ops.cast(x, "float32"), axis, -1)
    x = x - ops.stop_gradient(ops.where(ops.absolute(x) < NEGLIGIBLE, x, 0.0))
    shape = ops.shape(x)
    x = ops.reshape(x, (*shape[:-1], shape[-1] // size, size))
    x = x if inverse else x * signs
    x = _butterfly(x, size) * float(np.float32(size**-0.5))
    x = x * signs if inverse else x
    x = ops.where(ops.isnan(x), float("nan"), x)  # one NaN for all, whose sign would depend on the order of operands
    return ops.cast(ops.moveaxis(ops.reshape(x, shape), -1, axis), dtype)


def checked_signs(x: Any, size: int, axis: int, signs: Any) -> Any:
    """The signs of a transform as a float32 tensor, if the transform fits the axis of `x`."""
    validation.one_of("size", size, SIZES)
    columns = x.shape[axis]
    if columns is not None and (not columns or columns % size):
        raise ValueError(f"`size` must divide the axis. Received: size={size}, shape={tuple(x.shape)}")
    signs = ops.ones((size,), "float32") if signs is None else ops.convert_to_tensor(signs, "float32")
    if tuple(signs.shape) != (size,):
        raise ValueError(f"`signs` must hold {size} numbers. Received: shape={tuple(signs.shape)}")
    return signs


def random_signs(size: int, seed: Any) -> Any:
    """`size` numbers 1 or -1, in float32, from a seed.

    Args:
        size: How many.
        seed: An integer, a `keras.random.SeedGenerator`, or a tensor of two 32-bit integers; see `quantize`.

    Raises:
        ValueError: If an argument is none of these.

    Example:

    >>> random_signs(8, seed=1).shape == (8,)
    True
    """
    bits = random_bits((validation.positive_int("size", size),), seed)
    return 1.0 - 2.0 * ops.cast(bits < 0, "float32")


def _butterfly(x: Any, size: int) -> Any:
    leading = ops.shape(x)[:-1]
    step = 1
    while step < size:
        x = ops.reshape(x, (*leading, size // (2 * step), 2, step))
        left, right = x[..., 0, :], x[..., 1, :]
        x = ops.reshape(ops.stack([left + right, left - right], axis=-2), (*leading, size))
        step *= 2
    return x

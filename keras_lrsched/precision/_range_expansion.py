"""Dynamic range expansion: a power that makes a group of numbers as wide as the range of FP8, and a scale."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from keras import ops

from keras_lrsched.precision import _exact
from keras_lrsched.precision._dynamic_map import join, split
from keras_lrsched.precision.elements import E4M3

STEPS = 16
"""k is a multiple of 1/16 ..."""
MAX_K = 240 / STEPS
"""... that fits in a byte. It is reached where the largest number is about twice the smallest."""
SMALLEST = 2.0**-126


@dataclasses.dataclass(frozen=True)
class Expansion:
    """The expansion of each group: three float32 numbers for each."""

    scale: Any
    k: Any
    center: Any


def fit(groups, compact=False):
    """The expansion of groups, which are the rows of a float32 tensor.

        center = sqrt(largest) sqrt(smallest)                        of the magnitudes that are not 0
        k      = log(448^2 / 2) / log(largest / smallest)            down to a multiple of 1/16, at most 15
        scale  = (largest / center)^k / 448

    A group of zeros has 1, 1, 1. Numbers below 2^-126 count as zeros, as compiled code flushes them to zero.

    Args:
        groups: The rows.
        compact: Whether center and scale are rounded to what bfloat16 can hold. Defaults to `False`.
    """
    size = _exact.magnitude(groups)
    largest = _exact.floats(ops.max(size, axis=1))  # as bits, where NaN is the largest
    smallest = _exact.floats(ops.min(ops.where(size < _exact.bits(_exact.float32(SMALLEST)), _exact.INFINITY, size), axis=1))
    is_zero = largest < SMALLEST
    largest, smallest = ops.where(is_zero, 1.0, largest), ops.where(is_zero, 1.0, smallest)
    octaves = ops.maximum(ops.log2(largest) - ops.log2(smallest), 1e-6)
    k = ops.clip(ops.floor(math.log2(E4M3.max**2 / 2) / octaves * STEPS) / STEPS, 1 / STEPS, MAX_K)
    k = ops.where(is_zero, 1.0, k)
    center = ops.sqrt(largest) * ops.sqrt(smallest)
    center = _to_bfloat16(center) if compact else center
    scale = ops.where(is_zero, 1.0, ops.power(largest / center, k) / E4M3.max)
    return Expansion(_to_bfloat16(scale) if compact else scale, k, center)


def encode(groups, expansion):
    """The codes of FP8 E4M3 as int32.

    code = E4M3(sign(x) (|x| / center)^k / scale)
    """
    logs = expansion.k[:, None] * (ops.log(ops.abs(groups)) - ops.log(expansion.center)[:, None])  # faster than a power
    powers = ops.exp(logs) / expansion.scale[:, None]
    return E4M3.encode(ops.where(groups < 0, -powers, powers))


def decode(codes, expansion):
    """The numbers of codes, in float32.

    x = sign(y) |y|^(1/k) center,  y = scale E4M3(code)
    """
    logs = ops.take(ops.convert_to_tensor(_logarithms()), ops.cast(codes, "int32")) + ops.log(expansion.scale)[:, None]
    size = ops.exp(logs / expansion.k[:, None]) * expansion.center[:, None]
    return ops.where(codes >= 128, -size, size)


@functools.cache
def _logarithms():
    """Of the magnitude of each code."""
    with np.errstate(divide="ignore"):
        return np.log(np.abs(E4M3.values()))


def quantize_expanded(x, group_size=128, compact=False):
    """Numbers in FP8 E4M3 after dynamic range expansion of each group.

    E4M3 has 2^17.8 between its largest and its smallest number; the numbers of a group of moments of Adam have less between
    theirs. x to the power k fills the range, so that the steps of E4M3 are finer by k. Groups lie in the flattened tensor;
    the last may be shorter. A group with a number that is not finite is NaN as a whole.

    Args:
        x: A float32 tensor of known shape.
        group_size: How many neighbors share an expansion. Defaults to `128`.
        compact: Whether center and scale are rounded to what bfloat16 can hold. Defaults to `False`.

    Returns:
        `(codes, expansion)`: uint8 in the shape of `x`, and an `Expansion`.

    Reference:
        Xi et al., COAT: Compressing Optimizer States and Activation for Memory-Efficient FP8 Training, arXiv:2410.19313.
        Written after the paper and a reading of NVlabs/COAT, whose CUDA kernel was not run. That lets some zeros count as
        the smallest magnitude, has no bound on k, and adds 1e-30 to all.

    Example:

    >>> codes, expansion = quantize_expanded(ops.array([0.0, 2e-3, -3e-3, 1e-3]))
    >>> float(expansion.k[0])
    10.4375
    >>> ops.convert_to_numpy(dequantize_expanded(codes, expansion)).round(5)
    array([ 0.     ,  0.002  , -0.003  ,  0.00098], dtype=float32)
    """
    groups = split(x, group_size)
    expansion = fit(groups, compact)
    return join(ops.cast(encode(groups, expansion), "uint8"), x.shape), expansion


def dequantize_expanded(codes, expansion, group_size=128):
    """The numbers that `quantize_expanded` stored, in float32."""
    return join(decode(split(codes, group_size), expansion), codes.shape)


def _to_bfloat16(x):
    """Positive numbers, rounded as bits: XLA may leave out casts there and back."""
    bits = _exact.bits(x)
    return _exact.floats(ops.left_shift(_exact.shift_to_nearest(bits, ops.full_like(bits, 16)), 16))

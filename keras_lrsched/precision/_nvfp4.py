"""Scales of NVFP4: E4M3 for each block, times one float32 number for the tensor.

The order of the float32 operations is that of NVIDIA/TransformerEngine, so that the codes are the same. A block with NaN or
infinity has the scale NaN, and has no say in the scale of the tensor.
"""

from keras import ops

from keras_lrsched.precision import _bit_numerics
from keras_lrsched.precision._exact import FLOAT32_MAX, float32
from keras_lrsched.precision.elements import E2M1, E4M3

LARGEST_SCALE = {"six": 448.0, "four_over_six": 256.0}
"""What the largest block scale of a tensor is; 256 leaves room for the factor 1.5."""


def fit(x, largest, axes, rule, numerics=_bit_numerics):
    """Blocked numbers -> (in units of E2M1, codes of the block scales, the scale of the tensor)."""
    finite = numerics.is_finite(largest)
    x = ops.where(finite, x, 0.0)
    amax = numerics.floats(ops.where(finite, largest, 0))
    factor = _tensor_factor(ops.max(numerics.magnitude(amax)), LARGEST_SCALE[rule] * E2M1.max, numerics)
    tensor_scale = numerics.divide(float32(1.0), factor)
    per_six = numerics.multiply(factor, float32(1 / E2M1.max))
    values, scales = _in_blocks(x, amax, per_six, tensor_scale, numerics)
    if rule == "four_over_six":
        values_4, scales_4 = _in_blocks(x, amax, numerics.multiply(per_six, float32(1.5)), tensor_scale, numerics)
        # Sums below 2^-126 may be flushed to zero: small numbers are made larger.
        is_small = amax < 2.0**40

        def error(values, scales):
            decoded = multiply(numerics.decode(E2M1, numerics.encode(E2M1, values)), scales, tensor_scale, numerics)
            return _sum(ops.absolute(numerics.lift(decoded, is_small, 64) - numerics.lift(x, is_small, 64)), axes)

        better = error(values_4, scales_4) < error(values, scales)
        values, scales = ops.where(better, values_4, values), ops.where(better, scales_4, scales)
    return values, ops.where(finite, scales, numerics.code_of_nan(E4M3)), tensor_scale


def multiply(values, scales, tensor_scale, numerics=_bit_numerics):
    """Decoded E2M1 elements -> float32 numbers."""
    return numerics.multiply(values, numerics.multiply(numerics.decode(E4M3, scales), tensor_scale))


def _tensor_factor(largest, target, numerics):
    """target / amax, at most the largest float32; 1 if amax is 0."""
    usable = largest > 0
    amax = ops.where(usable, numerics.floats(largest), 1.0)
    return ops.where(usable, ops.minimum(numerics.divide(float32(target), amax), FLOAT32_MAX), 1.0)


def _in_blocks(x, amax, factor, tensor_scale, numerics):
    scales = numerics.encode(E4M3, ops.minimum(numerics.multiply(amax, factor), FLOAT32_MAX))
    unit = numerics.multiply(numerics.decode(E4M3, scales), tensor_scale)
    return numerics.multiply(x, ops.minimum(numerics.divide(float32(1.0), unit), FLOAT32_MAX)), scales


def _sum(x, axes):
    """The sum over the axes of a block, in an order of additions that no backend changes."""
    for axis in axes:
        x = ops.moveaxis(_pairwise_sum(ops.moveaxis(x, axis, -1)), -1, axis)
    return x


def _pairwise_sum(x):
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        pairs = x[..., :half] + x[..., half : 2 * half]
        x = ops.concatenate([pairs, x[..., 2 * half :]], axis=-1) if x.shape[-1] % 2 else pairs
    return x

"""Scales of NVFP4: E4M3 for each block, times one float32 number for the tensor.

The order of the float32 operations is that of NVIDIA/TransformerEngine, so that the codes are the same. A block with NaN or
infinity has the scale NaN, and has no say in the scale of the tensor.
"""

from keras import ops

from keras_lrsched.precision import exact
from keras_lrsched.precision.elements import E2M1, E4M3
from keras_lrsched.precision.exact import FLOAT32_MAX, divide, float32, floats, is_finite

LARGEST_SCALE = {"six": 448.0, "four_over_six": 256.0}
"""What the largest block scale of a tensor is; 256 leaves room for the factor 1.5."""


def fit(x, largest, axes, rule):
    """Blocked numbers -> (in units of E2M1, codes of the block scales, the scale of the tensor)."""
    finite = is_finite(largest)
    x = ops.where(finite, x, 0.0)
    amax = floats(ops.where(finite, largest, 0))
    factor = _tensor_factor(ops.max(exact.magnitude(amax)), LARGEST_SCALE[rule] * E2M1.max)
    tensor_scale = divide(float32(1.0), factor)
    per_six = exact.multiply(factor, float32(1 / E2M1.max))
    values, scales = _in_blocks(x, amax, per_six, tensor_scale)
    if rule == "four_over_six":
        values_4, scales_4 = _in_blocks(x, amax, exact.multiply(per_six, float32(1.5)), tensor_scale)
        # Sums below 2^-126 may be flushed to zero: small numbers are made larger.
        lift = ops.where(exact.magnitude(amax) < (127 + 40) << 23, 64, 0)
        better = _error(x, values_4, scales_4, tensor_scale, lift, axes) < _error(
            x, values, scales, tensor_scale, lift, axes
        )
        values, scales = ops.where(better, values_4, values), ops.where(better, scales_4, scales)
    return values, ops.where(finite, scales, E4M3.nan), tensor_scale


def multiply(values, scales, tensor_scale):
    """Decoded E2M1 elements -> float32 numbers."""
    return exact.multiply(values, exact.multiply(E4M3.decode(scales), tensor_scale))


def _tensor_factor(largest, target):
    """target / amax, at most the largest float32; 1 if amax is 0."""
    usable = largest > 0
    amax = ops.where(usable, floats(largest), 1.0)
    return ops.where(usable, ops.minimum(divide(float32(target), amax), FLOAT32_MAX), 1.0)


def _in_blocks(x, amax, factor, tensor_scale):
    scales = E4M3.encode(ops.minimum(exact.multiply(amax, factor), FLOAT32_MAX))
    unit = exact.multiply(E4M3.decode(scales), tensor_scale)
    return exact.multiply(x, ops.minimum(divide(float32(1.0), unit), FLOAT32_MAX)), scales


def _error(x, values, scales, tensor_scale, lift, axes):
    """The sum of absolute errors in each block, times 2^lift, in an order of additions that no backend changes."""
    decoded = multiply(E2M1.decode(E2M1.encode(values)), scales, tensor_scale)
    error = ops.absolute(exact.ldexp(decoded, lift) - exact.ldexp(x, lift))
    for axis in axes:
        error = _pairwise_sum(ops.moveaxis(error, axis, -1))
        error = ops.moveaxis(error, -1, axis)
    return error


def _pairwise_sum(x):
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        pairs = x[..., :half] + x[..., half : 2 * half]
        x = ops.concatenate([pairs, x[..., 2 * half :]], axis=-1) if x.shape[-1] % 2 else pairs
    return x

"""Finding the scales of blocks, and applying them: one pair of functions for each type of scale.

`fit` returns the numbers in units of the element, and the scales; `apply` multiplies decoded elements with the scales.
`numerics` is `_bit_numerics`, or `_float_numerics` for an export. Blocks of small numbers are computed in units of 2^-64.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_lrsched.precision import _bit_numerics
from keras_lrsched.precision._exact import float32
from keras_lrsched.precision.elements import E2M1, E4M3


class Fitted(NamedTuple):
    """Blocks in units of the element, with their scales; `tensor_scale` is `None` but for NVFP4."""

    values: Any
    scales: Any
    tensor_scale: Any = None


def fit(x, format, axes, numerics=_bit_numerics):
    """Blocked float32 numbers -> `Fitted`."""
    largest = ops.max(numerics.magnitude(x), axis=axes, keepdims=True)
    match format.scale:
        case "e8m0":
            scales = numerics.fit_power_of_two_scales(largest, format.element, format.scale_rule)
            return Fitted(numerics.divide_by_power_of_two_scales(x, scales), scales)
        case "nvfp4":
            return _fit_nvfp4(x, largest, axes, format.scale_rule, numerics)
    if format.element.integer:
        return Fitted(*_integers(x, largest, format, numerics))
    return Fitted(*_floats(x, largest, format, numerics))


def apply(values, scales, tensor_scale, format, numerics=_bit_numerics):
    """Decoded elements and scales -> float32 numbers."""
    match format.scale:
        case "e8m0":
            return numerics.multiply_by_power_of_two_scales(values, scales)
        case "nvfp4":
            scales = _units(scales, tensor_scale, numerics)
    return _multiply(values, scales, numerics)


def _multiply(values, scales, numerics):
    small = numerics.is_small(numerics.magnitude(scales))
    return numerics.lowered(values * numerics.lifted(scales, small), small)


def _integers(x, largest, format, numerics):
    """scale = amax fl(1 / largest element); NaN where the block has a number that is not finite."""
    finite, small = numerics.is_finite(largest), numerics.is_small(largest)
    amax = numerics.floats(ops.where(finite, largest, 0))
    scales = numerics.lowered(numerics.lifted(amax, small) * float32(1 / format.element.max), small)
    if format.scale_rule == "power_of_two":
        scales = numerics.next_power_of_two(scales)
    usable = ops.logical_and(finite, numerics.magnitude(scales) > 0)
    divisor = numerics.lifted(ops.where(usable, scales, 1.0), small)
    values = ops.where(usable, numerics.quotient(numerics.lifted(x, small), divisor), 0.0)
    return values, ops.where(finite, scales, float("nan"))


def _floats(x, largest, format, numerics):
    """factor = (largest element) / amax, or 1 where amax is 0; scale = 1 / factor, NaN where amax is not finite."""
    small = numerics.is_small(largest)
    factor = _factor(largest, small, format.element.max, numerics)
    if format.scale_rule == "power_of_two":
        factor = numerics.power_of_two_below(factor)
    scales = numerics.lowered(numerics.quotient(float32(1.0), factor), small)
    return numerics.lifted(x, small) * factor, ops.where(numerics.is_finite(largest), scales, float("nan"))


def _factor(largest, small, target, numerics):
    """target / amax, at most the largest float32; 1 where amax is 0 or not finite. In lifted units where `small`."""
    usable = ops.logical_and(numerics.is_finite(largest), largest > 0)
    amax = ops.where(usable, numerics.lifted(numerics.floats(largest), small), 1.0)
    factor = ops.minimum(numerics.quotient(float32(target), amax), numerics.largest_factor(small))
    return ops.where(usable, factor, 1.0)


# NVFP4: E4M3 for each block, times one float32 number for the tensor. The order of the float32 operations is that of
# NVIDIA/TransformerEngine, so that the codes are the same. A block with NaN or infinity has the scale NaN, and does not
# count in the scale of the tensor.

LARGEST_SCALE = {"six": 448.0, "four_over_six": 256.0}
"""The largest block scale of a tensor; 256 leaves room for the factor 1.5."""


def _fit_nvfp4(x, largest, axes, rule, numerics):
    """The scales are codes of E4M3."""
    finite = numerics.is_finite(largest)
    x = ops.where(finite, x, 0.0)
    amax = ops.where(finite, largest, 0)
    of_tensor = ops.max(amax)
    small = numerics.is_small(of_tensor)
    factor = _factor(of_tensor, small, LARGEST_SCALE[rule] * E2M1.max, numerics)
    tensor_scale = numerics.lowered(numerics.quotient(float32(1.0), factor), small)
    per_six = factor * float32(1 / E2M1.max)
    lifted_amax = numerics.lifted(numerics.floats(amax), small)
    values, scales = _in_blocks(x, amax, lifted_amax * per_six, tensor_scale, numerics)
    if rule == "four_over_six":
        values_4, scales_4 = _in_blocks(x, amax, lifted_amax * (per_six * 1.5), tensor_scale, numerics)
        # Sums below 2^-126 may be flushed to zero: small numbers are made larger.
        is_small = numerics.floats(amax) < 2.0**40

        def error(values, scales):
            decoded = numerics.decode(E2M1, numerics.encode(E2M1, values))
            decoded = _multiply(decoded, _units(scales, tensor_scale, numerics), numerics)
            return _sum(ops.absolute(numerics.lift(decoded, is_small) - numerics.lift(x, is_small)), axes)

        better = error(values_4, scales_4) < error(values, scales)
        values, scales = ops.where(better, values_4, values), ops.where(better, scales_4, scales)
    return Fitted(values, ops.where(finite, scales, numerics.code_of_nan(E4M3)), tensor_scale)


def _units(scales, tensor_scale, numerics):
    """Codes of block scales -> float32 scales."""
    return _multiply(numerics.decode(E4M3, scales), tensor_scale, numerics)


def _in_blocks(x, amax, wanted_scales, tensor_scale, numerics):
    scales = numerics.encode(E4M3, wanted_scales)
    unit = _units(scales, tensor_scale, numerics)
    # The inverse of a unit 0 is the largest float32, which subnormal numbers are multiplied with, too.
    small = ops.logical_and(amax > 0, ops.logical_or(numerics.is_small(amax), numerics.magnitude(unit) == 0))
    inverse = numerics.quotient(float32(1.0), numerics.lifted(unit, small))
    return numerics.lifted(x, small) * ops.minimum(inverse, numerics.largest_factor(small)), scales


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

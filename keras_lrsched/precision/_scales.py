"""Finding the scales of blocks, and applying them: one pair of functions for each type of scale.

`fit` returns the numbers in units of the element, and the scales; `apply` multiplies decoded elements with the scales.
`numerics` is `bit_numerics`, or `float_numerics` for an export.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_lrsched.precision import _bit_numerics, _nvfp4
from keras_lrsched.precision._exact import FLOAT32_MAX, float32


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
            return Fitted(*_nvfp4.fit(x, largest, axes, format.scale_rule, numerics))
    if format.element.integer:
        return Fitted(*_integers(x, largest, format, numerics))
    return Fitted(*_floats(x, largest, format, numerics))


def apply(values, scales, tensor_scale, format, numerics=_bit_numerics):
    """Decoded elements and scales -> float32 numbers."""
    match format.scale:
        case "e8m0":
            return numerics.multiply_by_power_of_two_scales(values, scales)
        case "nvfp4":
            return _nvfp4.multiply(values, scales, tensor_scale, numerics)
    return numerics.multiply(values, scales)


def _integers(x, largest, format, numerics):
    """scale = amax fl(1 / largest element); NaN where the block has a number that is not finite."""
    finite = numerics.is_finite(largest)
    scales = numerics.multiply(numerics.floats(ops.where(finite, largest, 0)), float32(1 / format.element.max))
    if format.scale_rule == "power_of_two":
        scales = numerics.next_power_of_two(scales)
    usable = ops.logical_and(finite, numerics.magnitude(scales) > 0)
    values = ops.where(usable, numerics.divide(x, ops.where(usable, scales, 1.0)), 0.0)
    return values, ops.where(finite, scales, float("nan"))


def _floats(x, largest, format, numerics):
    """factor = (largest element) / amax, or 1 where amax is 0; scale = 1 / factor, NaN where amax is not finite."""
    finite = numerics.is_finite(largest)
    usable = ops.logical_and(finite, largest > 0)
    amax = ops.where(usable, numerics.floats(largest), 1.0)
    factor = ops.minimum(numerics.divide(float32(format.element.max), amax), FLOAT32_MAX)
    if format.scale_rule == "power_of_two":
        factor = numerics.power_of_two_below(factor)
    factor = ops.where(usable, factor, 1.0)
    return numerics.multiply(x, factor), ops.where(finite, numerics.divide(float32(1.0), factor), float("nan"))

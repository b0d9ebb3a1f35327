"""Finding the scales of blocks, and applying them: one pair of functions for each type of scale.

`fit` returns the numbers in units of the element, and the scales; `apply` multiplies decoded elements with the scales.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_lrsched.precision import e8m0, nvfp4
from keras_lrsched.precision.exact import (
    FLOAT32_MAX,
    INFINITY,
    divide,
    float32,
    floats,
    is_finite,
    magnitude,
    multiply,
)


class Fitted(NamedTuple):
    """Blocks in units of the element, with their scales; `tensor_scale` is `None` but for NVFP4."""

    values: Any
    scales: Any
    tensor_scale: Any = None


def fit(x, format, axes):
    """Blocked float32 numbers -> `Fitted`."""
    largest = ops.max(magnitude(x), axis=axes, keepdims=True)
    match format.scale:
        case "e8m0":
            scales = e8m0.fit(largest, format.element, format.scale_rule)
            return Fitted(e8m0.divide(x, scales), scales)
        case "nvfp4":
            return Fitted(*nvfp4.fit(x, largest, axes, format.scale_rule))
    if format.element.integer:
        return Fitted(*_integers(x, largest, format))
    return Fitted(*_floats(x, largest, format))


def apply(values, scales, tensor_scale, format):
    """Decoded elements and scales -> float32 numbers."""
    match format.scale:
        case "e8m0":
            return e8m0.multiply(values, scales)
        case "nvfp4":
            return nvfp4.multiply(values, scales, tensor_scale)
    return multiply(values, scales)


def _integers(x, largest, format):
    """scale = amax fl(1 / largest element); NaN where the block has a number that is not finite."""
    finite = is_finite(largest)
    scales = multiply(floats(ops.where(finite, largest, 0)), float32(1 / format.element.max))
    if format.scale_rule == "power_of_two":
        scales = _next_power_of_two(scales)
    usable = ops.logical_and(finite, magnitude(scales) > 0)
    values = ops.where(usable, divide(x, ops.where(usable, scales, 1.0)), 0.0)
    return values, ops.where(finite, scales, float("nan"))


def _floats(x, largest, format):
    """factor = (largest element) / amax, or 1 where amax is 0; scale = 1 / factor, NaN where amax is not finite."""
    finite = is_finite(largest)
    usable = ops.logical_and(finite, largest > 0)
    amax = ops.where(usable, floats(largest), 1.0)
    factor = ops.minimum(divide(float32(format.element.max), amax), FLOAT32_MAX)
    if format.scale_rule == "power_of_two":
        factor = floats(ops.bitwise_and(magnitude(factor), INFINITY))
    factor = ops.where(usable, factor, 1.0)
    return multiply(x, factor), ops.where(finite, divide(float32(1.0), factor), float("nan"))


def _next_power_of_two(x):
    size = magnitude(x)
    return floats(ops.bitwise_and(size + 0x7FFFFF, INFINITY))

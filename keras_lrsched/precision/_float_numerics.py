"""The arithmetic of quantizers in comparisons, products, quotients and `round` of float32 numbers alone: for exports.

The converters of ONNX and LiteRT have no operations on bits. The functions are those of `_bit_numerics` and give the same
numbers, bit for bit but for the sign of zeros, as long as no number and no scale is below 2^-126, which runtimes may flush
to zero, or above 2^127, whose reciprocal they may flush. In place of a code stands the number that it means; a power of two
stands for its exponent.

No result depends on how compilers treat sums and differences: powers of two are found by comparisons, and multiplying by
them is exact. All of TensorFlow, ONNX Runtime and LiteRT divide exactly, and round halves to even.
"""

import math

import numpy as np
from keras import ops

from keras_lrsched.precision._exact import FLOAT32_MAX, float32

SMALLEST = -126
"""The exponent of the smallest power of two that no runtime flushes."""


def magnitude(x):
    """|x|, or infinity for NaN: runtimes differ in how NaN compares."""
    size = ops.absolute(x)
    return ops.where(size <= FLOAT32_MAX, size, math.inf)


def is_finite(magnitudes):
    return magnitudes <= FLOAT32_MAX


def floats(magnitudes):
    return magnitudes


def is_small(magnitudes):
    """No numbers are to be lifted."""
    del magnitudes
    return False


def lifted(x, small):
    del small
    return x


def lowered(x, small):
    del small
    return x


def largest_factor(small):
    del small
    return FLOAT32_MAX


def quotient(x, y):
    """x / y, for y >= 0 if x is one number."""
    if not len(x.shape):
        # Optimizers of graphs take an inexact reciprocal where x is the constant 1. The choice below changes no quotient.
        x = ops.where(y > 0, x, 2.0)
    return x / y


def encode(element, x, noise=None):
    """The nearest values of an element type, ties to even; what is too large becomes the largest."""
    if noise is not None:
        raise ValueError("Stochastic rounding has no form without operations on bits.")
    step = power_of_two_below(ops.absolute(x), element.min_exponent, element.max_exponent) * 2.0**-element.mantissa
    return ops.clip(ops.round(x / step) * step, -element.max, element.max)


def decode(element, codes):
    """Numbers that were encoded are decoded."""
    del element
    return codes


def code_of_nan(element):
    del element
    return math.nan


def power_of_two_below(x, lowest=SMALLEST, highest=127):
    """The largest power of two that is at most x, or 2^lowest for all that is below; for x < 2^(highest + 1)."""
    power = ops.convert_to_tensor(np.float32(2.0**lowest))
    for jump in _jumps(highest - lowest):
        candidate = power * 2.0**jump
        power = ops.where(x >= candidate, candidate, power)
    return power


def _jumps(distance):
    """Powers of two, falling, some of which add up to any number up to `distance`; none above 64: float32 holds 2^64."""
    halves = [2**i for i in reversed(range(min(distance.bit_length(), 7)))]
    return [64] * -((sum(halves) - distance) // 64) + halves


def next_power_of_two(x):
    """The smallest power of two that is at least x, for x >= 2^-126; 0 for 0."""
    power = power_of_two_below(x)
    return ops.where(x > 0, ops.where(x > power, 2 * power, power), 0.0)


def lift(x, condition):
    """x 2^64 where the condition holds, else x."""
    return x * ops.where(condition, float32(2.0**64), 1.0)


exponent = power_of_two_below


def divide_by_power(x, power):
    return x / power


def multiply_by_power(x, power):
    return x * power


def fit_power_of_two_scales(largest, element, rule):
    """The scale of each block as two powers of two: one that float32 holds in any case, and one that depends on the element.

    The second is NaN where the block has a number that is not finite; see `Format` for the rules.
    """
    below = element.max_exponent
    # The reciprocal of the largest element, between 1/2 and 1, so that nothing overflows.
    size = largest * float(np.float32(1 / element.max)) * 2.0**below if rule == "rceil" else largest
    power = power_of_two_below(size, max(below - 127, SMALLEST))
    match rule:
        case "rceil" | "ceil":
            is_up = size > power
        case "even":
            is_up = size >= power * (2 - 2.0 ** -(element.mantissa + 1))
        case _:
            is_up = ops.zeros_like(size, dtype="bool")
    if rule != "rceil" or below == 0:  # then there is no scale above
        is_up = ops.logical_and(is_up, power < 2.0**127)
    factor = ops.where(is_up, float32(2.0 ** (1 - below)), 2.0**-below)
    return power, ops.where(is_finite(largest), factor, math.nan)


def divide_by_power_of_two_scales(x, scales):
    power, factor = scales
    return x / power / factor


def multiply_by_power_of_two_scales(x, scales):
    power, factor = scales
    return x * factor * power

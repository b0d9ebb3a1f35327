"""The arithmetic of quantizers on the bits of float32 numbers: exact on every backend, also where compilers flush numbers
below 2^-126 to zero. `_float_numerics` has the same functions without operations on bits.
"""

from keras import ops

from keras_lrsched.precision import _exact
from keras_lrsched.precision._exact import (
    floats,
    is_finite,
    is_small,
    largest_factor,
    lifted,
    lowered,
    magnitude,
    quotient,
)

__all__ = [
    "code_of_nan",
    "decode",
    "divide_by_power",
    "divide_by_power_of_two_scales",
    "encode",
    "exponent",
    "fit_power_of_two_scales",
    "floats",
    "is_finite",
    "is_small",
    "largest_factor",
    "lift",
    "lifted",
    "lowered",
    "magnitude",
    "multiply_by_power",
    "multiply_by_power_of_two_scales",
    "next_power_of_two",
    "power_of_two_below",
    "quotient",
]


def encode(element, x, noise=None):
    """The codes of numbers; see `Element.encode`."""
    return element.encode(x, noise)


def decode(element, codes):
    """The values of codes."""
    return element.decode(codes)


def code_of_nan(element):
    """The code of NaN."""
    return element.nan


def power_of_two_below(x):
    """The largest power of two that is at most x, for x >= 2^-126."""
    return floats(ops.bitwise_and(magnitude(x), _exact.INFINITY))


def next_power_of_two(x):
    """The smallest power of two that is at least x, for x >= 2^-126; 0 for 0."""
    return floats(ops.bitwise_and(magnitude(x) + _exact.MANTISSA, _exact.INFINITY))


def lift(x, condition):
    """x 2^64 where the condition holds, else x."""
    return lifted(x, condition)


def exponent(x):
    """floor(log2 x) of numbers x >= 0, at least -126."""
    return ops.maximum(ops.right_shift(magnitude(x), 23), 1) - 127


def divide_by_power(x, exponent):
    """x / 2^exponent."""
    return _exact.ldexp(x, -exponent)


def multiply_by_power(x, exponent):
    """x 2^exponent."""
    return _exact.ldexp(x, exponent)


# Scales in E8M0: powers of two from 2^-127 to 2^127 in a byte.

BIAS = 127
NAN = 255


def fit_power_of_two_scales(largest, element, rule):
    """The byte of each block from the bits of its largest magnitude; see `Format` for the rules."""
    match rule:
        case "rceil":
            small = is_small(largest)
            byte = _rounded_up(magnitude(lowered(lifted(floats(largest), small) * (1 / element.max), small)))
        case "ceil":
            byte = _field(largest + _exact.MANTISSA) - element.max_exponent
        case "even":
            byte = _field(largest + (1 << (22 - element.mantissa))) - element.max_exponent
        case _:
            byte = ops.right_shift(largest, 23) - element.max_exponent
    return ops.where(is_finite(largest), ops.clip(byte, 0, 254), NAN)


def divide_by_power_of_two_scales(x, byte):
    """x / scale; 0 in blocks whose scale is NaN. Quotients below 2^-60 may become zero."""
    small, large = byte < BIAS - 60, byte > BIAS + 60
    shift = 64 * (ops.cast(large, "int32") - ops.cast(small, "int32"))
    x = lifted(x, small) * ops.where(large, _exact.float32(1 / _exact.LIFT), 1.0)
    return ops.where(byte == NAN, 0.0, x * _power(2 * BIAS - byte + shift))


def multiply_by_power_of_two_scales(x, byte):
    """x scale; NaN in blocks whose scale is NaN."""
    small = byte < BIAS - 60
    return ops.where(byte == NAN, float("nan"), lowered(x * _power(byte + 64 * ops.cast(small, "int32")), small))


def _power(field):
    """The power of two that has this exponent field."""
    return floats(ops.left_shift(field, 23))


def _field(size):
    """The exponent field of a magnitude, at most that of the largest float32: 2^128 is none."""
    return ops.minimum(ops.right_shift(size, 23), 254)


def _rounded_up(size):
    """The exponent field of a magnitude, plus one unless the number is a power of two; 2^-127 has no field of its own."""
    field, mantissa = ops.right_shift(size, 23), ops.bitwise_and(size, _exact.MANTISSA)
    stays = ops.logical_or(mantissa == 0, ops.logical_and(field == 0, mantissa <= 1 << 22))
    return ops.where(stays, field, field + 1)

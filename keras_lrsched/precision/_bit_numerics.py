"""The arithmetic of quantizers on the bits of float32 numbers: exact on every backend, also where compilers flush numbers
below 2^-126 to zero. `float_numerics` has the same functions without operations on bits.
"""

from keras import ops

from keras_lrsched.precision import _e8m0, _exact
from keras_lrsched.precision._exact import divide, floats, is_finite, magnitude, multiply

__all__ = [
    "code_of_nan",
    "decode",
    "divide",
    "divide_by_power",
    "divide_by_power_of_two_scales",
    "encode",
    "exponent",
    "fit_power_of_two_scales",
    "floats",
    "is_finite",
    "lift",
    "magnitude",
    "multiply",
    "multiply_by_power",
    "multiply_by_power_of_two_scales",
    "next_power_of_two",
    "power_of_two_below",
]

fit_power_of_two_scales = _e8m0.fit
divide_by_power_of_two_scales = _e8m0.divide
multiply_by_power_of_two_scales = _e8m0.multiply


def encode(element, x, noise=None):
    """The codes of numbers; see `Element.encode`."""
    return element.encode(x, noise)


def decode(element, codes):
    """The values of codes."""
    return element.decode(codes)


def code_of_nan(element):
    """Codes that `decode` turns into NaN."""
    return element.nan


def power_of_two_below(x):
    """The largest power of two that is at most x, for x >= 2^-126."""
    return floats(ops.bitwise_and(magnitude(x), _exact.INFINITY))


def next_power_of_two(x):
    """The smallest power of two that is at least x, for x >= 2^-126; 0 for 0."""
    return floats(ops.bitwise_and(magnitude(x) + _exact.MANTISSA, _exact.INFINITY))


def lift(x, condition, power):
    """x 2^power where the condition holds, else x."""
    return _exact.ldexp(x, ops.where(condition, power, 0))


def exponent(x):
    """floor(log2 x) of numbers x >= 0, at least -126."""
    return ops.maximum(ops.right_shift(magnitude(x), 23), 1) - 127


def divide_by_power(x, exponent):
    """x / 2^exponent."""
    return _exact.ldexp(x, -exponent)


def multiply_by_power(x, exponent):
    """x 2^exponent."""
    return _exact.ldexp(x, exponent)

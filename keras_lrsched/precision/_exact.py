"""Arithmetic on float32 that gives the same bits on every backend, also for numbers below 2^-126.

Compiled code may flush such numbers to zero: XLA and TensorFlow's kernels on CPUs do. Quantizers compute with blocks of
small numbers in units of 2^-64, see `lifted` and `lowered`. `ldexp` works on the bits of all numbers.
"""

import numpy as np
from keras import ops

from keras_lrsched._core.backends import view

FLOAT32_MAX = float(np.finfo("float32").max)
INFINITY = 0x7F800000
MANTISSA = 0x7FFFFF
SIGN = -(2**31)


def bits(x):
    """The bits of float32 numbers, as int32."""
    return view(x, "int32")


def floats(x):
    """The float32 numbers that have the bits of int32 numbers."""
    return view(x, "float32")


def magnitude(x):
    """The bits of |x|. They sort as the numbers do, with NaN above infinity."""
    return ops.bitwise_and(bits(x), 0x7FFFFFFF)


def is_finite(magnitudes):
    return magnitudes < INFINITY


def is_usable(x):
    """Whether a tensor has numbers, all of them finite, so that statistics of it may be remembered."""
    largest = ops.max(magnitude(x))  # negative, if there are no numbers
    return ops.logical_and(largest >= 0, is_finite(largest))


def float32(number):
    """A Python number as a tensor. A choice between two numbers would have the `floatx` of Keras."""
    return ops.convert_to_tensor(number, "float32")


LIFT = 2.0**64
SMALL = (127 - 60) << 23
"""The bits of 2^-60. Blocks whose largest magnitude is below are lifted."""


def is_small(size):
    """Whether numbers are to be lifted, from the bits of their magnitude."""
    return ops.logical_and(size > 0, size < SMALL)


def lifted(x, small):
    """x 2^64 where `small`, else x, where numbers below 2^-126 become zero: exact for |x| < 2^63 where it is lifted."""
    size = magnitude(x)
    subnormal = ops.cast(size, "float32") * ops.where(small, float32(LIFT * 2.0**-149), 0.0)
    subnormal = ops.where(bits(x) < 0, -subnormal, subnormal)
    return ops.where(size < 1 << 23, subnormal, x * ops.where(small, float32(LIFT), 1.0))


def lowered(x, small):
    """x 2^-64 where `small`, rounded to the nearest, ties to even, where that is below 2^-126; else x.

    For |x| < 2^42, infinity and NaN.
    """
    size = magnitude(x)
    units = floats(size) * (2.0**149 / LIFT)  # of the smallest float32
    result = ops.where(units < 2.0**23, ops.cast(ops.round(units), "int32"), bits(units) - (149 << 23))
    size = ops.where(ops.logical_and(small, is_finite(size)), result, size)
    return floats(ops.bitwise_or(ops.bitwise_and(bits(x), SIGN), size))


def largest_factor(small):
    """The largest float32, for factors of numbers that are lifted where `small`."""
    return ops.where(small, float32(FLOAT32_MAX / LIFT), FLOAT32_MAX)


def quotient(x, y):
    """x / y, for normal numbers with a normal quotient; one of both may be a scalar or broadcast."""
    # Compilers take an inexact reciprocal instead where either looks like fewer numbers than there are quotients:
    # TensorFlow's graph optimizer if x is a constant, XLA if y is broadcast.
    if not len(x.shape):
        return floats(ops.bitwise_or(bits(x), _zeros(y))) / y
    return x / floats(ops.bitwise_or(bits(y), _zeros(x)))


def shift_to_nearest(x, places):
    """x / 2^places for integers x >= 0 and 0 <= places <= 30, to the nearest integer, ties to even."""
    odd = ops.bitwise_and(ops.right_shift(x, places), 1)
    half = ops.right_shift(ops.left_shift(ops.ones_like(places), places), 1)
    return ops.right_shift(x + ops.where(places > 0, half - 1 + odd, 0), places)


def ldexp(x, exponent):
    """x 2^exponent: exact, or rounded once where the result is below 2^-126; infinite where it is too large."""
    size = magnitude(x)
    field, mantissa = _normalized(size)
    field = field + exponent
    subnormal = shift_to_nearest(ops.bitwise_or(mantissa, 1 << 23), ops.clip(1 - field, 0, 30))
    normal = ops.bitwise_or(ops.left_shift(ops.clip(field, 0, 254), 23), mantissa)
    result = ops.where(field > 0, ops.where(field > 254, INFINITY, normal), subnormal)
    result = ops.where(ops.logical_and(size > 0, is_finite(size)), result, size)
    return floats(ops.bitwise_or(ops.bitwise_and(bits(x), SIGN), result))


def _zeros(x):
    """Zeros of the shape of `x`, which no compiler knows to be zeros."""
    return ops.right_shift(ops.bitwise_and(bits(x), 1), 1)


def _normalized(size):
    """Exponent field and mantissa of a magnitude; the field is 0 or negative for numbers below 2^-126."""
    field = ops.right_shift(size, 23)
    small = bits(ops.cast(size, "float32"))  # exact where it is used: an integer below 2^23
    is_small = field == 0
    field = ops.where(is_small, ops.right_shift(small, 23) - 149, field)
    return field, ops.bitwise_and(ops.where(is_small, small, size), MANTISSA)

"""Arithmetic on float32 that gives the same bits on every backend, also for numbers below 2^-126.

Compiled code may flush such numbers to zero: XLA and TensorFlow's kernels on CPUs do. So scaling by a power of two works on
the bits, and products and quotients are taken between significands in [1, 2), with the exponents added apart.
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
    """A Python number as a tensor."""
    return ops.convert_to_tensor(number, "float32")


def shift_to_nearest(x, places):
    """x / 2^places for integers x >= 0 and 0 <= places <= 30, to the nearest integer, ties to even."""
    odd = ops.bitwise_and(ops.right_shift(x, places), 1)
    half = ops.right_shift(ops.left_shift(ops.ones_like(places), places), 1)
    return ops.right_shift(x + ops.where(places > 0, half - 1 + odd, 0), places)


def split(x):
    """`x` as a significand, with 1 <= |significand| < 2, and an exponent. Zero, infinity and NaN have the exponent 0."""
    size = magnitude(x)
    field, mantissa = _normalized(size)
    regular = ops.logical_and(size > 0, is_finite(size))
    significand = floats(ops.bitwise_or(ops.bitwise_and(bits(x), SIGN), ops.bitwise_or(mantissa, 127 << 23)))
    return ops.where(regular, significand, x), ops.where(regular, field - 127, 0)


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


def multiply(x, y):
    """x y."""
    (x, x_exponent), (y, y_exponent) = split(x), split(y)
    return ldexp(x * y, x_exponent + y_exponent)


def divide(x, y):
    """x / y."""
    (x, x_exponent), (y, y_exponent) = split(x), split(y)
    # Compilers take an inexact reciprocal instead where either looks like fewer numbers than there are quotients:
    # TensorFlow's graph optimizer if x is a constant, XLA if y is broadcast.
    x, y = floats(ops.bitwise_or(bits(x), _zeros(y))), floats(ops.bitwise_or(bits(y), _zeros(x)))
    return ldexp(x / y, x_exponent - y_exponent)


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

"""Scales in E8M0: powers of two from 2^-127 to 2^127 in a byte; 255 is NaN."""

from keras import ops

from keras_lrsched.precision import _exact

BIAS = 127
NAN = 255


def fit(largest, element, rule):
    """The byte of each block from the bits of its largest magnitude; see `Format` for the rules."""
    match rule:
        case "rceil":
            byte = _rounded_up(_exact.magnitude(_exact.multiply(_exact.floats(largest), _exact.float32(1 / element.max))))
        case "ceil":
            byte = _field(largest + _exact.MANTISSA) - element.max_exponent
        case "even":
            byte = _field(largest + (1 << (22 - element.mantissa))) - element.max_exponent
        case _:
            byte = ops.right_shift(largest, 23) - element.max_exponent
    return ops.where(_exact.is_finite(largest), ops.clip(byte, 0, 254), NAN)


def divide(x, byte):
    """x / scale; 0 in blocks whose scale is NaN."""
    return ops.where(byte == NAN, 0.0, _exact.ldexp(x, BIAS - byte))


def multiply(x, byte):
    """x scale; NaN in blocks whose scale is NaN."""
    return ops.where(byte == NAN, float("nan"), _exact.ldexp(x, byte - BIAS))


def _field(size):
    """The exponent field of a magnitude, at most that of the largest float32: 2^128 is none."""
    return ops.minimum(ops.right_shift(size, 23), 254)


def _rounded_up(size):
    """The exponent field of a magnitude, plus one unless the number is a power of two; 2^-127 has no field of its own."""
    field, mantissa = ops.right_shift(size, 23), ops.bitwise_and(size, _exact.MANTISSA)
    stays = ops.logical_or(mantissa == 0, ops.logical_and(field == 0, mantissa <= 1 << 22))
    return ops.where(stays, field, field + 1)

"""Codes of 4, 6 and 8 bits in bytes, along the last axis; the first element has the lowest bits.

Two codes of 4 bits fill a byte, four codes of 6 bits fill three.
"""

from keras import ops

GROUP = {4: 2, 6: 4, 8: 1}
"""How many codes fill whole bytes."""


def pack(codes, bits):
    """int32 codes as uint8; the last axis must hold whole groups."""
    if bits == 8:
        return ops.cast(codes, "uint8")
    groups = ops.reshape(codes, (*_regrouped(codes, GROUP[bits], 1), GROUP[bits]))
    word = sum(ops.left_shift(groups[..., i], i * bits) for i in range(GROUP[bits]))
    count = GROUP[bits] * bits // 8
    parts = [ops.bitwise_and(ops.right_shift(word, 8 * i), 255) for i in range(count)]
    joined = ops.reshape(ops.stack(parts, axis=-1), _regrouped(word, 1, count))
    return ops.cast(joined, "uint8")


def unpack(packed, bits):
    """The int32 codes that `pack` put into bytes."""
    packed = ops.cast(packed, "int32")
    if bits == 8:
        return packed
    count = GROUP[bits] * bits // 8
    groups = ops.reshape(packed, (*_regrouped(packed, count, 1), count))
    word = sum(ops.left_shift(groups[..., i], 8 * i) for i in range(count))
    codes = [ops.bitwise_and(ops.right_shift(word, i * bits), 2**bits - 1) for i in range(GROUP[bits])]
    return ops.reshape(ops.stack(codes, axis=-1), _regrouped(word, 1, GROUP[bits]))


def _regrouped(x, divisor, factor):
    """The shape of `x` with another last axis, which a graph may not know."""
    *leading, last = ops.shape(x)
    return (*leading, last // divisor * factor)

"""Between a tensor and its blocks.

The axis that is quantized goes last. Zeros fill it, and for blocks of several rows the axis before it, up to whole blocks.
"""

import numbers

from keras import ops


class Blocks:
    """The partition of a tensor of some shape into the blocks of a format.

    Blocked tensors have the shape (rows, columns / c, c), with all other axes together as rows; for blocks of several rows
    (others, rows / r, r, columns / c, c).
    """

    def __init__(self, shape, format, axis):
        self.format = format
        self.shape = tuple(shape)
        self.rank = len(shape)
        if not isinstance(axis, numbers.Integral) or not -self.rank <= int(axis) < self.rank:
            raise ValueError(f"`axis` must be an axis of a tensor of shape {tuple(shape)}. Received: axis={axis!r}")
        self.axis = int(axis) % self.rank
        moved = [*shape[: self.axis], *shape[self.axis + 1 :], shape[self.axis]]
        if self.rank < 2 and format.rows > 1:
            raise ValueError(f"{format.name} needs a tensor with 2 axes or more. Received: shape={tuple(shape)}")
        self.leading, self.inner = (moved[:-2], moved[-2:]) if format.rows > 1 else (moved[:-1], moved[-1:])
        columns = format.block[1] if format.block and format.block[1] else _up_to(self.inner[-1], GROUP[format.element.bits])
        self.sizes = [format.rows, columns][-len(self.inner) :]
        self.padded = [_up_to(n, size) for n, size in zip(self.inner, self.sizes, strict=True)]
        self.counts = [n // size for n, size in zip(self.padded, self.sizes, strict=True)]

    @property
    def axes(self):
        """The axes of a blocked tensor over which a scale is shared."""
        if self.format.block is None:
            return (0, 1, 2)
        return (2,) if len(self.inner) == 1 else (2, 4)

    def split(self, x):
        """A tensor of the original shape, blocked."""
        x = ops.moveaxis(x, self.axis, -1)
        missing = [(0, padded - n) for n, padded in zip(self.inner, self.padded, strict=True)]
        x = ops.pad(x, [(0, 0)] * len(self.leading) + missing) if any(_not_zero(after) for _, after in missing) else x
        blocked = [part for pair in zip(self.counts, self.sizes, strict=True) for part in pair]
        return ops.reshape(x, (-1, *blocked))

    def join(self, blocks):
        """The opposite of `split`, without the zeros that it added."""
        x = ops.reshape(blocks, (*self.leading, *self.padded))
        for axis, (n, padded) in enumerate(zip(self.inner, self.padded, strict=True), start=len(self.leading)):
            x = x[(slice(None),) * axis + (slice(0, n),)] if _not_zero(padded - n) else x
        return ops.moveaxis(x, -1, self.axis)

    def join_codes(self, blocks):
        """Blocked codes with their axes joined: the quantized axis last, and the zeros that fill it kept."""
        return ops.reshape(blocks, (*self.leading, *self.padded))

    def split_codes(self, codes):
        """The opposite of `join_codes`."""
        return ops.reshape(codes, (-1, *[part for pair in zip(self.counts, self.sizes, strict=True) for part in pair]))

    def join_scales(self, scales):
        """One scale for each block, as a tensor; a scalar if there is one block for all."""
        return ops.reshape(scales, () if self.format.block is None else (*self.leading, *self.counts))

    def split_scales(self, scales):
        """The opposite of `join_scales`, in a shape that broadcasts to blocked tensors."""
        if self.format.block is None:
            return ops.reshape(scales, (1, 1, 1))
        return ops.reshape(scales, (-1, *[part for count in self.counts for part in (count, 1)]))


def _not_zero(n):
    """Whether a number may be another than 0: sizes that a graph does not know are tensors."""
    return not isinstance(n, int) or n != 0


def _up_to(n, multiple):
    """`n` rounded up; without a negative quotient, which ONNX rounds towards zero."""
    return (n + multiple - 1) // multiple * multiple


GROUP = {4: 2, 6: 4, 8: 1}
"""Number of codes that fill whole bytes."""


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

"""The 8-bit numbers of 8-bit optimizers: fine steps near 1, ever coarser ones down to 1e-7, and a scale for each block."""

import functools

import numpy as np
from keras import ops

from keras_lrsched.precision import _exact

DECADES = 7
LARGEST = 2.0**126


@functools.cache
def dynamic_map(signed):
    """The 256 numbers that the codes 0 to 255 stand for, in ascending order, in float32.

        decade i = 0 ... 6:  10^(i-6) x the middles of n steps from 0.1 to 1,  n = 2^i, or 2^(i+1) without a sign
        and 0 and 1

    Args:
        signed: Whether there are negative numbers.

    Reference:
        Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861. The same numbers as in bitsandbytes
        0.50.2.

    Example:

    >>> dynamic_map(True)[[0, 127, 254, 255]]
    array([-0.99296874,  0.        ,  0.99296874,  1.        ], dtype=float32)
    """
    numbers = [0.0, 1.0]
    for decade in range(DECADES):
        edges = _steps(2 ** (decade + (not signed)))
        middles = np.float32(10.0 ** (decade - DECADES + 1)) * ((edges[:-1] + edges[1:]) / np.float32(2))
        numbers += [*middles, *(-middles if signed else ())]
    return np.sort(np.array(numbers, "float32"))


def _steps(count):
    """From 0.1 to 1, rounded as `torch.linspace` does, from both ends, so that the map is that of bitsandbytes."""
    i, step = np.arange(count + 1), np.float64(np.float32(0.9 / count))
    return np.where(i <= count // 2, np.float32(0.1) + step * i, 1 - step * (count - i)).astype("float32")


def quantize_blockwise(x, signed, block_size=256):
    """Numbers as codes of the nearest number of `dynamic_map`, in units of the largest of their block.

    Blocks lie in the flattened tensor; the last may be shorter. A block with a number that is not finite, or above 2^126, is
    not finite as a whole. Without a sign, only 0 becomes 0: one divides by the root of second moments, and where a gradient
    is 0 for once, a small one that had become 0 would make an update of any size. bitsandbytes rounds these to 0 too.

    Args:
        x: A float32 tensor of known shape.
        signed: Whether it has negative numbers.
        block_size: How many neighbors share a scale. Defaults to `256`.

    Returns:
        `(codes, absmax)`: uint8 in the shape of `x`, and a float32 number for each block.

    Example:

    >>> codes, absmax = quantize_blockwise(ops.array([0.0, -2.0, 0.02]), signed=True)
    >>> ops.convert_to_numpy(dequantize_blockwise(codes, absmax, signed=True)).round(4)
    array([ 0.    , -1.9859,  0.0194], dtype=float32)
    """
    blocks = split(x, block_size)
    absmax = _exact.floats(ops.max(_exact.magnitude(blocks), axis=1))  # as bits, where NaN is the largest
    # XLA multiplies by the inverse, which it flushes to zero for larger ones.
    absmax = ops.where(absmax > LARGEST, np.inf * absmax, absmax)
    codes = _nearest(blocks / ops.where(absmax == 0, 1.0, absmax)[:, None], signed)
    if not signed:
        codes = ops.maximum(codes, ops.cast(blocks > 0, "int32"))
    return join(ops.cast(codes, "uint8"), x.shape), absmax


def dequantize_blockwise(codes, absmax, signed, block_size=256):
    """The numbers that `quantize_blockwise` stored, in float32."""
    numbers = ops.take(ops.convert_to_tensor(dynamic_map(signed)), ops.cast(split(codes, block_size), "int32"))
    return join(numbers * absmax[:, None], codes.shape)


def split(x, size):
    """Rows of `size` neighbors of the flattened tensor, the last filled with zeros."""
    flat = ops.reshape(x, (-1,))
    rest = -flat.shape[0] % size
    return ops.reshape(ops.pad(flat, (0, rest)) if rest else flat, (-1, size))


def join(rows, shape):
    """The tensor of this shape whose rows these are."""
    size = int(np.prod(shape))
    return ops.reshape(ops.reshape(rows, (-1,))[:size], shape)


def _nearest(x, signed):
    """The code of the number that is nearest to each of -1 <= x <= 1, the lower of two.

    The upper half of the bits of `x` narrows it down to two neighbors.
    """
    lowest, middles = _table(signed)
    upper = ops.bitwise_and(ops.right_shift(_exact.bits(x), 16), 0xFFFF)
    code = ops.cast(ops.take(ops.convert_to_tensor(lowest), upper), "int32")
    return code + ops.cast(x > ops.take(ops.convert_to_tensor(middles), code), "int32")


@functools.cache
def _table(signed):
    """For the upper half of the bits of a float32 the lowest code of such numbers, and the middles between all codes."""
    numbers = dynamic_map(signed).astype("float64")
    middles = ((numbers[:-1] + numbers[1:]) / 2).astype("float32")
    bits = np.arange(2**16, dtype="uint32") << 16
    smallest = np.where(bits < 2**31, bits, bits | 0xFFFF).astype("uint32").view("float32")
    lowest = np.searchsorted(middles, np.nan_to_num(smallest, nan=0.0)).astype("uint8")
    return lowest, np.append(middles, np.float32(np.inf))

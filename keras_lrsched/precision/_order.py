"""Order statistics without a sort."""

from keras import ops

from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.precision._exact import bits, floats


def order_statistics(x, ranks):
    """The numbers that sorted float32 numbers have at `ranks`, int32, counted from zero.

    Bits are found from the highest: one is set if no more numbers than the rank are below what that gives. On a CPU, these
    32 counts take less time than a sort. Exports sort: they have no operations on bits.
    """
    if is_exporting():
        x = ops.reshape(x, (-1,))
        ordered = ops.sort(ops.where(ops.equal(x, x), x, float("inf")))
        # One by one: Keras' `take` of several on PyTorch squeezes an axis, which ONNX does only where its size is 1.
        return ops.stack([ops.take(ordered, ranks[i]) for i in range(ranks.shape[0])])
    keys = _in_order(bits(ops.reshape(x, (-1,))))

    def find_bit(i, found):
        candidates = found + ops.left_shift(ops.ones_like(found), 31 - i)  # the first goes from -2^31 to 0
        below = ops.stack([ops.sum(ops.cast(keys < candidates[j], "int32")) for j in range(found.shape[0])])
        return ops.where(below <= ranks, candidates, found)

    return floats(_in_order(ops.fori_loop(0, 32, find_bit, ops.full(ranks.shape, -(2**31), "int32"))))


def _in_order(bits):
    """From bits of float32 numbers to integers in the same order, or back."""
    return ops.where(bits < 0, ops.bitwise_xor(bits, 0x7FFFFFFF), bits)

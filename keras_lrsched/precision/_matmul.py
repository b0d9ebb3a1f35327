"""Products of quantized matrices: of int8 numbers as integers, of FP8 numbers as such where the hardware can, and of all
others as the float32 numbers that they stand for.
"""

from typing import Any

from keras import ops

from keras_lrsched._core.backends import view
from keras_lrsched._core.registry import register
from keras_lrsched.kernels import matmul as compiled
from keras_lrsched.precision._quantized import QuantizedTensor, dequantize
from keras_lrsched.precision.formats import Format

EXACT = 1024
"""So many products of int8 numbers have a sum that float32 holds exactly, in whatever order they are added."""


@register(
    title="the product of quantized tensors",
    paper="arXiv:2208.07339",
    checked="read",
    against="the papers: LLM.int8() for rows and columns, Jetfire (arXiv:2403.12422) for blocks",
    kind="product",
)
def matmul(a: QuantizedTensor, b: QuantizedTensor) -> Any:
    """The product of two quantized tensors, in float32.

        y[..., n] = sum_k a[..., k] b[k, n]

    The sum is over the axis that each was quantized along. If both are in INT8, with a scale for the tensor, for each row of
    `a` and each column of `b`, or for each 32 x 32 numbers, sums are exact integers, and scales come after; see
    `int8_matmul`. If both are in FP8, with a scale for the tensor and not both in E5M2, JAX multiplies them as such on GPUs
    that can, Ada, Hopper and later, and on all devices if `KERAS_LRSCHED_FUSED` is 1: sums of exact products in float32,
    then the scales. Products of other formats are taken in float32.

    Args:
        a: A `QuantizedTensor`, usually of shape (..., k), and quantized along the last axis.
        b: A `QuantizedTensor` with two axes, usually of shape (k, n), and quantized along the first.

    Returns:
        A tensor of the shape of `a` without the quantized axis, and after it the other axis of `b`.

    Raises:
        ValueError: If an argument is not quantized, or sizes do not fit.

    Reference:
        Dettmers et al., LLM.int8(), arXiv:2208.07339 (rows and columns); Xi et al., Jetfire, arXiv:2403.12422 (blocks).

    Example:

    >>> from keras_lrsched.precision import quantize
    >>> a = quantize(ops.array([[1.0, -2.0], [0.5, 0.25]]), "INT8_CHANNEL")
    >>> b = quantize(ops.array([[3.0], [1.0]]), "INT8", axis=0)
    >>> ops.convert_to_numpy(matmul(a, b)).round(2)
    array([[1.04],
           [1.75]], dtype=float32)
    """
    for name, x in (("a", a), ("b", b)):
        if not isinstance(x, QuantizedTensor):
            raise ValueError(f"`{name}` must be a `QuantizedTensor`. Received: {type(x).__name__}")
    if len(b.shape) != 2 or _differ(a.shape[a.axis], b.shape[b.axis]):
        raise ValueError(
            "`b` must have two axes, and the size of `a` in the one that was quantized. "
            f"Received: shapes {a.shape} and {b.shape}, axes {a.axis} and {b.axis}"
        )
    others = [size for i, size in enumerate(a.shape) if i != a.axis % len(a.shape)]
    n = b.shape[1 - b.axis % 2]
    if has_fp8_product(a.format, b.format):
        return ops.reshape(_multiply_fp8(a, b), (*others, n))
    if not has_integer_product(a.format, b.format):
        y = ops.matmul(_rows(dequantize(a), a.axis), ops.transpose(_rows(dequantize(b), b.axis)))
        return ops.reshape(y, (*others, n))
    y = int8_matmul(_matrix(a), _matrix(b), _scales(a), _scales(b), transpose_b=True)
    if _kind(a.format) == "blocks":  # whose rows are filled up to whole blocks
        y = ops.reshape(y, (*ops.shape(a.codes)[:-1], ops.shape(y)[-1]))[..., : others[-1], :n]
    return ops.reshape(y, (*others, n))


def multiply_integers(a: QuantizedTensor, b: QuantizedTensor) -> Any:
    """The product of two matrices in INT8 (m, k) and (k, n); those of a square format may have codes along either axis."""
    transposed = a.axis % 2 == 0, b.axis % 2 == 0
    y = int8_matmul(_matrix(a), _matrix(b), _scales(a), _scales(b), *transposed)
    return y[: a.shape[0], : b.shape[1]] if _kind(a.format) == "blocks" else y


def has_integer_product(left: Format, right: Format) -> bool:
    """Whether `matmul` multiplies tensors of these two `Format`s as integers."""
    return _kind(left) is not None and _kind(left) == _kind(right)


def has_fp8_product(left: Format, right: Format) -> bool:
    """Whether `matmul` multiplies tensors of these two `Format`s as FP8 numbers, here and now."""
    have_one_scale = all(format.block is None and format.scale == "float32" for format in (left, right))
    return have_one_scale and compiled.multiplies_fp8(left.element.name, right.element.name)


def _multiply_fp8(a: QuantizedTensor, b: QuantizedTensor) -> Any:
    left, right = (ops.reshape(x.codes, (-1, ops.shape(x.codes)[-1])) for x in (a, b))
    return compiled.multiply_fp8(left, right, a.format.element.name, b.format.element.name, a.scales * b.scales)


def int8_matmul(
    a: Any, b: Any, a_scales: Any = None, b_scales: Any = None, transpose_a: bool = False, transpose_b: bool = False
) -> Any:
    """The product of two int8 matrices, compiled where that can be had.

        s[m, n] = sum_k a[m, k] b[k, n]                                                 without scales, in int32
        y[m, n] = s[m, n] (a_scales[m] b_scales[n])                                     in float32
        y[m, n] = sum_q s_q[m, n] (a_scales[m / 32, q] b_scales[q, n / 32])             in float32, for scales of blocks

    with s_q the sum over the 32 neighbors k = 32 q, ...; q goes up one by one. Integers are exact for all of -128 to 127.
    Compiled and plain Keras operations give the same bits, but with scales of blocks where a compiler makes one operation of
    a multiplication and an addition, as XLA may. What is below 2^-126 may be flushed to zero, as elsewhere in TensorFlow.

    Args:
        a: An int8 matrix of shape (m, k).
        b: An int8 matrix of shape (k, n).
        a_scales: float32: one number; m numbers; or of shape (ceil(m / 32), ceil(k / 32)). Defaults to `None`.
        b_scales: float32: one number; n numbers; or of shape (ceil(k / 32), ceil(n / 32)). Defaults to `None`.
        transpose_a: Whether `a` and its scales of blocks are given transposed. Defaults to `False`.
        transpose_b: The same for `b`. Defaults to `False`.

    Raises:
        ValueError: If matrices or scales do not fit; or k is above 131071, where sums could overflow, but for scales of
            blocks.

    Example:

    >>> a, b = ops.array([[1, -2]], "int8"), ops.array([[100], [-128]], "int8")
    >>> ops.convert_to_numpy(int8_matmul(a, b))
    array([[356]], dtype=int32)
    """
    a, b, a_scales, b_scales = (_constant(each) for each in (a, b, a_scales, b_scales))
    output = compiled.check(a, b, a_scales, b_scales, transpose_a, transpose_b)
    if compiled.usable([each for each in (a, b, a_scales, b_scales) if each is not None], output):
        return compiled.multiply(a, b, a_scales, b_scales, transpose_a, transpose_b)
    return plain(a, b, a_scales, b_scales, transpose_a, transpose_b, output)


def _constant(x: Any) -> Any:
    return None if x is None else ops.stop_gradient(ops.convert_to_tensor(x))


def plain(a: Any, b: Any, a_scales: Any, b_scales: Any, transpose_a: bool, transpose_b: bool, output: str) -> Any:
    """`int8_matmul` in Keras operations."""
    a, b = (ops.transpose(x) if transposed else x for x, transposed in ((a, transpose_a), (b, transpose_b)))
    if output == "blocks":
        a_scales = ops.transpose(a_scales) if transpose_a else a_scales
        b_scales = ops.transpose(b_scales) if transpose_b else b_scales
        return _sum_blocks(a, b, a_scales, b_scales)
    sums = _sum_integers(a, b)
    if output == "int32":
        return sums
    return ops.cast(sums, "float32") * (ops.reshape(a_scales, (-1, 1)) * ops.reshape(b_scales, (1, -1)))


def _sum_integers(a: Any, b: Any) -> Any:
    if a.shape[1] is None or b.shape[0] is None:  # no loop can go over parts that a graph cannot count
        return ops.matmul(ops.cast(a, "int32"), ops.cast(b, "int32"))

    def add(sums: Any, pair: Any) -> tuple[Any, None]:
        return sums + ops.cast(ops.matmul(*pair), "int32"), None

    return ops.scan(add, ops.zeros((ops.shape(a)[0], ops.shape(b)[1]), "int32"), _cut(a, b, EXACT))[0]


def _sum_blocks(a: Any, b: Any, a_scales: Any, b_scales: Any) -> Any:
    m, n = ops.shape(a)[0], ops.shape(b)[1]
    left, right = _cut(a, b, compiled.BLOCK)
    left_scales = ops.repeat(ops.transpose(a_scales), compiled.BLOCK, axis=1)[:, :m]
    right_scales = ops.repeat(b_scales, compiled.BLOCK, axis=1)[:, :n]

    def product(block: Any) -> Any:
        left, right, left_scales, right_scales = block
        return ops.matmul(left, right) * (left_scales[..., :, None] * right_scales[..., None, :])

    blocks = left, right, left_scales, right_scales
    if left.shape[0] is None:  # as above; the last bits may differ
        return ops.sum(product(blocks), axis=0)
    return ops.scan(lambda sums, block: (sums + product(block), None), ops.zeros((m, n), "float32"), blocks)[0]


def _cut(a: Any, b: Any, size: int) -> tuple[Any, Any]:
    """Parts of k, in float32 and the last one filled with zeros: (parts, m, size) and (parts, size, n)."""
    missing = -ops.shape(a)[1] % size
    a = ops.pad(ops.cast(a, "float32"), [(0, 0), (0, missing)])
    b = ops.pad(ops.cast(b, "float32"), [(0, missing), (0, 0)])
    parts = ops.shape(a)[1] // size
    a = ops.transpose(ops.reshape(a, (ops.shape(a)[0], parts, size)), (1, 0, 2))
    return a, ops.reshape(b, (parts, size, ops.shape(b)[1]))


def _differ(one: Any, other: Any) -> bool:
    """Whether two sizes are known to differ; a graph may not know them."""
    return isinstance(one, int) and isinstance(other, int) and one != other


def _kind(format: Format) -> str | None:
    """The way in which scales are applied to integers: `"scaled"`, `"blocks"`, or `None` where there are no integers."""
    if format.element.name != "INT8" or format.scale != "float32":
        return None
    if format.block == (compiled.BLOCK, compiled.BLOCK):
        return "blocks"
    return "scaled" if format.block is None or format.block == (1, None) else None


def _matrix(x: QuantizedTensor) -> Any:
    """The codes as an int8 matrix, the quantized axis last."""
    return ops.reshape(view(x.codes, "int8"), (-1, ops.shape(x.codes)[-1]))


def _scales(x: QuantizedTensor) -> Any:
    """One scale for the tensor, one a row of the matrix, or a matrix of those of blocks."""
    return ops.reshape(x.scales, (-1, ops.shape(x.scales)[-1]) if _kind(x.format) == "blocks" else (-1,))


def _rows(x: Any, axis: int) -> Any:
    x = ops.moveaxis(x, axis, -1)
    return ops.reshape(x, (-1, ops.shape(x)[-1]))

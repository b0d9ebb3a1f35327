"""Compiled products of int8 matrices, and the products of FP8 matrices of JAX on GPUs; see `keras_lrsched.kernels` for the
setting.
"""

from collections.abc import Sequence

import keras
from keras import ops

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels._build import mode
from keras_lrsched.kernels._loading import binding, cannot_call, place

BLOCK = 32
MAX_K = 131071
"""Of sums in 32 bits: 2^17 (-128) (-128) = 2^31."""

FP8 = {"E4M3": "float8_e4m3fn", "E5M2": "float8_e5m2"}
"""The dtype of each FP8 element."""


def multiplies_fp8(left: str, right: str) -> bool:
    """Whether matrices of these two elements are multiplied as they are: on JAX where a GPU has such products, or, without a
    gain, anywhere if `KERAS_LRSCHED_FUSED` is 1. No GPU multiplies two matrices of E5M2.
    """
    if keras.backend.backend() != "jax" or mode() == "0" or not {left, right} <= set(FP8) or left == right == "E5M2":
        return False
    return mode() == "1" or binding("matmul").gpu_has_fp8()


def multiply_fp8(a: Tensor, b: Tensor, left: str, right: str, scale: Tensor) -> Tensor:
    """a b^T scale in float32, for FP8 matrices of shapes (m, k) and (n, k) whose elements are `left` and `right`.

    Args:
        a: Codes, as uint8 or as the dtype itself.
        b: The same.
        left: The element of `a`, a key of `FP8`.
        right: That of `b`.
        scale: A float32 scalar.
    """
    return binding("matmul").multiply_fp8(a, b, FP8[left], FP8[right], scale)


def usable(tensors: Sequence[Tensor], output: str) -> bool:
    """Whether there is compiled code for these tensors.

    Args:
        tensors: What is read.
        output: See `check`.

    Raises:
        RuntimeError: If there is none, and `KERAS_LRSCHED_FUSED` is 1.
    """
    if mode() == "0":
        return False
    reason = cannot_call("matmul", "product of int8 matrices", tensors, output)
    if reason is not None and mode() == "1":
        raise RuntimeError(f"The product of int8 matrices has no compiled code here: {reason}")
    return reason is None


def multiply(
    a: Tensor,
    b: Tensor,
    a_scales: Tensor | None = None,
    b_scales: Tensor | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> Tensor:
    """The compiled product; see `keras_lrsched.precision.int8_matmul`, which falls back to Keras operations."""
    output = check(a, b, a_scales, b_scales, transpose_a, transpose_b)
    binding("matmul").load(place())
    empty = ops.zeros((0,), "float32")
    scales = [empty if each is None else each for each in (a_scales, b_scales)]
    return binding("matmul").multiply(a, b, *scales, bool(transpose_a), bool(transpose_b), output)


def check(a: Tensor, b: Tensor, a_scales: Tensor, b_scales: Tensor, transpose_a: bool, transpose_b: bool) -> str:
    """The kind of the product: `"int32"`, `"scaled"` or `"blocks"`. Sizes that are not known yet are left to the kernel.

    Raises:
        ValueError: If matrices or scales do not fit.
    """
    for name, x in (("a", a), ("b", b)):
        if keras.backend.standardize_dtype(x.dtype) != "int8" or len(x.shape) != 2:
            raise ValueError(f"`{name}` must be an int8 matrix. Received: dtype={x.dtype}, shape={tuple(x.shape)}")
    m, k = a.shape[::-1] if transpose_a else a.shape
    other, n = b.shape[::-1] if transpose_b else b.shape
    if not _fits(k, other):
        raise ValueError(
            f"Both matrices must have the same size in the axis that is summed over. Received: a.shape={tuple(a.shape)}, "
            f"b.shape={tuple(b.shape)}, transpose_a={transpose_a}, transpose_b={transpose_b}"
        )
    output = _output(a_scales, b_scales)
    if output == "blocks":
        _check_blocks("a_scales", a_scales, (k, m) if transpose_a else (m, k))
        _check_blocks("b_scales", b_scales, (n, k) if transpose_b else (k, n))
        return output
    if k is not None and k > MAX_K:
        raise ValueError(f"Sums over more than {MAX_K} products could overflow 32 bits. Received: {k}")
    if output == "scaled":
        for name, scales, size in (("a_scales", a_scales, m), ("b_scales", b_scales, n)):
            if len(scales.shape) == 1 and scales.shape[0] != 1 and not _fits(scales.shape[0], size):
                raise ValueError(f"`{name}` must have 1 or {size} numbers. Received: shape={tuple(scales.shape)}")
    return output


def _output(a_scales: Tensor | None, b_scales: Tensor | None) -> str:
    if a_scales is None and b_scales is None:
        return "int32"
    if a_scales is None or b_scales is None:
        raise ValueError("Both matrices must have scales, or neither. Received: one of `a_scales` and `b_scales` is None")
    if keras.backend.standardize_dtype(a_scales.dtype) != "float32" or a_scales.dtype != b_scales.dtype:
        raise ValueError(f"Scales must be float32. Received: {a_scales.dtype} and {b_scales.dtype}")
    ranks = len(a_scales.shape), len(b_scales.shape)
    if ranks == (2, 2):
        return "blocks"
    if max(ranks) > 1:
        raise ValueError(
            "Scales must be one number, or one a row of `a` and a column of `b`, or those of blocks for both. "
            f"Received: shapes {tuple(a_scales.shape)} and {tuple(b_scales.shape)}"
        )
    return "scaled"


def _check_blocks(name: str, scales: Tensor, sizes: Sequence[int | None]) -> None:
    blocks = tuple(None if size is None else -(-size // BLOCK) for size in sizes)
    if not all(map(_fits, scales.shape, blocks)):
        raise ValueError(f"`{name}` must have the shape {blocks}. Received: shape={tuple(scales.shape)}")


def _fits(size: int | None, other: int | None) -> bool:
    return size is None or other is None or size == other

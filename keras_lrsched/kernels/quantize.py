"""Compiled quantization; see `keras_lrsched.kernels` for the setting.

Kernels take a tensor as (outer, columns, inner), quantized along `columns`, and a format as six integers: rows of the tensor
and of a block, columns of a block, element, rule of the scale, and whether to round stochastically.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels._build import mode
from keras_lrsched.kernels._lists import elements, scale_rules
from keras_lrsched.kernels._loading import binding, cannot_call

LARGEST_BLOCK = 16384
TILE = 16


def usable(format: Any, blocks: Any, tensors: Sequence[Tensor], writes: bool = True) -> bool:
    """Whether there is compiled code.

    Args:
        format: A `keras_lrsched.precision.Format`.
        blocks: How a tensor is cut, a `keras_lrsched.precision._blocks.Blocks`.
        tensors: What is read.
        writes: Whether codes are written, and not read. Defaults to `True`.

    Raises:
        RuntimeError: If there is none, and `KERAS_LRSCHED_FUSED` is 1.
    """
    if mode() == "0":
        return False
    reason = _unsuited(format, blocks, writes) or cannot_call("quantize", "quantization", tensors)
    if reason is not None and mode() == "1":
        raise RuntimeError(f"Quantization to {format.name} has no compiled code here: {reason}")
    return reason is None


def rotates(format: Any, blocks: Any, size: int) -> bool:
    """Whether the kernel for a format, where there is one, takes a Hadamard transform of `size` with it."""
    whole = format.block is None or format.block[1] is None
    columns = size if whole else math.lcm(format.block[1], size)
    return columns * max(format.rows, TILE) <= LARGEST_BLOCK and binding("quantize").rotates()


def quantize(
    x: Tensor, format: Any, blocks: Any, seed: Tensor | None = None, signs: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """-> (codes, scales, tensor scale), as a `QuantizedTensor` has them; stochastic rounding if there is a `seed`.

    Args:
        x: A tensor in float32 or bfloat16.
        format: A `Format`.
        blocks: The `Blocks` of `x`.
        seed: An int32 tensor of shape `(2,)`. Defaults to `None`.
        signs: Those of a Hadamard transform that comes first, as many as it has entries, contiguous in float32. Defaults to
            `None`, for no transform.
    """
    rows = _as_rows(x, blocks)
    spec, has_bytes = specify(format, blocks, seed is not None), format.scale != "float32"
    codes, scales, tensor_scale = binding("quantize").quantize(rows, spec, _seed(seed), _signs(signs), has_bytes)
    tensor_scale = ops.reshape(tensor_scale, ()) if format.scale == "nvfp4" else None
    padded = (*blocks.padded[:-1], blocks.padded[-1] * format.element.bits // 8)
    return ops.reshape(codes, (*blocks.leading, *padded)), blocks.join_scales(scales), tensor_scale


def fake_quantize(x: Tensor, format: Any, blocks: Any, seed: Tensor | None = None, signs: Tensor | None = None) -> Tensor:
    """The numbers that the codes stand for, in the dtype of `x`; arguments as for `quantize`."""
    spec = specify(format, blocks, seed is not None)
    y = binding("quantize").fake_quantize(_as_rows(x, blocks), spec, _seed(seed), _signs(signs))
    return ops.reshape(y, ops.shape(x))


def dequantize(
    codes: Tensor, scales: Tensor, tensor_scale: Tensor | None, shape: Sequence[Any], format: Any, blocks: Any
) -> Tensor:
    """The numbers that the codes stand for, in float32.

    Args:
        codes: See `QuantizedTensor`; and so the other fields.
        scales: As stored.
        tensor_scale: A scalar, or `None`.
        shape: Of the result.
        format: A `Format`.
        blocks: The `Blocks` of that shape.
    """
    codes = ops.reshape(codes, (-1, codes.shape[-1]))
    scales = ops.reshape(scales, (1, 1) if format.block is None else (-1, blocks.counts[-1]))
    tensor_scale = ops.ones((1,)) if tensor_scale is None else ops.reshape(tensor_scale, (1,))
    sizes = _sizes(shape, blocks.axis)
    y = binding("quantize").dequantize(codes, scales, tensor_scale, sizes, specify(format, blocks, False))
    return ops.reshape(y, shape)


def specify(format: Any, blocks: Any, is_stochastic: bool) -> tuple[int, ...]:
    """The six integers of a kernel for a `Format` and sizes."""
    rows = blocks.inner[0] if format.rows > 1 else 1
    rows = rows if isinstance(rows, int) else 0  # all that there are
    block = (0, 0) if format.block is None else (format.rows, format.block[1] or 0)
    element, rule = list(elements()).index(format.element.name), scale_rules().index(format.scale_rule)
    return (rows, *block, element, rule, int(is_stochastic))


def _seed(seed: Tensor | None) -> Tensor:
    return ops.zeros((2,), "int32") if seed is None else seed


def _signs(signs: Tensor | None) -> Tensor:
    return ops.zeros((0,), "float32") if signs is None else signs


def _sizes(shape: Sequence[Any], axis: int) -> tuple[int | None, int, int]:
    """(outer, columns, inner) of a shape; `None` for outer where it is not known."""
    outer, inner = shape[:axis], shape[axis + 1 :]
    return math.prod(outer) if _are_known(outer) else None, shape[axis], math.prod(inner)


def _as_rows(x: Tensor, blocks: Any) -> Tensor:
    outer, columns, inner = _sizes(tuple(ops.shape(x)), blocks.axis)
    return ops.reshape(x, (-1 if outer is None else outer, columns, inner))


def _unsuited(format: Any, blocks: Any, writes: bool) -> str | None:
    """Reason why there is no kernel for a format, or `None`."""
    element = format.element.name
    if elements().get(element) != dataclasses.astuple(format.element)[1:]:
        return f"no kernel has elements of type {element}."
    if format.scale == "nvfp4" and element != "E2M1":
        return f"no kernel has scales of NVFP4 for elements of type {element}."
    whole = format.block is None or format.block[1] is None
    if whole and format.scale != "float32":
        return "kernels require blocks of known size, or float32 scales."
    if not whole and format.block[1] * max(format.rows, 1 if blocks.axis == blocks.rank - 1 else TILE) > LARGEST_BLOCK:
        return f"a block is too large for them. Received: block={format.block}"
    if format.rows > 1 and blocks.leading and not _are_known(blocks.inner[:1]):
        return f"kernels require a known number of rows where blocks have several. Received: shape={blocks.shape}"
    if not writes and not _are_known(blocks.shape if format.rows > 1 else blocks.shape[blocks.axis :][:1]):
        return f"kernels require known sizes, to find the padding of codes. Received: shape={blocks.shape}"
    if not _are_known(blocks.shape[blocks.axis + 1 :]):
        return f"kernels require known sizes of the axes after the one that is quantized. Received: shape={blocks.shape}"
    return None


def _are_known(shape: Sequence[Any]) -> bool:
    return all(isinstance(size, int) for size in shape)

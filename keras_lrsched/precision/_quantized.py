"""A tensor in a low-precision format, and the way there and back."""

import dataclasses
from types import ModuleType
from typing import Any, Literal, TypeAlias

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.philox import key_of, random_bits
from keras_lrsched._core.registry import register
from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.kernels import quantize as compiled
from keras_lrsched.precision import _bit_numerics, _float_numerics, _scales
from keras_lrsched.precision._blocks import Blocks, pack, unpack
from keras_lrsched.precision._hadamard import checked_signs, hadamard
from keras_lrsched.precision._shared import shared
from keras_lrsched.precision.formats import Format, get_format

Rounding = Literal["nearest", "stochastic"]
Seed: TypeAlias = "int | keras.random.SeedGenerator | Any | None"
"""An integer, a generator, a tensor of two 32-bit integers, or `None`."""


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """The result of `quantize`. Two are equal if they are one object; on JAX it is a pytree of its arrays.

    Attributes:
        codes: uint8. The quantized axis is the last; it is filled with zeros up to whole blocks (and the axis before it, for
            blocks of several rows), or to whole bytes where the block is the axis or the tensor. Elements of 4 and 6 bits
            are packed, the first in the lowest bits.
        scales: One for each block: bytes E8M0 or E4M3 as uint8, or float32. The shape is that of the codes with blocks for
            the quantized axes; a scalar for formats with one scale for the tensor.
        format: The `Format`.
        shape: The shape of the tensor that was quantized.
        axis: The axis that was quantized.
        tensor_scale: The factor of all scales in NVFP4, a float32 scalar; `None` in other formats.
    """

    codes: Any
    scales: Any
    format: Format
    shape: tuple
    axis: int = -1
    tensor_scale: Any = None


if keras.backend.backend() == "jax":
    import jax

    jax.tree_util.register_dataclass(QuantizedTensor, ["codes", "scales", "tensor_scale"], ["format", "shape", "axis"])


@register(
    title="quantization to a format with scales for blocks",
    paper="https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf",
    code=("pytorch/ao", "NVIDIA/TransformerEngine"),
    checked="vectors",
    against="codes of pytorch/ao (scale rules `floor` and `rceil`) and of NVIDIA/TransformerEngine (NVFP4, in PyTorch)",
    deviations="`ceil` and `even` follow the description in pytorch/ao; `four_over_six` (arXiv:2512.02010) adds in pairs",
    kind="quantizer",
)
def quantize(
    x: Any,
    format: str | Format,
    axis: int = -1,
    rounding: Rounding = "nearest",
    seed: Seed = None,
    rotation: int = 0,
    signs: Any = None,
) -> "QuantizedTensor":
    """`x` in a low-precision format.

        codes = encode(x / scale)

    `x` is taken in float32. Blocks with NaN or infinity get the scale NaN, and dequantize to NaN as a whole. Results have
    the same bits on every backend, eager and compiled, and also in C++, which is used where it can be had, see
    `keras_lrsched.kernels`. An integer element has no negative zero.

    Args:
        x: A floating-point tensor. The size of its quantized axis must be known; any size will do, see `QuantizedTensor`.
        format: A name in `FORMATS`, or a `Format`.
        axis: The axis along which blocks lie: the one that a matrix product sums over. Defaults to `-1`.
        rounding: `"nearest"`, with ties to even; or `"stochastic"`: up or down, such that the expected value is the number
            itself, for numbers up to the largest element. With the rules `floor` and `even`, and in NVFP4, whose block
            scales are rounded, the largest numbers of a block may be beyond it. Defaults to `"nearest"`.
        seed: For stochastic rounding: an integer, a `keras.random.SeedGenerator`, or a tensor of two 32-bit integers.
            Element i of `x` in row-major order uses word i of the stream of Philox4x32-10. Defaults to `None`, which draws
            a seed.
        rotation: 16, 32 or 128: what is quantized is `hadamard(x, rotation, axis, signs)` in float32, where compiled in the
            same pass. Defaults to `0`, for `x` itself.
        signs: Those of the rotation. Defaults to `None`: all 1.

    Returns:
        A `QuantizedTensor`.

    Raises:
        ValueError: If an argument is none of these, or `x` is quantized already.

    Reference:
        OCP Microscaling Formats (MX) Specification v1.0; see `Format` for the others.

    Example:

    >>> q = quantize(keras.ops.array([0.25, -1.0, 2.6, 6.0]), "MXFP4")
    >>> len(q.codes), int(q.scales[0]) - 127
    (16, 0)
    >>> keras.ops.convert_to_numpy(dequantize(q))
    array([ 0., -1.,  3.,  6.], dtype=float32)
    """
    format = get_format(format)
    x, blocks, key = prepare(x, format, axis, rounding, seed)
    x, signs = rotate(x, format, blocks, rotation, signs)
    if compiled.usable(format, blocks, [x]):
        codes, stored, tensor_scale = compiled.quantize(x, format, blocks, key, signs)
        return QuantizedTensor(codes, stored, format, tuple(ops.shape(x)), int(axis), tensor_scale)
    codes, stored, tensor_scale = _quantize(x, key, format=format, axis=int(axis), rounding=rounding)
    return QuantizedTensor(codes, stored, format, tuple(ops.shape(x)), int(axis), tensor_scale)


def dequantize(x: QuantizedTensor) -> Any:
    """The numbers that a `QuantizedTensor` stands for, in float32 and in their original shape.

        scale decode(code)

    A product below 2^-126 is rounded to the nearest float32 after it was rounded to 24 bits.

    Args:
        x: A `QuantizedTensor`.

    Raises:
        ValueError: If `x` is not a `QuantizedTensor`.

    Example:

    >>> q = quantize(keras.ops.array([[1.0, -0.3], [100.0, 12.7]]), "INT8_CHANNEL")
    >>> keras.ops.convert_to_numpy(dequantize(q)).round(3)
    array([[  1.   ,  -0.299],
           [100.   ,  12.598]], dtype=float32)
    """
    if not isinstance(x, QuantizedTensor):
        raise ValueError(f"`x` must be a `QuantizedTensor`. Received: {type(x).__name__}")
    blocks = Blocks(x.shape, x.format, x.axis)
    if compiled.usable(x.format, blocks, [x.codes, x.scales], writes=False):
        return compiled.dequantize(x.codes, x.scales, x.tensor_scale, x.shape, x.format, blocks)
    return _dequantize(x.codes, x.scales, x.tensor_scale, *x.shape, format=x.format, axis=x.axis)


@shared
def _quantize(x: Any, key: Any, *, format: Format, axis: int, rounding: Rounding) -> tuple[Any, Any, Any]:
    """-> codes, scales and the scale of the tensor, in Keras operations."""
    coded, blocks = encode(x, format, axis, rounding, key)
    stored = blocks.join_scales(coded.scales)
    codes = pack(blocks.join_codes(coded.codes), format.element.bits)
    stored = stored if format.scale == "float32" else ops.cast(stored, "uint8")
    return codes, stored, None if coded.tensor_scale is None else ops.reshape(coded.tensor_scale, ())


@shared
def _dequantize(codes: Any, stored: Any, tensor_scale: Any, *shape: Any, format: Format, axis: int) -> Any:
    blocks = Blocks(shape, format, axis)
    codes = blocks.split_codes(unpack(codes, format.element.bits))
    stored = stored if format.scale == "float32" else ops.cast(stored, "int32")
    return blocks.join(decode(codes, blocks.split_scales(stored), tensor_scale, format))


@dataclasses.dataclass(frozen=True)
class Coded:
    """Blocks as unpacked int32 codes, with their scales; `values` are the numbers in units of the element.

    With `float_numerics`, numbers stand for codes.
    """

    codes: Any
    values: Any
    scales: Any
    tensor_scale: Any


def encode(
    x: Any, format: Format, axis: int, rounding: Rounding, seed: Any, numerics: ModuleType = _bit_numerics
) -> tuple["Coded", Blocks]:
    """-> (`Coded`, `Blocks`)."""
    validation.one_of("rounding", rounding, ("nearest", "stochastic"))
    x = as_float32(x)
    blocks = Blocks(tuple(ops.shape(x)), format, axis)
    fitted = _scales.fit(blocks.split(x), format, blocks.axes, numerics)
    noise = None
    if rounding == "stochastic":
        # 30 of the 32 bits: an int32 without its sign has no more room when a mantissa is added.
        noise = blocks.split(ops.bitwise_and(ops.right_shift(random_bits(ops.shape(x), seed), 2), 2**30 - 1))
    codes = numerics.encode(format.element, fitted.values, noise)
    return Coded(codes, fitted.values, fitted.scales, fitted.tensor_scale), blocks


def decode(codes: Any, block_scales: Any, tensor_scale: Any, format: Format, numerics: ModuleType = _bit_numerics) -> Any:
    """Blocked codes -> blocked float32 numbers."""
    return _scales.apply(numerics.decode(format.element, codes), block_scales, tensor_scale, format, numerics)


def numerics_of_numbers(rounding: Rounding = "nearest") -> ModuleType:
    """The arithmetic that quantizes numbers whose codes nobody sees: without operations on bits while a model is exported.

    Stochastic rounding has its random numbers from operations on bits in any case.
    """
    return _float_numerics if rounding == "nearest" and is_exporting() else _bit_numerics


def prepare(x: Any, format: Format, axis: int, rounding: Rounding, seed: Seed) -> tuple[Any, Blocks, Any]:
    """-> (a tensor in float32 or bfloat16, its `Blocks`, and for stochastic rounding the seed as a tensor)."""
    validation.one_of("rounding", rounding, ("nearest", "stochastic"))
    x = as_floats(x)
    blocks = Blocks(tuple(ops.shape(x)), format, axis)
    return x, blocks, ops.stack(key_of(seed)) if rounding == "stochastic" else None


def rotate(x: Any, format: Format, blocks: Blocks, rotation: int, signs: Any) -> tuple[Any, Any]:
    """-> (`x`, and the signs of a rotation that compiled code does with the rest; or `x` after it, and `None`)."""
    if not rotation:
        return x, None
    signs = checked_signs(x, rotation, blocks.axis, signs)
    if compiled.usable(format, blocks, [x]) and compiled.rotates(format, blocks, rotation):
        return x, signs
    return hadamard(ops.cast(x, "float32"), rotation, blocks.axis, signs), None


def as_float32(x: Any) -> Any:
    """A tensor, checked and in float32."""
    return ops.cast(as_floats(x), "float32")


def as_floats(x: Any) -> Any:
    """A tensor, checked, and in float32 unless it is in bfloat16."""
    if isinstance(x, QuantizedTensor):
        raise ValueError(f"`x` is quantized already, to {x.format.name}. Dequantize it first.")
    x = ops.stop_gradient(ops.convert_to_tensor(x))
    dtype = keras.backend.standardize_dtype(x.dtype)
    if "float" not in dtype:
        raise ValueError(f"`x` must be a floating-point tensor. Received: dtype={dtype}")
    if not len(x.shape) or 0 in tuple(x.shape):
        raise ValueError(f"`x` must have an axis, and numbers in it. Received: shape={tuple(x.shape)}")
    return x if dtype == "bfloat16" else ops.cast(x, "float32")

"""Operands of matrix products, and how each is quantized."""

import dataclasses
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.precision._fake_quantize import Gradient, fake_quantize, plain
from keras_lrsched.precision._hadamard import hadamard
from keras_lrsched.precision._quantized import QuantizedTensor, Rounding, dequantize, quantize
from keras_lrsched.precision.formats import Format, get_format


class QuantizedOperand(NamedTuple):
    """The numbers that an operand became, in float32 or as a `QuantizedTensor`, and what the gradient by it is multiplied
    with; `None` is 1.
    """

    values: Any
    factor: Any = None


@dataclasses.dataclass(frozen=True)
class Operand:
    """An operand that stays as it is; subclasses define `quantize`."""

    @property
    def element_bits(self) -> int:
        """Number of bits of an operand in a product on hardware; 16 for one that stays."""
        return 16

    @property
    def code_format(self) -> Format | None:
        """The `Format` of the codes of `encode`, or `None` where there is only `quantize`."""
        return None

    def is_encoded(self, x: Any) -> bool:
        """Whether `x` is a `QuantizedTensor` as this operand would encode it, along whichever axis."""
        return isinstance(x, QuantizedTensor) and x.format == self.code_format and x.format.is_square

    def shares_codes_with(self, other: "Operand") -> bool:
        """Whether its codes are also those of another operand for the same matrix along the other axis."""
        del other
        return False

    def encode(self, x: Any, axis: int, seed: Any) -> QuantizedTensor:
        """As `quantize`, but a `QuantizedTensor`; for operands with a `code_format`, or for what is encoded already."""
        del axis, seed
        return x

    def quantize(self, x: Any, axis: int, seed: Any) -> QuantizedOperand:
        """Quantize `x`, a float32 matrix that is summed over `axis`; `seed` is a tensor of two 32-bit integers."""
        del axis, seed
        return QuantizedOperand(x)

    def quantize_rotated(self, x: Any, axis: int, seed: Any, rotation: int, signs: Any) -> QuantizedOperand:
        """The same after a Hadamard transform of `rotation` numbers along the axis."""
        return self.quantize(hadamard(x, rotation, axis, signs), axis, seed)


IDENTITY = Operand()


@dataclasses.dataclass(frozen=True)
class Cast(Operand):
    """An operand in a named format.

    Args:
        format: A name in `FORMATS`, or a `Format`. Blocks lie along the axis that the product sums over.
        rounding: `"nearest"` or `"stochastic"`. Defaults to `"nearest"`.
        gradient: The estimator of the gradient, as in `fake_quantize`. Defaults to `"ste"`.

    Raises:
        ValueError: If an argument is none of these.
    """

    format: str | Format
    rounding: Rounding = "nearest"
    gradient: Gradient = "ste"

    def __post_init__(self) -> None:
        get_format(self.format)
        validation.one_of("rounding", self.rounding, ("nearest", "stochastic"))
        validation.one_of("gradient", self.gradient, ("ste", "dge", "trust"))

    @property
    def element_bits(self) -> int:
        return get_format(self.format).element.bits

    @property
    def code_format(self) -> Format | None:
        return get_format(self.format) if self.gradient == "ste" else None

    def shares_codes_with(self, other: Operand) -> bool:
        return self == other and self.rounding == "nearest" and self.code_format is not None and self.code_format.is_square

    def encode(self, x: Any, axis: int, seed: Any) -> QuantizedTensor:
        return x if self.is_encoded(x) else quantize(x, self.format, axis, self.rounding, seed)

    def quantize(self, x: Any, axis: int, seed: Any) -> QuantizedOperand:
        if self.gradient == "ste" or is_exporting():  # an export has no gradient
            return QuantizedOperand(fake_quantize(x, self.format, axis, self.rounding, seed))
        settings = {"axis": axis, "rounding": self.rounding, "gradient": self.gradient}
        return QuantizedOperand(*plain(x, seed, format=get_format(self.format), **settings))

    def quantize_rotated(self, x: Any, axis: int, seed: Any, rotation: int, signs: Any) -> QuantizedOperand:
        if self.gradient != "ste":
            return super().quantize_rotated(x, axis, seed, rotation, signs)
        return QuantizedOperand(fake_quantize(x, self.format, axis, self.rounding, seed, rotation=rotation, signs=signs))


def numbers(x: Any) -> Any:
    """A matrix in float32; one that is quantized may have codes in an FP8 dtype of the backend, which it decodes itself."""
    if not isinstance(x, QuantizedTensor):
        return x
    if "float8" not in keras.backend.standardize_dtype(x.codes.dtype):
        return dequantize(x)
    return ops.moveaxis(ops.cast(x.codes, "float32") * x.scales, -1, x.axis)


def transposed(x: Any) -> Any:
    """The transposed matrix; codes stay as they are."""
    if not isinstance(x, QuantizedTensor):
        return ops.transpose(x)
    return dataclasses.replace(x, shape=x.shape[::-1], axis=1 - x.axis % 2)


def along(x: QuantizedTensor, axis: int) -> QuantizedTensor:
    """A quantized matrix whose numbers share one scale, with the codes of `axis` last."""
    if x.axis % 2 == axis:
        return x
    return dataclasses.replace(x, codes=ops.transpose(x.codes), axis=axis)


def seed_of(seed: Any, number: int) -> Any:
    """Another seed for each number: both words together are the key of Philox."""
    return None if seed is None else seed + ops.convert_to_tensor([0, number], "int32")

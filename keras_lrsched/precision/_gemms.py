"""Matrix products whose operands are quantized, in the forward pass and in both products of the backward pass."""

import dataclasses
from typing import Any, Literal

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.backends import barrier
from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.precision._hadamard import SIZES, hadamard, random_signs
from keras_lrsched.precision._matmul import has_fp8_product, has_integer_product, matmul, multiply_integers
from keras_lrsched.precision._operands import IDENTITY, Operand, QuantizedOperand, along, numbers, seed_of, transposed
from keras_lrsched.precision._quantized import QuantizedTensor
from keras_lrsched.precision._residuals import custom_gradient
from keras_lrsched.precision.formats import Format


@dataclasses.dataclass(frozen=True)
class GemmSpec:
    """One matrix product: how its left operand (m, k) and its right operand (k, n) are quantized.

    Args:
        left: An `Operand`. Defaults to one that stays as it is.
        right: The same.
        rotation: The size of the Hadamard transform that both operands go through along k, 16, 32 or 128; zeros fill k up to
            a multiple. The product does not change by it. Defaults to `0`, for none.
        signs: The signs of the transform, `"random"` for new ones in each training step, or `None` for none. Defaults to
            `None`.
    """

    left: Operand = IDENTITY
    right: Operand = IDENTITY
    rotation: int = 0
    signs: Any = None

    def __post_init__(self) -> None:
        validation.one_of("rotation", self.rotation, (0, *SIZES))

    def quantize(self, left: Any, right: Any, seed: Any) -> tuple[QuantizedOperand, QuantizedOperand, Any]:
        """Both operands as `QuantizedOperand`, after the rotation, and its signs."""
        signs = self._signs(seed)
        left = self._quantize(self.left, left, 1, seed_of(seed, 0), signs)
        right = self._quantize(self.right, right, 0, seed_of(seed, 1), signs)
        return left, right, signs

    def encode(self, left: Any, right: Any, seed: Any) -> tuple[QuantizedTensor, QuantizedTensor, Any]:
        """The same, but as `QuantizedTensor`s; for operands with a `code_format`."""
        signs = self._signs(seed)
        left = self.left.encode(self._rotate(left, 1, signs), 1, seed_of(seed, 0))
        right = self.right.encode(self._rotate(right, 0, signs), 0, seed_of(seed, 1))
        return left, right, signs

    def multiply(self, left: Any, right: Any, seed: Any) -> Any:
        """The product, in float32; of integers and of FP8 numbers as such, where there is a product of these.

        An operand that stays as it is, or is quantized already, may be a `QuantizedTensor`.
        """
        pairs = (self.left, left), (self.right, right)
        left, right = (x if each is IDENTITY or each.is_encoded(x) else numbers(x) for each, x in pairs)
        if self.multiplies_codes(left, right):
            return product_as_codes(*self.encode(left, right, seed)[:2])
        left, right, _ = self.quantize(left, right, seed)
        return ops.matmul(left.values, right.values)

    def multiplies_codes(self, left: Any, right: Any) -> bool:
        """Whether both operands are encoded for which there is a product of their own."""
        one, other = _format(self.left, left), _format(self.right, right)
        if self.rotation or one is None or other is None:
            return False
        return has_fp8_product(one, other) or (self.has_codes and has_integer_product(one, other))

    @property
    def has_codes(self) -> bool:
        """Whether both operands have codes; in exports, products are of the numbers."""
        return None not in (self.left.code_format, self.right.code_format) and not is_exporting()

    def _quantize(self, operand: Operand, x: Any, axis: int, seed: Any, signs: Any) -> QuantizedOperand:
        if not self.rotation:
            return QuantizedOperand(numbers(x)) if operand.is_encoded(x) else operand.quantize(numbers(x), axis, seed)
        return operand.quantize_rotated(_fill(numbers(x), axis, self.rotation), axis, seed, self.rotation, signs)

    def _rotate(self, x: Any, axis: int, signs: Any) -> Any:
        return hadamard(_fill(x, axis, self.rotation), self.rotation, axis, signs) if self.rotation else x

    def rotate_back(self, x: Any, axis: int, signs: Any, size: int) -> Any:
        """The opposite of the rotation, for an axis that had `size` entries."""
        if not self.rotation:
            return x
        x = hadamard(x, self.rotation, axis, signs, inverse=True)
        return x[:, :size] if axis else x[:size]

    def _signs(self, seed: Any) -> Any:
        if isinstance(self.signs, str):
            return random_signs(self.rotation, seed_of(seed, 2))
        return self.signs


@dataclasses.dataclass(frozen=True)
class Rule:
    """The product of a layer's inputs with its kernel. A subclass may have variables, which the layer keeps."""

    def variables(self, layer: keras.layers.Layer) -> dict[str, dict[str, Any]]:
        """name -> arguments of `add_weight`, for each variable of the rule."""
        del layer
        return {}

    def __call__(self, x: Any, w: Any, variables: Any, seed: Any, training: bool) -> Any:
        """x w, for float32 matrices x (tokens, inputs) and w (inputs, outputs)."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LinearGemms(Rule):
    """The three products of a layer, y = x w, dx = dy w^T and dw = x^T dy, each with its own operands.

    The gradient by x and by w goes through the estimators of the operands of `fprop`; scales count as constants. Codes of
    a forward product that a backward product would compute again, as those of square blocks, are
    residuals instead of the numbers.

    Args:
        fprop: The `GemmSpec` of inputs (tokens, inputs) and kernel (inputs, outputs). Defaults to one that changes
            nothing.
        dgrad: That of dy (tokens, outputs) and the transposed kernel (outputs, inputs).
        wgrad: That of the transposed inputs (inputs, tokens) and dy (tokens, outputs).
        residuals: What the backward products start from: the `"original"` operands, or those that were `"quantized"` in the
            forward product, which then are rotated, too. Defaults to `"original"`.
    """

    fprop: GemmSpec = GemmSpec()
    dgrad: GemmSpec = GemmSpec()
    wgrad: GemmSpec = GemmSpec()
    residuals: Literal["original", "quantized"] = "original"

    def __post_init__(self) -> None:
        validation.one_of("residuals", self.residuals, ("original", "quantized"))
        if self.fprop.rotation and self.residuals == "original":
            raise ValueError("A rotated forward product needs residuals='quantized'. Received: residuals='original'")

    def __call__(self, x: Any, w: Any, variables: Any = None, seed: Any = None, training: bool = True) -> Any:
        @custom_gradient
        def multiplied(x: Any, w: Any) -> Any:
            y, left, right, signs = self._forward(x, w, seed_of(seed, 0))
            size = x.shape[1]  # not x itself, which would stay in memory

            def grad(*args: Any, upstream: Any = None) -> Any:
                return self._backward(args[0] if upstream is None else upstream, size, left, right, signs, seed)

            return y, grad

        return multiplied(x, w)

    def _forward(self, x: Any, w: Any, seed: Any) -> tuple[Any, QuantizedOperand, QuantizedOperand, Any]:
        """-> the product, both operands as the backward pass starts from them, and the signs of a rotation."""
        if self.residuals == "quantized" and self.fprop.has_codes:
            a, b, signs = self.fprop.encode(x, w, seed)
            return product_of_codes(a, b), QuantizedOperand(a), QuantizedOperand(b), signs
        if self.residuals == "original" and self.fprop.multiplies_codes(x, w):
            a, b, _ = self.fprop.encode(x, w, seed)
            left = a if self.fprop.left.shares_codes_with(self.wgrad.left) else x
            right = b if self.fprop.right.shares_codes_with(self.dgrad.right) else w
            return product_as_codes(a, b), QuantizedOperand(left), QuantizedOperand(right), None
        left, right, signs = self.fprop.quantize(x, w, seed)
        y = ops.matmul(left.values, right.values)
        if self.residuals == "original":
            left, right = QuantizedOperand(x, left.factor), QuantizedOperand(w, right.factor)
        return y, left, right, signs

    def _backward(
        self, dy: Any, size: int, left: QuantizedOperand, right: QuantizedOperand, signs: Any, seed: Any
    ) -> tuple[Any, Any]:
        left, right = (_later(each, dy) for each in (left, right))
        dx = self.dgrad.multiply(dy, transposed(right.values), seed_of(seed, 16))
        dw = self.wgrad.multiply(transposed(left.values), dy, seed_of(seed, 32))
        dx = self.fprop.rotate_back(_times(dx, left.factor), 1, signs, size)
        dw = self.fprop.rotate_back(_times(dw, right.factor), 0, signs, size)
        return dx, dw


def product_as_codes(left: QuantizedTensor, right: QuantizedTensor) -> Any:
    """That of two `QuantizedTensor`s whose codes have a product of their own."""
    if has_fp8_product(left.format, right.format):
        return matmul(along(left, 1), along(right, 0))
    return multiply_integers(left, right)


def product_of_codes(left: QuantizedTensor, right: QuantizedTensor) -> Any:
    """That of two `QuantizedTensor`s: of FP8 numbers where there is one, else of the float32 numbers that they stand for."""
    if has_fp8_product(left.format, right.format):
        return product_as_codes(left, right)
    return ops.matmul(numbers(left), numbers(right))


def _format(operand: Operand, x: Any) -> Format | None:
    """In which `Format` a product sees `x`; `None` for numbers that are not in one."""
    return x.format if operand is IDENTITY and isinstance(x, QuantizedTensor) else operand.code_format


def _later(operand: QuantizedOperand, dy: Any) -> QuantizedOperand:
    """A `QuantizedOperand` for a backward pass that starts with `dy`."""
    if not isinstance(operand.values, QuantizedTensor):
        return operand
    codes = barrier(operand.values.codes, dy)
    return QuantizedOperand(dataclasses.replace(operand.values, codes=codes), operand.factor)


def _times(x: Any, factor: Any) -> Any:
    return x if factor is None else x * factor


def _fill(x: Any, axis: int, multiple: int) -> Any:
    """`x` with zeros after its entries along `axis`, up to a multiple."""
    size = ops.shape(x)[axis]
    missing = (size + multiple - 1) // multiple * multiple - size  # no negative quotient: ONNX rounds it towards zero
    if isinstance(missing, int) and not missing:
        return x
    return ops.pad(x, [(0, missing) if i == axis else (0, 0) for i in range(2)])


def matrix(x: Any) -> Any:
    """A tensor as a float32 matrix: all axes but the last together."""
    return ops.cast(ops.reshape(x, (-1, x.shape[-1])), "float32")

"""Matrix products whose operands are written in few bits, in the forward pass and in both products of the backward pass."""

import dataclasses
from typing import Any

from keras import ops

from keras_lrsched.precision.hadamard import SIZES, hadamard, random_signs
from keras_lrsched.precision.matmul import has_integer_product, matmul
from keras_lrsched.precision.operand import AS_IS, Operand, Written, seed_of
from keras_lrsched.schedules import checks


@dataclasses.dataclass(frozen=True)
class Product:
    """One matrix product: how its left operand (m, k) and its right operand (k, n) are written.

    Args:
        left: An `Operand`. Defaults to one that stays as it is.
        right: The same.
        rotation: The size of the Hadamard transform that both operands go through along k, 16, 32 or 128; zeros fill k up to
            a multiple. The product does not change by it. Defaults to `0`, for none.
        signs: The signs of the transform, `"random"` for new ones in each training step, or `None` for none. Defaults to
            `None`.
    """

    left: Operand = AS_IS
    right: Operand = AS_IS
    rotation: int = 0
    signs: Any = None

    def __post_init__(self):
        checks.one_of("rotation", self.rotation, (0, *SIZES))

    def write(self, left, right, seed):
        """Both operands, rotated and as `Written`."""
        signs = self._signs(seed)
        left = self._write(self.left, left, 1, seed_of(seed, 0), signs)
        right = self._write(self.right, right, 0, seed_of(seed, 1), signs)
        return left, right, signs

    def multiply(self, left, right, seed):
        """The product, in float32; of integers as such, where there is a product of these."""
        if self.has_integers:
            return matmul(self.left.quantize(left, 1, seed_of(seed, 0)), self.right.quantize(right, 0, seed_of(seed, 1)))
        left, right, _ = self.write(left, right, seed)
        return ops.matmul(left.values, right.values)

    @property
    def has_integers(self):
        """Whether both operands are written as integers whose sums can be exact."""
        formats = [operand.integers for operand in (self.left, self.right)]
        return not self.rotation and None not in formats and has_integer_product(*formats)

    def _write(self, operand, x, axis, seed, signs):
        if not self.rotation:
            return operand.write(x, axis, seed)
        return operand.write_rotated(_fill(x, axis, self.rotation), axis, seed, self.rotation, signs)

    def rotate_back(self, x, axis, signs, size):
        """The opposite of the rotation, for an axis that had `size` entries."""
        if not self.rotation:
            return x
        x = hadamard(x, self.rotation, axis, signs, inverse=True)
        return x[:, :size] if axis else x[:size]

    def _signs(self, seed):
        if isinstance(self.signs, str):
            return random_signs(self.rotation, seed_of(seed, 2))
        return self.signs


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a layer multiplies its inputs with its kernel. A subclass may have variables, which the layer keeps."""

    def variables(self, layer):
        """name -> arguments of `add_weight`, for each variable that the rule wants."""
        del layer
        return {}

    def __call__(self, x, w, variables, seed, training):
        """x w, for float32 matrices x (tokens, inputs) and w (inputs, outputs)."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Products(Rule):
    """The three products of a layer, y = x w, dx = dy w^T and dw = x^T dy, each with its own operands.

    The gradient by x and by w goes through the estimators of the operands of `forward`; scales count as constants.

    Args:
        forward: The `Product` of inputs (tokens, inputs) and kernel (inputs, outputs). Defaults to one that changes
            nothing.
        input_gradient: That of dy (tokens, outputs) and the transposed kernel (outputs, inputs).
        kernel_gradient: That of the transposed inputs (inputs, tokens) and dy (tokens, outputs).
        saved: What the backward products start from: the `"original"` operands, or those that were `"written"` in the
            forward product, which then are rotated, too. Defaults to `"original"`.
    """

    forward: Product = Product()
    input_gradient: Product = Product()
    kernel_gradient: Product = Product()
    saved: str = "original"

    def __post_init__(self):
        checks.one_of("saved", self.saved, ("original", "written"))
        if self.forward.rotation and self.saved == "original":
            raise ValueError("A rotated forward product needs saved='written'. Received: saved='original'")

    def __call__(self, x, w, variables=None, seed=None, training=True):
        @ops.custom_gradient
        def multiplied(x, w):
            if self.saved == "original" and self.forward.has_integers:
                y, written = self.forward.multiply(x, w, seed_of(seed, 0)), (Written(x), Written(w), None)
            else:
                written = left, right, _ = self.forward.write(x, w, seed_of(seed, 0))
                y = ops.matmul(left.values, right.values)

            def grad(*args, upstream=None):
                return self._backward(args[0] if upstream is None else upstream, x, w, *written, seed)

            return y, grad

        return multiplied(x, w)

    def _backward(self, dy, x, w, left, right, signs, seed):
        if self.saved == "original":
            left, right = Written(x, left.factor), Written(w, right.factor)
        dx = self.input_gradient.multiply(dy, ops.transpose(right.values), seed_of(seed, 16))
        dw = self.kernel_gradient.multiply(ops.transpose(left.values), dy, seed_of(seed, 32))
        dx = self.forward.rotate_back(_times(dx, left.factor), 1, signs, x.shape[1])
        dw = self.forward.rotate_back(_times(dw, right.factor), 0, signs, x.shape[1])
        return dx, dw


def _times(x, factor):
    return x if factor is None else x * factor


def _fill(x, axis, multiple):
    """`x` with zeros after its entries along `axis`, up to a multiple."""
    missing = -ops.shape(x)[axis] % multiple
    if isinstance(missing, int) and not missing:
        return x
    return ops.pad(x, [(0, missing) if i == axis else (0, 0) for i in range(2)])


def matrix(x):
    """A tensor as a float32 matrix: all axes but the last together."""
    return ops.cast(ops.reshape(x, (-1, x.shape[-1])), "float32")

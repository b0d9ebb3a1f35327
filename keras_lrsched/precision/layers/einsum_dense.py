"""EinsumDense in low precision: the equation as one product of matrices."""

import math
from typing import Any

import keras
from keras import ops

from keras_lrsched.precision.layers._base import Quantized, add_adapter, quantizes


@quantizes(keras.layers.EinsumDense)
class QuantizedEinsumDense(Quantized, keras.layers.EinsumDense):
    """`keras.layers.EinsumDense` whose product follows a recipe.

    Axes that inputs and kernel share are summed over; the other axes of the inputs together are the tokens, and those of the
    kernel the outputs. Equations with an axis that all three have, or that only one operand has and the sum drops, have no
    such form.

    Args:
        *args: As for `EinsumDense`.
        recipe: A `Recipe` or its name. Defaults to `None`: as `EinsumDense`.
        context: A `LayerContext`; `quantize_model` sets it. Defaults to that of the only linear layer.
        **kwargs: As for `EinsumDense`.

    Raises:
        ValueError: At the first call, if the equation is not a product of matrices.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if self.gemm is None:
            return super().call(inputs, training=training)
        x = ops.cast(self._multiply(inputs, self._kernel), self.compute_dtype)
        x = add_adapter(self, x, lambda: self._adapter(inputs))
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)

    def _adapter(self, inputs: Any) -> Any:
        a, b = self.lora_kernel_a, self.lora_kernel_b
        kernel_axes, result = self.equation.replace(" ", "").split(",")[1].split("->")
        if kernel_axes[-1] != result[-1]:
            return ops.einsum(self.equation, inputs, ops.matmul(a, b))
        return ops.matmul(ops.einsum(self.equation, inputs, a), b)

    def _multiply(self, x: Any, w: Any) -> Any:
        tokens, summed, outputs, result, x_axes, w_axes = matrix_form(self.equation, len(x.shape))
        x = ops.transpose(x, [x_axes.index(axis) for axis in tokens + summed])
        w = ops.transpose(w, [w_axes.index(axis) for axis in summed + outputs])
        tokens_shape, outputs_shape = ops.shape(x)[: len(tokens)], w.shape[len(summed) :]
        inner = math.prod(w.shape[: len(summed)])
        y = self.gemm(ops.reshape(x, (-1, inner)), ops.reshape(w, (inner, -1)))
        y = ops.reshape(y, (*tokens_shape, *outputs_shape))
        return ops.transpose(y, [(tokens + outputs).index(axis) for axis in result])


def matrix_form(equation: str, rank: int) -> tuple[list[str], list[str], list[str], list[str], str, str]:
    """The names of the axes: tokens, summed, outputs, and of the result, the inputs and the kernel."""
    operands, result = equation.replace(" ", "").split("->")
    x_axes, w_axes = operands.split(",")
    unnamed = "".join(chr(0x100 + i) for i in range(rank - len(x_axes.replace("...", ""))))
    x_axes, result = x_axes.replace("...", unnamed), result.replace("...", unnamed)
    tokens = [axis for axis in x_axes if axis in result]
    summed = [axis for axis in x_axes if axis not in result]
    outputs = [axis for axis in w_axes if axis in result]
    fits = set(summed) == set(w_axes) - set(outputs) and not set(tokens) & set(outputs)
    if not fits or sorted(tokens + outputs) != sorted(result) or len(set(x_axes)) < len(x_axes):
        raise ValueError(f"The equation must be a product of matrices to be quantized. Received: {equation!r}")
    return tokens, summed, outputs, list(result), x_axes, w_axes

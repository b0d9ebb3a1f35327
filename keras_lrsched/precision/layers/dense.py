"""Dense in low precision."""

from typing import Any

import keras
from keras import ops

from keras_lrsched.precision.layers._base import Quantized, add_adapter, quantizes


@quantizes(keras.layers.Dense)
class QuantizedDense(Quantized, keras.layers.Dense):
    """`keras.layers.Dense` whose product of inputs and kernel follows a recipe.

    Args:
        *args: As for `Dense`.
        recipe: A `Recipe` or its name. Defaults to `None`: as `Dense`.
        context: A `LayerContext`; `quantize_model` sets it. Defaults to that of the only linear layer.
        **kwargs: As for `Dense`.

    Example:

    >>> layer = QuantizedDense(3, recipe="mxfp8")
    >>> layer(keras.ops.ones((2, 32))).shape == (2, 3)
    True
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if self.gemm is None:
            return super().call(inputs, training=training)
        x = ops.cast(self.gemm(inputs, self._kernel), self.compute_dtype)
        x = add_adapter(self, x, lambda: ops.matmul(ops.matmul(inputs, self.lora_kernel_a), self.lora_kernel_b))
        if self.bias is not None:
            x = ops.add(x, self.bias)
        return x if self.activation is None else self.activation(x)

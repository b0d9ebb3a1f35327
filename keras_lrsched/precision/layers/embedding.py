"""An embedding that is also the head of its model, with the head's product in low precision."""

from typing import Any

import keras
from keras import ops

from keras_lrsched._core import keras_private
from keras_lrsched.precision.layers._base import Quantized, add_adapter, quantizes


@quantizes(keras.layers.ReversibleEmbedding)
class QuantizedReversibleEmbedding(Quantized, keras.layers.ReversibleEmbedding):
    """`keras.layers.ReversibleEmbedding` whose product of inputs and embeddings (`reverse=True`) follows a recipe.

    Looking up embeddings stays as it is.

    Args:
        *args: As for `ReversibleEmbedding`.
        recipe: A `Recipe` or its name. Defaults to `None`: as `ReversibleEmbedding`.
        context: A `LayerContext`; `quantize_model` sets it. Defaults to that of the only layer.
        **kwargs: As for `ReversibleEmbedding`.
    """

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        if not reverse or self.gemm is None:
            return super().call(inputs, reverse=reverse)
        kernel = (
            ops.transpose(keras_private.embeddings_without_adapter(self)) if self.tie_weights else self.reverse_embeddings
        )
        logits = ops.cast(self.gemm(inputs, kernel), self.reverse_dtype or self.compute_dtype)
        if self.tie_weights:
            logits = add_adapter(self, logits, lambda: self._adapter(inputs))
        if self.logit_soft_cap is None:
            return logits
        return ops.multiply(ops.tanh(ops.divide(logits, self.logit_soft_cap)), self.logit_soft_cap)

    def _adapter(self, inputs: Any) -> Any:
        return ops.matmul(ops.matmul(inputs, ops.transpose(self.lora_embeddings_b)), ops.transpose(self.lora_embeddings_a))

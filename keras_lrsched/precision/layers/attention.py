"""Attention whose projections compute in low precision; the attention core does not."""

import keras

from keras_lrsched._core import keras_private
from keras_lrsched.precision.layers._base import QUANTIZED, Quantized, convert_in_place, quantizes
from keras_lrsched.precision.recipe import LayerContext, Recipe


class QuantizedAttention(Quantized):
    """Mixed into an attention layer: its projections are quantized layers, which it makes when it is built."""

    def use(self, recipe: Recipe | None, context: LayerContext) -> None:
        self.context = context
        self.recipe = recipe
        for number, layer in enumerate(projections(self)):
            if not isinstance(layer, Quantized):
                convert_in_place(layer, QUANTIZED[type(layer)])
            layer.use(recipe, context.part(number))

    def prepare(self, recipe: Recipe | None) -> None:
        for layer in projections(self):
            layer.prepare(recipe)

    def forget(self) -> None:
        super().forget()
        for layer in projections(self):
            layer.forget()
            convert_in_place(layer, layer.plain)


def projections(attention: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers in an attention layer that multiply with a kernel: of queries, keys, values and outputs, and of a gate.

    No property of the layer: Keras saves layers under the first attribute that has them.
    """
    return [layer for layer in keras_private.layers_within(attention) if hasattr(layer, "equation")]


_ARGUMENTS = """

    Args:
        *args: As without "Quantized".
        recipe: A `Recipe` or its name. Defaults to `None`: as without.
        context: A `LayerContext`; `quantize_model` sets it. Defaults to that of the only layer.
        **kwargs: As without "Quantized".
    """


@quantizes(keras.layers.MultiHeadAttention)
class QuantizedMultiHeadAttention(QuantizedAttention, keras.layers.MultiHeadAttention):
    __doc__ = "`keras.layers.MultiHeadAttention` whose projections follow a recipe." + _ARGUMENTS


@quantizes(keras.layers.GroupQueryAttention)
class QuantizedGroupQueryAttention(QuantizedAttention, keras.layers.GroupQueryAttention):
    __doc__ = "`keras.layers.GroupQueryAttention` whose projections follow a recipe." + _ARGUMENTS

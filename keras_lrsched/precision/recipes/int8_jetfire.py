"""Jetfire: INT8 with a scale for each 32 x 32 numbers."""

import dataclasses

from keras_lrsched._core.registry import register
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import Cast
from keras_lrsched.precision.recipe import LayerContext, Recipe


@register(
    "int8_jetfire",
    title="Jetfire: INT8 with 32 x 32 blocks in all three products",
    paper="arXiv:2403.12422",
    code=("thu-ml/Jetfire-INT8Training",),
    checked="read",
    against="thu-ml/Jetfire-INT8Training",
    deviations="layers without a product stay as they are; scales are float32, where theirs are float16",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class INT8Jetfire(Recipe):
    """INT8 in all three products, with a scale for each 32 x 32 numbers; gradients are rounded stochastically.

    Sums are exact within 32 numbers, and in float32 over these. Layers without a product are left as they are, where the
    authors' norms and activations read and write INT8, too; scales are float32, where theirs are float16.

    Args:
        head: Whether heads compute in INT8, too. Defaults to `False`.

    Reference:
        Xi et al., Jetfire: Efficient and Accurate Transformer Pretraining with INT8 Data Flow and Per-Block Quantization,
        arXiv:2403.12422; the authors' code, thu-ml/Jetfire-INT8Training, was read, not run.

    Example:

    >>> from keras_lrsched.precision import LayerContext
    >>> INT8Jetfire().rule(LayerContext()).dgrad.left.rounding
    'stochastic'
    """

    head: bool = False

    def rule(self, context: LayerContext) -> Rule | None:
        if context.role == "head" and not self.head:
            return None
        cast, gradient = Cast("INT8_BLOCK32X32"), Cast("INT8_BLOCK32X32", "stochastic")
        return LinearGemms(GemmSpec(cast, cast), GemmSpec(gradient, cast), GemmSpec(cast, gradient))

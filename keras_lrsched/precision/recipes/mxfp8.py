"""MXFP8 in all three products."""

import dataclasses

from keras_lrsched._core.registry import register
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import Cast
from keras_lrsched.precision.formats import get_format
from keras_lrsched.precision.recipe import LayerContext, Recipe


@register(
    "mxfp8",
    title="MXFP8 in all three products",
    paper="arXiv:2506.08027",
    code=("NVIDIA/TransformerEngine",),
    checked="read",
    against="`MXFP8BlockScaling` of Transformer Engine",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class MXFP8(Recipe):
    """MXFP8: E4M3 with a power of two as the scale of each 32 numbers, for all operands of all products.

    The scale is rounded up, so that nothing saturates. Each operand is quantized along the axis that its product sums over,
    from the original numbers.

    Args:
        scale_rule: As in `Format`. Defaults to `"rceil"`.
        head: Whether heads compute in MXFP8, too. Defaults to `False`.

    Reference:
        Mishra et al., Recipes for Pre-training LLMs with MXFP8, arXiv:2506.08027; Transformer Engine, `MXFP8BlockScaling`,
        read, not run.

    Example:

    >>> from keras_lrsched.precision import LayerContext
    >>> MXFP8().rule(LayerContext()).fprop.left.format.name
    'MXFP8_E4M3'
    """

    scale_rule: str = "rceil"
    head: bool = False

    def rule(self, context: LayerContext) -> Rule | None:
        if context.role == "head" and not self.head:
            return None
        cast = Cast(get_format("MXFP8_E4M3", scale_rule=self.scale_rule))
        product = GemmSpec(cast, cast)
        return LinearGemms(product, product, product)

"""FP8 with the scale of the very tensor."""

import dataclasses

from keras_lrsched._core.registry import register
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import Cast
from keras_lrsched.precision.formats import get_format
from keras_lrsched.precision.recipe import LayerContext, Recipe


@register(
    "fp8_current",
    title="FP8 with a scale from the tensor itself",
    paper="arXiv:2209.05433",
    code=("NVIDIA/TransformerEngine",),
    checked="read",
    against="`Float8CurrentScaling` of Transformer Engine",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class FP8Current(Recipe):
    """FP8 with current scaling: one scale for each tensor, from its largest magnitude.

    Inputs and kernel are E4M3 in all products, the gradient of the outputs is E5M2.

    Args:
        power_of_two: Whether scales are powers of two. Defaults to `False`.
        head: Whether heads compute in FP8, too. Defaults to `False`.

    Reference:
        Micikevicius et al., FP8 Formats for Deep Learning, arXiv:2209.05433; Transformer Engine, `Float8CurrentScaling`,
        read, not run.

    Example:

    >>> from keras_lrsched.precision import LayerContext
    >>> FP8Current().rule(LayerContext()).dgrad.left.format.name
    'FP8_E5M2'
    """

    power_of_two: bool = False
    head: bool = False

    def rule(self, context: LayerContext) -> Rule | None:
        if context.role == "head" and not self.head:
            return None
        rule = "power_of_two" if self.power_of_two else "exact"
        narrow = Cast(get_format("FP8_E4M3", scale_rule=rule))
        wide = Cast(get_format("FP8_E5M2", scale_rule=rule))
        return LinearGemms(GemmSpec(narrow, narrow), GemmSpec(wide, narrow), GemmSpec(narrow, wide))

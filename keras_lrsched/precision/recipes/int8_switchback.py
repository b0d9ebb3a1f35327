"""SwitchBack: INT8 in the two products that are summed over features; the gradient of the kernel stays."""

import dataclasses

from keras_lrsched._core.registry import register
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import Cast
from keras_lrsched.precision.recipe import LayerContext, Recipe


@register(
    "int8_switchback",
    title="SwitchBack: INT8 forward and for the gradient of the inputs",
    paper="arXiv:2304.13013",
    code=("bitsandbytes-foundation/bitsandbytes",),
    checked="read",
    against="parts of the authors' code, formerly a module of bitsandbytes",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class INT8Switchback(Recipe):
    """INT8 for y = x w and dx = dy w^T; dw = x^T dy stays as it is.

    Inputs and gradients have a scale for each token, kernels one for the tensor, or for each of their columns.

    Args:
        vectorwise: Whether kernels have a scale for each number of outputs (in the backward product: of inputs). Defaults to
            `False`.
        head: Whether heads compute in INT8, too. Defaults to `False`.

    Reference:
        Wortsman et al., Stable and low-precision training for large-scale vision-language models, arXiv:2304.13013; the
        authors' code, formerly a module of bitsandbytes, was read in parts, not run.

    Example:

    >>> from keras_lrsched.precision import LayerContext
    >>> INT8Switchback().rule(LayerContext()).fprop.left.format
    'INT8_CHANNEL'
    """

    vectorwise: bool = False
    head: bool = False

    def rule(self, context: LayerContext) -> Rule | None:
        if context.role == "head" and not self.head:
            return None
        product = GemmSpec(Cast("INT8_CHANNEL"), Cast("INT8_CHANNEL" if self.vectorwise else "INT8"))
        return LinearGemms(product, product)

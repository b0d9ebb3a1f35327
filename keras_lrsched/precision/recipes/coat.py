"""COAT: FP8 products whose residuals are in FP8."""

import dataclasses

from keras_lrsched._core.registry import register
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import Cast
from keras_lrsched.precision.recipe import LayerContext, Recipe


@register(
    "coat",
    title="COAT: FP8 products with FP8 residuals",
    paper="arXiv:2410.19313",
    code=("NVlabs/COAT",),
    checked="read",
    against="NVlabs/COAT",
    deviations="a scale for each tensor; activations of layers without a product stay as they are",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class Coat(Recipe):
    """COAT: inputs and kernels in E4M3 with a scale for each tensor; backward products start from the quantized numbers.

    The gradient of the outputs is E5M2. The other half of the method, the optimizer's state in 8 bits, is
    `QuantizedState(optimizer, "coat")`. Residuals, inputs and kernels, take one byte a number. Activations
    of layers without a product stay as they are.

    Args:
        head: Whether heads compute in FP8, too. Defaults to `False`.

    Reference:
        Xi et al., COAT: Compressing Optimizer states and Activation for Memory-Efficient FP8 Training, arXiv:2410.19313; the
        authors' code, NVlabs/COAT, was read, not run.

    Example:

    >>> from keras_lrsched.precision import LayerContext
    >>> Coat().rule(LayerContext()).residuals
    'quantized'
    """

    head: bool = False

    def rule(self, context: LayerContext) -> Rule | None:
        if context.role == "head" and not self.head:
            return None
        narrow, wide = Cast("FP8_E4M3"), Cast("FP8_E5M2")
        # The residuals are in E4M3 already: quantizing them again changes nothing.
        return LinearGemms(GemmSpec(narrow, narrow), GemmSpec(wide), GemmSpec(right=wide), residuals="quantized")

"""NVFP4 with two-dimensional weight scales, random Hadamard transforms and stochastic rounding."""

import dataclasses

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._hadamard import NVFP4_SIGNS
from keras_lrsched.precision._operands import Cast
from keras_lrsched.precision.recipe import LayerContext, Recipe


@register(
    "nvfp4",
    title="NVFP4 with Hadamard transforms and stochastic rounding",
    paper="arXiv:2509.25149",
    code=("NVIDIA/TransformerEngine",),
    checked="vectors",
    against="the format: codes of the PyTorch reference in NVIDIA/TransformerEngine",
    deviations="the share of layers that stay is as reported by others",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class NVFP4(Recipe):
    """NVFP4 in all three products.

    Kernels have a scale for each 16 x 16 numbers, and so the same numbers in both products; inputs and gradients one for
    each 16 in a row. Gradients are rounded stochastically. The operands of the kernel's gradient go through a Hadamard
    transform of 16 tokens each, with fixed signs. Heads and the last layers of the model stay as they are.

    Args:
        hadamard: Whether there is a transform. Defaults to `True`.
        stochastic_rounding: Whether gradients are rounded stochastically. Defaults to `True`.
        two_dimensional: Whether kernels have two-dimensional scales. Defaults to `True`.
        keep_last: The share of layers at the end that stay. Defaults to `0.15`.

    Raises:
        ValueError: If `keep_last` is not between 0 and 1.

    Reference:
        NVIDIA, Pretraining Large Language Models with NVFP4, arXiv:2509.25149. The format agrees with the PyTorch reference
        in NVIDIA/TransformerEngine; the share of layers that stay is as reported by others.

    Example:

    >>> from keras_lrsched.precision import LayerContext
    >>> NVFP4().rule(LayerContext()).dgrad.right.format
    'NVFP4_2D'
    """

    hadamard: bool = True
    stochastic_rounding: bool = True
    two_dimensional: bool = True
    keep_last: float = 0.15

    def __post_init__(self) -> None:
        validation.fraction("keep_last", self.keep_last)

    def rule(self, context: LayerContext) -> Rule | None:
        if context.role == "head" or context.count - context.index <= round(self.keep_last * context.count):
            return None
        inputs = Cast("NVFP4")
        kernel = Cast("NVFP4_2D" if self.two_dimensional else "NVFP4")
        gradient = Cast("NVFP4", "stochastic" if self.stochastic_rounding else "nearest")
        rotation, signs = (16, NVFP4_SIGNS) if self.hadamard else (0, None)
        return LinearGemms(GemmSpec(inputs, kernel), GemmSpec(gradient, kernel), GemmSpec(inputs, gradient, rotation, signs))

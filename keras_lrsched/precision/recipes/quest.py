"""QuEST: a grid that fits normal numbers, and a gradient that is trusted where rounding moved little."""

import dataclasses
from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.precision import _quest
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import Operand, QuantizedOperand
from keras_lrsched.precision.recipe import LayerContext, Recipe


@dataclasses.dataclass(frozen=True)
class OnGrid(Operand):
    """An operand on the grid of `precision.quest`, which is fitted along the axis that is summed over."""

    bits: int

    @property
    def element_bits(self) -> int:
        return self.bits

    def quantize(self, x: Any, axis: int, seed: Any) -> QuantizedOperand:
        return QuantizedOperand(*_quest.on_grid(x, self.bits, axis))


@register(
    "quest",
    title="QuEST: a grid for normal numbers and a trusted gradient",
    paper="arXiv:2502.05003",
    code=("IST-DASLab/QuEST",),
    checked="vectors",
    against="grid and mask: values of IST-DASLab/QuEST",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class Quest(Recipe):
    """Inputs and kernels on a centered grid of 2^bits levels, after a Hadamard transform of 128 numbers each.

    The backward products are as they are, from the numbers that were quantized forward, with the mask of `quest`. Where the
    transform does not divide an axis, zeros fill it, which count in its standard deviation.

    Args:
        bits: 1 to 8. Defaults to `4`.
        head: Whether heads compute so, too. Defaults to `False`.

    Raises:
        ValueError: If `bits` is none of these.

    Reference:
        Panferov et al., QuEST: Stable Training of LLMs with 1-Bit Weights and Activations, arXiv:2502.05003; the grid and
        the mask agree with the authors' code, IST-DASLab/QuEST.

    Example:

    >>> from keras_lrsched.precision import LayerContext
    >>> Quest(bits=2).rule(LayerContext()).fprop.rotation
    128
    """

    bits: int = 4
    head: bool = False

    def __post_init__(self) -> None:
        validation.one_of("bits", self.bits, tuple(_quest.CLIPS))

    def rule(self, context: LayerContext) -> Rule | None:
        if context.role == "head" and not self.head:
            return None
        return LinearGemms(GemmSpec(OnGrid(self.bits), OnGrid(self.bits), rotation=128), residuals="quantized")

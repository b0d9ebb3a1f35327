"""FP4 feed-forward layers and FP8 attention, then a stage in the target precision."""

import dataclasses

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import Cast
from keras_lrsched.precision.elements import E2M1, E4M3, E5M2, Element
from keras_lrsched.precision.formats import Format
from keras_lrsched.precision.recipe import LayerContext, Recipe


@register(
    "fp4_target_precision",
    title="FP4 feed-forward layers, FP8 attention, a last stage in the target precision",
    paper="arXiv:2502.11458",
    checked="memory",
    against="reports by others on which product has which precision; there is no official code",
    deviations="the size of blocks, the rounding, and E5M2 for gradients are unverified",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class FP4TargetPrecision(Recipe):
    """Feed-forward layers forward in FP4 (E2M1), attention projections forward in FP8, backward products in FP8.

    The attention core, norms, embeddings and heads stay. Scales are float32, one for each block of numbers along the axis
    that is summed over; rounding is to the nearest, the gradient is straight-through. The last steps of a run are to be done
    in the target precision: `callbacks.PrecisionSchedule.with_target_stage`.

    Args:
        block_size: How many numbers share a scale. Defaults to `128` (unverified).

    Raises:
        ValueError: If `block_size` is not a positive even integer.

    Reference:
        Zhou et al., Towards Efficient Pre-training: Exploring FP4 Precision in Large Language Models, arXiv:2502.11458.
        There is no official code. Which product has which precision is as reported by others; the size of blocks, the
        rounding, and E5M2 for gradients are unverified.

    Example:

    >>> from keras_lrsched.precision import LayerContext
    >>> FP4TargetPrecision().rule(LayerContext("attention")).fprop.left.format.element
    E4M3
    """

    block_size: int = 128

    def __post_init__(self) -> None:
        validation.positive_int("block_size", self.block_size)
        self._cast(E2M1)

    def rule(self, context: LayerContext) -> Rule | None:
        if context.role == "head":
            return None
        forward = self._cast(E4M3 if context.role == "attention" else E2M1)
        narrow, wide = self._cast(E4M3), self._cast(E5M2)
        return LinearGemms(GemmSpec(forward, forward), GemmSpec(wide, narrow), GemmSpec(narrow, wide))

    def _cast(self, element: Element) -> Cast:
        return Cast(Format(f"{element}_BLOCK{self.block_size}", element, (1, self.block_size), "float32"))

"""FP4 with a differentiable gradient estimator for weights, and with the outliers of activations apart."""

import dataclasses
from typing import Any

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.precision._exact import bits, floats
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import Cast, Operand, QuantizedOperand
from keras_lrsched.precision.elements import E2M1
from keras_lrsched.precision.formats import Format
from keras_lrsched.precision.recipe import LayerContext, Recipe

FP4_ROW = Format("FP4_ROW", E2M1, (1, None), "float32")
"""E2M1 with a scale for each token or each output channel."""


@dataclasses.dataclass(frozen=True)
class Compensated(Operand):
    """An operand clamped to its quantiles and quantized, plus what the clamp cut off as it was.

        y = quantize(clamp(x)) + (x - clamp(x))

    With x sorted, the limits are the numbers at int(quantile n) and int((1 - quantile) n).
    """

    inner: Operand
    quantile: float

    @property
    def element_bits(self) -> int:
        return self.inner.element_bits

    def quantize(self, x: Any, axis: int, seed: Any) -> QuantizedOperand:
        n = ops.prod(ops.cast(ops.shape(x), "int32"))
        high, low = (ops.cast(quantile * ops.cast(n, "float32"), "int32") for quantile in (self.quantile, 1 - self.quantile))
        limits = order_statistics(x, ops.stack([low, ops.minimum(high, n - 1)]))
        clamped = ops.clip(x, limits[0], limits[1])
        return QuantizedOperand(self.inner.quantize(clamped, axis, seed).values + (x - clamped))


@register(
    "fp4_dge",
    title="FP4 forward with a differentiable gradient estimator",
    paper="arXiv:2501.17116",
    code=("Azure/MS-AMP",),
    checked="vectors",
    against="the estimator: values in the tests of Azure/MS-AMP",
    deviations="the formats of the backward products are unverified",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class FP4DGE(Recipe):
    """Forward products in FP4: inputs with a scale for each token, kernels with one for each output channel.

    Inputs are clamped to their quantiles; what that cuts off, a sparse matrix, is multiplied as it is. The gradient by a
    kernel goes through `dge_factor`. Backward products are in FP8 with a scale for each tensor (E4M3; gradients E5M2).

    Args:
        quantile: Where inputs are clamped. Defaults to `0.99`.
        head: Whether heads compute so, too. Defaults to `False`.

    Raises:
        ValueError: If `quantile` is not between 0.5 and 1.

    Reference:
        Wang et al., Optimizing Large Language Model Training Using FP4 Quantization, arXiv:2501.17116. The estimator agrees
        with the tests of the authors' code, Azure/MS-AMP; the formats of the backward products are unverified.

    Example:

    >>> from keras_lrsched.precision import LayerContext
    >>> FP4DGE().rule(LayerContext()).fprop.right.gradient
    'dge'
    """

    quantile: float = 0.99
    head: bool = False

    def __post_init__(self) -> None:
        validation.between("quantile", self.quantile, 0.5, 1)

    def rule(self, context: LayerContext) -> Rule | None:
        if context.role == "head" and not self.head:
            return None
        narrow, wide = Cast("FP8_E4M3"), Cast("FP8_E5M2")
        forward = GemmSpec(Compensated(Cast(FP4_ROW), self.quantile), Cast(FP4_ROW, gradient="dge"))
        return LinearGemms(forward, GemmSpec(wide, narrow), GemmSpec(narrow, wide))


def order_statistics(x: Any, ranks: Any) -> Any:
    """The numbers that sorted float32 numbers have at `ranks`, int32, counted from zero.

    Bits are found from the highest: one is set if no more numbers than the rank are below what that gives. On a CPU, these
    32 counts take less time than a sort. Exports sort: they have no operations on bits.
    """
    if is_exporting():
        x = ops.reshape(x, (-1,))
        ordered = ops.sort(ops.where(ops.equal(x, x), x, float("inf")))
        # One by one: Keras' `take` of several on PyTorch squeezes an axis, which ONNX does only where its size is 1.
        return ops.stack([ops.take(ordered, ranks[i]) for i in range(ranks.shape[0])])
    keys = _in_order(bits(ops.reshape(x, (-1,))))

    def find_bit(i: Any, found: Any) -> Any:
        candidates = found + ops.left_shift(ops.ones_like(found), 31 - i)  # the first goes from -2^31 to 0
        below = ops.stack([ops.sum(ops.cast(keys < candidates[j], "int32")) for j in range(found.shape[0])])
        return ops.where(below <= ranks, candidates, found)

    return floats(_in_order(ops.fori_loop(0, 32, find_bit, ops.full(ranks.shape, -(2**31), "int32"))))


def _in_order(bits: Any) -> Any:
    """From bits of float32 numbers to integers in the same order, or back."""
    return ops.where(bits < 0, ops.bitwise_xor(bits, 0x7FFFFFFF), bits)

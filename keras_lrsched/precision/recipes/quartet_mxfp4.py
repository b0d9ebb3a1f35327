"""Quartet: MXFP4 fitted to the standard deviation forward, and unbiased backward."""

import dataclasses
from typing import Any

from keras import ops

from keras_lrsched._core.philox import rounding_noise
from keras_lrsched._core.registry import register
from keras_lrsched.precision import _bit_numerics, _exact
from keras_lrsched.precision._blocks import Blocks
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import Operand, QuantizedOperand
from keras_lrsched.precision._quantized import numerics_of_numbers
from keras_lrsched.precision.elements import E2M1
from keras_lrsched.precision.formats import get_format
from keras_lrsched.precision.recipe import LayerContext, Recipe

MXFP4 = get_format("MXFP4")
CLIP = 2.92247856
"""Where E2M1 is clipped, in standard deviations, for the smallest squared error of normal numbers."""


@dataclasses.dataclass(frozen=True)
class FittedMXFP4(Operand):
    """MXFP4 with a scale from the standard deviation of the 32 numbers, and a gradient where nothing was clipped.

    s = 2^floor(log2(c/6 sqrt(E[x^2] - E[x]^2) + 1e-8)),  mask = |x / s| < 6
    """

    element_bits = E2M1.bits

    def quantize(self, x: Any, axis: int, seed: Any) -> QuantizedOperand:
        blocks = Blocks(tuple(ops.shape(x)), MXFP4, axis)
        x = blocks.split(x)
        mean = ops.mean(x, axis=blocks.axes, keepdims=True)
        variance = ops.mean(ops.square(x), axis=blocks.axes, keepdims=True) - ops.square(mean)
        deviation = ops.sqrt(ops.maximum(variance, 0.0))
        numerics = numerics_of_numbers()
        exponent = numerics.exponent(CLIP / E2M1.max * deviation + 1e-8)
        values = numerics.divide_by_power(x, exponent)
        quantized = numerics.multiply_by_power(numerics.decode(E2M1, numerics.encode(E2M1, values)), exponent)
        return QuantizedOperand(blocks.join(quantized), blocks.join(ops.cast(ops.absolute(values) < E2M1.max, "float32")))


@dataclasses.dataclass(frozen=True)
class UnbiasedMXFP4(Operand):
    """MXFP4, stochastically rounded, of numbers that are first shrunk to 3/4 so that none saturates.

    s = 2^(floor(log2 max|x|) - 2),  y = 4/3 s round(3/4 x / s)
    """

    element_bits = E2M1.bits

    def quantize(self, x: Any, axis: int, seed: Any) -> QuantizedOperand:
        blocks = Blocks(tuple(ops.shape(x)), MXFP4, axis)
        noise = blocks.split(rounding_noise(ops.shape(x), seed))
        x = blocks.split(x)
        exponent = _bit_numerics.exponent(ops.max(ops.absolute(x), axis=blocks.axes, keepdims=True)) - E2M1.max_exponent
        codes = E2M1.encode(0.75 * _exact.ldexp(x, -exponent), noise)
        return QuantizedOperand(blocks.join(_exact.ldexp(E2M1.decode(codes), exponent) * (4 / 3)))


@register(
    "quartet_mxfp4",
    title="Quartet: MXFP4 fitted forward, unbiased backward",
    paper="arXiv:2505.14669",
    code=("IST-DASLab/Quartet",),
    checked="read",
    against="IST-DASLab/Quartet",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class QuartetMXFP4(Recipe):
    """MXFP4 in all three products, after Hadamard transforms of 32 numbers along the axis that is summed over.

    Forward, scales are fitted to the standard deviation, and gradients are masked where numbers were clipped. Backward, both
    operands are rounded stochastically after a transform with new signs in each step; they start from the numbers that were
    quantized forward.

    Args:
        head: Whether heads compute so, too. Defaults to `False`.

    Reference:
        Castro et al., Quartet: Native FP4 Training Can Be Optimal for Large Language Models, arXiv:2505.14669; the authors'
        code, IST-DASLab/Quartet, was read, not run. The unbiased rounding: Tseng et al., Training LLMs with MXFP4,
        arXiv:2502.20586.

    Example:

    >>> from keras_lrsched.precision import LayerContext
    >>> QuartetMXFP4().rule(LayerContext()).wgrad.signs
    'random'
    """

    head: bool = False

    def rule(self, context: LayerContext) -> Rule | None:
        if context.role == "head" and not self.head:
            return None
        unbiased = GemmSpec(UnbiasedMXFP4(), UnbiasedMXFP4(), rotation=32, signs="random")
        return LinearGemms(GemmSpec(FittedMXFP4(), FittedMXFP4(), rotation=32), unbiased, unbiased, residuals="quantized")

"""Pareto-optimal ResNets in 4 bits: integer weights and activations, by the scheme of the library AQT."""

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.precision._exact import is_usable
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._operands import Operand, QuantizedOperand
from keras_lrsched.precision.layers.einsum_dense import matrix_form
from keras_lrsched.precision.recipe import LayerContext, Recipe


@register(
    "aqt_int4",
    title="4-bit weights and activations by the scheme of AQT",
    paper="arXiv:2105.03536",
    code=("google/aqt",),
    checked="read",
    against="`jax_legacy` of google/aqt",
    deviations="whether activations have a sign comes from the batches, where the authors give it for each layer",
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class AQTInt4(Recipe):
    """Weights and activations in 4 bits, the first layer and the head in 8; both backward products in float32.

        weights       clip(floor(w s + 1/2), -m, m) / s,       s = m / (largest |w| of the output channel),  m = 2^(b-1) - 1
        signed        clip(floor(x s + 1/2), -m, m) / s,       s = m / bound
        unsigned      clip(floor(x s), 0, 2^b - 1) / s,        s = 2^b / bound

    Activations are unsigned if no batch had a negative number until the bounds were fixed; that is how it is found out here,
    while the authors say it for each layer. There is a bound for each input channel: a moving average of the largest
    magnitude in a training batch, from the first batch on. After `statistics_steps` batches the bounds are fixed, and
    activations are quantized; until then, and in channels that were always zero, they are not. The gradient is that of the
    quantized operands, zero for activations beyond their bound; scales count as constants.

    Args:
        weight_bits: Of weights. Defaults to `4`.
        activation_bits: Of activations. Defaults to `4`.
        outer_bits: Of both, in the first layer and in heads. Defaults to `8`.
        statistics_steps: Training batches before bounds are fixed. Defaults to `7500`, the authors' number for 250 epochs of
            ImageNet: a shorter training needs fewer.
        average_rate: The share of a new batch in the moving average. Defaults to `0.1`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Abdolrashidi et al., Pareto-Optimal Quantized ResNet Is Mostly 4-bit, arXiv:2105.03536; google/aqt, `jax_legacy`, was
        read, not run. The authors train with SGD at momentum 0.9, weight decay 1e-4, 5 epochs of warmup and a cosine.

    Example:

    >>> AQTInt4(statistics_steps=100).name
    'aqt_int4'
    """

    weight_bits: int = 4
    activation_bits: int = 4
    outer_bits: int = 8
    statistics_steps: int = 7500
    average_rate: float = 0.1

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits", "outer_bits"):
            if not 2 <= validation.positive_int(name, getattr(self, name)) <= 8:
                raise ValueError(f"`{name}` must be between 2 and 8. Received: {name}={getattr(self, name)!r}")
        validation.positive_int("statistics_steps", self.statistics_steps)
        validation.positive_fraction("average_rate", self.average_rate)

    def rule(self, context: LayerContext) -> Rule | None:
        is_outer = context.index == 0 or context.role == "head"
        weight_bits, activation_bits = (self.outer_bits,) * 2 if is_outer else (self.weight_bits, self.activation_bits)
        return BoundedProduct(weight_bits, activation_bits, self.statistics_steps, self.average_rate)


@dataclasses.dataclass(frozen=True)
class BoundedProduct(Rule):
    """The product of `AQTInt4`, whose settings it has."""

    weight_bits: int
    activation_bits: int
    statistics_steps: int
    average_rate: float

    def variables(self, layer: keras.layers.Layer) -> dict[str, dict[str, Any]]:
        fixed = {"initializer": "zeros", "trainable": False, "autocast": False}
        return {
            "batches": {"shape": (), "dtype": "int32", **fixed},
            "bound": {"shape": (channels(layer),), "dtype": "float32", **fixed},
            "lowest": {"shape": (), "dtype": "float32", **fixed},
        }

    def __call__(self, x: Any, w: Any, variables: Any, seed: Any, training: bool) -> Any:
        # Copies: assigning to a variable may change what was read from it before.
        batches, bound, lowest = (
            ops.copy(ops.convert_to_tensor(variables[each])) for each in ("batches", "bound", "lowest")
        )
        is_fixed = batches >= self.statistics_steps
        if training:
            new_bound, new_lowest = self._observe(ops.stop_gradient(x), batches, bound, lowest)
            usable = is_usable(x)
            stays = ops.logical_or(is_fixed, ops.logical_not(usable))
            variables["bound"].assign(ops.where(stays, bound, new_bound))
            variables["lowest"].assign(ops.where(stays, lowest, new_lowest))
            variables["batches"].assign_add(ops.cast(usable, "int32"))
        bounds = ops.tile(bound, (x.shape[1] // bound.shape[0],))
        inputs = Bounded(self.activation_bits, bounds, lowest >= 0, is_fixed)
        return LinearGemms(GemmSpec(inputs, ChannelIntegers(self.weight_bits)), residuals="quantized")(x, w)

    def _observe(self, x: Any, batches: Any, bound: Any, lowest: Any) -> Any:
        """Bounds and lowest number after a batch."""
        largest = ops.max(ops.reshape(ops.max(ops.absolute(x), axis=0), (-1, bound.shape[0])), axis=0)
        average = bound + self.average_rate * (largest - bound)
        return ops.where(batches == 0, largest, average), ops.minimum(lowest, ops.min(x))


@dataclasses.dataclass(frozen=True)
class ChannelIntegers(Operand):
    """Signed integers with a scale for each channel; the largest magnitude becomes the largest integer."""

    bits: int

    def quantize(self, x: Any, axis: int, seed: Any) -> QuantizedOperand:
        largest = 2 ** (self.bits - 1) - 1
        bound = ops.max(ops.absolute(x), axis=axis, keepdims=True)
        scale = largest / ops.where(bound > 0, bound, 1.0)
        return QuantizedOperand(ops.clip(ops.floor(x * scale + 0.5), -largest, largest) / scale)


@dataclasses.dataclass(frozen=True)
class Bounded(Operand):
    """Integers whose scale comes from known bounds, one for each column."""

    bits: int
    bound: Any
    unsigned: Any
    is_fixed: Any

    def quantize(self, x: Any, axis: int, seed: Any) -> QuantizedOperand:
        signed_largest = 2.0 ** (self.bits - 1) - 1
        levels = ops.where(self.unsigned, 2.0**self.bits, signed_largest)
        lowest = ops.where(self.unsigned, 0.0, -signed_largest)
        highest = ops.where(self.unsigned, 2.0**self.bits - 1, signed_largest)
        stays = ops.logical_or(ops.logical_not(self.is_fixed), self.bound <= 0)
        scale = levels / ops.where(stays, 1.0, self.bound)
        scaled = x * scale
        codes = ops.clip(ops.floor(scaled + ops.where(self.unsigned, 0.0, 0.5)), lowest, highest)
        inside = ops.logical_and(scaled >= lowest, scaled <= levels)
        return QuantizedOperand(ops.where(stays, x, codes / scale), ops.cast(ops.logical_or(stays, inside), "float32"))


def channels(layer: keras.layers.Layer) -> int:
    """Number of input channels of a layer's kernel: positions of a convolution share them."""
    if isinstance(layer, keras.layers.EinsumDense):
        _, summed, _, _, _, axes = matrix_form(layer.equation, 8)
        return math.prod(layer.kernel.shape[axes.index(axis)] for axis in summed)
    return layer.embeddings.shape[-1] if hasattr(layer, "embeddings") else layer.kernel.shape[-2]

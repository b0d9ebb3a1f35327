"""Double Rounding: one model for several bit widths; narrow widths are rounded from wide ones."""

import dataclasses
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.precision._exact import float32, is_usable
from keras_lrsched.precision._gemms import Rule
from keras_lrsched.precision._residuals import unless_exporting
from keras_lrsched.precision.layers._base import recipe_gemms
from keras_lrsched.precision.recipe import LayerContext, Recipe


@register(
    "double_rounding",
    title="Double Rounding: one model for several bit widths",
    paper="arXiv:2502.01199",
    checked="read",
    against="the paper; no code of the authors was found",
    deviations=(
        "training steps take turns with the bit widths, where the authors take one for each with the same "
        "batch; scales start at the largest magnitude, where the paper is silent; without the learning rate's "
        "mean of gradients and without HASB"
    ),
    kind="recipe",
)
@dataclasses.dataclass(frozen=True)
class DoubleRounding(Recipe):
    """Double Rounding: weights in h bits, and in each smaller width b rounded from these, with one learned scale s for all.

        W_h = clip(round(W / s), -2^(h-1), 2^(h-1) - 1)
        W_b = clip(round(W_h / 2^(h-b)), -2^(b-1), 2^(b-1) - 1),   the weight being W_b s 2^(h-b)
        X_b = clip(round(X / s_b), 0, 2^b - 1),   with a learned scale s_b for each bit width

    Activations have the signed range if a training batch had a negative number. The gradient goes straight through all
    rounding, is zero where something was clipped, and is that of LSQ by the scales. Other than in the paper: training steps
    take turns with the bit widths, the largest first, where the authors take a step for each of them with the same batch
    (with as many `gradient_accumulation_steps` as widths, an update has the mean of all); and scales start at
    (largest magnitude) / (largest integer), of the weights and of the first batch of activations: the paper does not say
    where. Scales do not fall below 1 % of their start. The first layer and heads stay as they are.

    A scale learns at eta_b times the learning rate: with d = h - b, eta_b = 10^(-d/2), or 5 10^(-(d+1)/2) if d is odd. It
    does so with any optimizer, as what is trained are moves, one for each bit width, and the scale is its start times
    (1 + sum of eta_b times move b); so the learning rate is relative to the start. In a step the moves of the other widths
    have the gradient zero. Exclude moves from weight decay: their paths contain `scale_moves`. The paper also takes a mean
    of gradients off the learning rate, see `learning_rate`; that needs all gradients at once, and is not done here.

    In inference layers compute with h bits, or those that `set_bits` has set.

    Args:
        bits: The bit widths, falling. Defaults to `(8, 6, 4)`.

    Raises:
        ValueError: If `bits` are not between 2 and 8, or do not fall.

    Reference:
        Huang et al., Nearly Lossless Adaptive Bit Switching, arXiv:2502.01199; no code of the authors was found. LSQ:
        Esser et al., arXiv:1902.08153. The paper's choice of bits for each layer (HASB) is not part of this.

    Example:

    >>> DoubleRounding(bits=(8, 4)).rate_factor(4)
    0.01
    """

    bits: tuple[int, ...] = (8, 6, 4)

    def __post_init__(self) -> None:
        bits = [validation.positive_int("bits", each) for each in self.bits]
        if not bits or bits != sorted(set(bits), reverse=True) or not 2 <= bits[-1] <= bits[0] <= 8:
            raise ValueError(f"`bits` must fall, from at most 8 to at least 2. Received: bits={self.bits!r}")
        object.__setattr__(self, "bits", tuple(bits))

    def rule(self, context: LayerContext) -> Rule | None:
        if context.index == 0 or context.role == "head":
            return None
        return SharedScale(self.bits, tuple(map(self.rate_factor, self.bits)))

    def rate_factor(self, bits: int) -> float:
        """eta_b."""
        fewer = self.bits[0] - validation.one_of("bits", bits, self.bits)
        return 5 * 10.0 ** (-(fewer + 1) // 2) if fewer % 2 else 10.0 ** (-fewer // 2)

    def learning_rate(self, learning_rate: Any, gradients: Any, bits: int) -> Any:
        """The paper's learning rate of scales, for a training loop that sees the gradients by all of them.

            eta_b max(learning_rate - mean(min(|clip(gradient, -1, 1)|, 1)), 0)

        As printed it may be negative; 0 is the least here.
        """
        size = ops.mean(ops.minimum(ops.absolute(ops.convert_to_tensor(gradients, "float32")), 1.0))
        return self.rate_factor(bits) * ops.maximum(learning_rate - size, 0.0)

    def set_bits(self, model: keras.Model, bits: int) -> None:
        """Sets the bit width with which the layers of a model compute in inference."""
        validation.one_of("bits", bits, self.bits)
        products = recipe_gemms(model)
        products = [layer for layer in products if isinstance(layer.rule, SharedScale)]
        if not products:
            raise ValueError(f"The model has no layers with double rounding. Received: model={model.name}")
        for layer in products:
            layer.state["inference_bits"].assign(bits)


@dataclasses.dataclass(frozen=True)
class SharedScale(Rule):
    """The product of `DoubleRounding`; `factors` are the eta of its bit widths."""

    bits: tuple
    factors: tuple

    def variables(self, layer: keras.layers.Layer) -> dict[str, dict[str, Any]]:
        fixed = {"shape": (), "initializer": "zeros", "trainable": False, "autocast": False}
        moves = {"shape": (len(self.bits),), "initializer": "zeros", "dtype": "float32", "autocast": False}
        first = keras.initializers.Constant(self.bits[0])
        return {
            "turn": {**fixed, "dtype": "int32"},
            "inference_bits": {**fixed, "dtype": "int32", "initializer": first},
            "largest_weight": {**fixed, "dtype": "float32"},
            "largest_input": {**fixed, "dtype": "float32"},
            "lowest_input": {**fixed, "dtype": "float32"},
            "weight_scale_moves": moves,
            "input_scale_moves": moves,
        }

    def __call__(self, x: Any, w: Any, variables: Any, seed: Any, training: bool) -> Any:
        chosen = self._chosen(variables, training)
        largest = {}
        for name, tensor in (("largest_weight", w), ("largest_input", x)):
            known = ops.convert_to_tensor(variables[name])
            largest[name] = ops.where(known > 0, known, ops.max(ops.absolute(ops.stop_gradient(tensor))))
        lowest = ops.minimum(ops.convert_to_tensor(variables["lowest_input"]), ops.min(ops.stop_gradient(x)))
        if training:
            variables["turn"].assign_add(1)
            usable = ops.logical_and(is_usable(x), is_usable(w))
            for name, value in {**largest, "lowest_input": lowest}.items():
                variables[name].assign(ops.where(usable, value, ops.convert_to_tensor(variables[name])))
        moves = [ops.copy(ops.convert_to_tensor(variables[f"{name}_scale_moves"])) for name in ("weight", "input")]
        factors = ops.convert_to_tensor(self.factors, "float32")
        grid = self.weight_grid(chosen)
        weights = LearnedScale(grid, largest["largest_weight"] / grid.highest, factors, chosen, w.shape[0] * w.shape[1])
        grid = self.input_grid(chosen, lowest < 0)
        inputs = LearnedScale(grid, largest["largest_input"] / grid.highest, factors * chosen, chosen, x.shape[1])
        return ops.matmul(inputs(x, moves[1]), weights(w, moves[0]))

    def weight_grid(self, chosen: Any) -> Any:
        most = self.bits[0]
        step = _pick(chosen, [2.0 ** (most - bits) for bits in self.bits])
        lowest = _pick(chosen, [-(2.0 ** (bits - 1)) for bits in self.bits])
        highest = _pick(chosen, [2.0 ** (bits - 1) - 1 for bits in self.bits])
        return Grid(float32(-(2.0 ** (most - 1))), float32(2.0 ** (most - 1) - 1), step, lowest, highest)

    def input_grid(self, chosen: Any, signed: Any) -> Any:
        lowest = ops.where(signed, _pick(chosen, [-(2.0 ** (bits - 1)) for bits in self.bits]), 0.0)
        signed_highest = _pick(chosen, [2.0 ** (bits - 1) - 1 for bits in self.bits])
        highest = ops.where(signed, signed_highest, _pick(chosen, [2.0**bits - 1 for bits in self.bits]))
        return Grid(lowest, highest, float32(1.0), lowest, highest)

    def _chosen(self, variables: Any, training: bool | None) -> Any:
        """1 at the bit width of this call, 0 at the others."""
        if training:
            positions = ops.arange(len(self.bits), dtype="int32")
            return ops.cast(positions == ops.convert_to_tensor(variables["turn"]) % len(self.bits), "float32")
        widths = ops.convert_to_tensor(self.bits, "int32")
        return ops.cast(widths == ops.convert_to_tensor(variables["inference_bits"]), "float32")


def _pick(chosen: Any, numbers: Any) -> Any:
    return ops.sum(chosen * ops.convert_to_tensor(numbers, "float32"))


class Grid(NamedTuple):
    """Integers from `lowest` to `highest`, and of these each `step`th, from `last_lowest` to `last_highest` steps."""

    lowest: Any
    highest: Any
    step: Any
    last_lowest: Any
    last_highest: Any

    def round(self, x: Any) -> Any:
        """-> numbers of the grid, and whether `x` was within its range, as 0 or 1."""
        whole = ops.minimum(ops.maximum(ops.round(x), self.lowest), self.highest)
        steps = whole / self.step
        result = ops.minimum(ops.maximum(ops.round(steps), self.last_lowest), self.last_highest) * self.step
        outside = (x < self.lowest) | (x > self.highest) | (steps < self.last_lowest) | (steps > self.last_highest)
        return result, 1 - ops.cast(outside, "float32")


class LearnedScale(NamedTuple):
    """Rounds to a grid times the scale start (1 + sum(factors moves)).

    The gradient by scale / start, divided by sqrt(size highest), is that by the move that is `chosen`, without its factor.
    """

    grid: Grid
    start: Any
    factors: Any
    chosen: Any
    size: int

    def __call__(self, x: Any, moves: Any) -> Any:
        @unless_exporting
        def rounded(x: Any, moves: Any) -> Any:
            start = ops.where(self.start > 0, self.start, 1.0)
            scale = start * ops.maximum(1 + ops.sum(self.factors * moves), 0.01)
            scaled = x / scale
            result, inside = self.grid.round(scaled)

            def grad(*args: Any, upstream: Any = None) -> Any:
                dy = args[0] if upstream is None else upstream
                by_scale = ops.sum(dy * (result - scaled * inside)) * start / ops.sqrt(self.size * self.grid.highest)
                return dy * inside, by_scale * self.chosen

            return result * scale, grad

        return rounded(x, moves)

"""MARS: Adam, Lion or Shampoo of gradients with reduced variance."""

import math
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._arguments import checked_rate
from keras_lrsched.optimizers._newton_schulz import orthogonalized
from keras_lrsched.optimizers._numerics import average, bias_correction, norm, sign
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "mars",
    title="Adam, Lion or Shampoo of gradients with reduced variance",
    paper="arXiv:2411.10438",
    code=("AGI-Arena/MARS",),
    checked="trajectory",
    against="the authors' code, each of its three types; that of Shampoo without its bfloat16",
    deviations="only the approximate form, with the last batch's own gradient",
    kind="optimizer",
)
class MARS(Optimizer):
    """Momentum of a gradient that is corrected by its difference to the last one, for matrices; AdamW for all else.

        c = g + gamma beta_1 / (1 - beta_1) (g - g of the update before, at first 0);  c = c / max(1, ||c||)
        m = beta_1 m + (1 - beta_1) c
        w = w - lr (u + weight_decay w)

        u = (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)     "adamw", v the mean of c^2
        u = sign(m)                                                        "lion"
        u = sqrt(max(1, outputs / inputs)) orthogonalized(m)               "shampoo", by Newton-Schulz as in Muon

    c has an L2 norm of at most 1 in each matrix, which hides the scale of the loss. As in the authors' code, a matrix is a
    variable with two axes, (inputs, outputs), embeddings among them. AdamW, with `adam_lr_ratio` lr, `adam_beta_1`,
    `adam_beta_2` and `adam_weight_decay`, updates scalars, vectors, kernels of convolutions and all else, unless
    `optimize_1d`, with which all variables are treated alike; "shampoo" then takes AdamW's form for what is no matrix.

    The last gradient is that of the last batch. The exact form of the paper takes it once more, for the batch of this
    update at the weights before, with a second backward pass; it is not offered. State: three float32 numbers for each
    parameter, two without v and under AdamW.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `3e-3`.
        beta_1: Decay rate of the mean of corrected gradients, at least 0 and below 1. Defaults to `0.95`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.99`.
        gamma: Strength of the correction; with 0 there is none. Defaults to `0.025`.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        mars_type: `"adamw"`, `"lion"` or `"shampoo"`. Defaults to `"adamw"`.
        optimize_1d: Whether what is no matrix is treated alike. Defaults to `False`.
        adam_lr_ratio: The learning rate of AdamW, divided by that of matrices. Defaults to `1.0`.
        adam_beta_1: As in AdamW. Defaults to `0.9`.
        adam_beta_2: As in AdamW. Defaults to `0.95`.
        adam_weight_decay: The weight decay under AdamW: a number, a `LearningRateSchedule`, or `None`. Defaults to `0.1`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Yuan et al., MARS: Unleashing the Power of Variance Reduction for Training Large Models, arXiv:2411.10438.
        Trajectories agree with the authors' code, AGI-Arena/MARS: exactly, for "shampoo" if its bfloat16 is removed.

    Example:

    >>> w = keras.Variable([[1.0, 1.0]])
    >>> MARS(learning_rate=0.1).apply([keras.ops.array([[3.0, -0.1]])], [w])
    >>> w.numpy().round(4)
    array([[0.9, 1.1]], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 3e-3,
        beta_1: float = 0.95,
        beta_2: float = 0.99,
        gamma: float = 0.025,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        mars_type: str = "adamw",
        optimize_1d: bool = False,
        adam_lr_ratio: float = 1.0,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.95,
        adam_weight_decay: WeightDecay = 0.1,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.gamma = validation.non_negative_float("gamma", gamma)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.mars_type = validation.one_of("mars_type", mars_type, ("adamw", "lion", "shampoo"))
        self.optimize_1d = optimize_1d
        self.adam_lr_ratio = validation.positive_float("adam_lr_ratio", adam_lr_ratio)
        self.adam_beta_1 = validation.beta("adam_beta_1", adam_beta_1)
        self.adam_beta_2 = validation.beta("adam_beta_2", adam_beta_2)
        self.adam_weight_decay = checked_rate("adam_weight_decay", adam_weight_decay)

    def is_corrected(self, variable: Variable) -> bool:
        """Whether a variable is updated by MARS rather than by AdamW."""
        return self.optimize_1d or len(variable.shape) == 2

    def make_state(self, variable: Variable) -> dict[str, Any]:
        names = ("m", "v") if self._has_adam_form(variable) else ("m",)
        return {name: self.add_state(variable, name) for name in (*names, *("last",) * self.is_corrected(variable))}

    def _has_adam_form(self, variable: Variable) -> bool:
        is_matrix = len(variable.shape) == 2
        return self.mars_type == "adamw" or not (is_matrix or (self.optimize_1d and self.mars_type == "lion"))

    def decay_rate_of(self, variable: Variable, weight_decay: Any) -> Any:
        return weight_decay if self.is_corrected(variable) else self._current_decay(self.adam_weight_decay)

    def own_learning_rate(self, ctx: UpdateContext) -> Tensor:
        return ctx.learning_rate if "last" in ctx.state else self.adam_lr_ratio * ctx.learning_rate

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        beta_1, beta_2 = self.adam_beta_1, self.adam_beta_2
        if "last" in state:
            beta_1, beta_2, g = self.beta_1, self.beta_2, self._corrected(g, state)
        state.m = average(beta_1, state.m, g)
        return w - self.own_learning_rate(ctx) * (self._direction(g, state, ctx.t, beta_1, beta_2) + ctx.weight_decay * w)

    def _corrected(self, g: Tensor, state: OptimizerState) -> Tensor:
        c = g + self.gamma * self.beta_1 / (1 - self.beta_1) * (g - state.last)
        state.last = g
        return c / ops.maximum(norm(c), 1.0)

    def _direction(self, g: Tensor, state: OptimizerState, t: Tensor, beta_1: float, beta_2: float) -> Tensor:
        if "v" in state:
            state.v = average(beta_2, state.v, ops.square(g))
            v = state.v / bias_correction(beta_2, t)
            return state.m / bias_correction(beta_1, t) / (ops.sqrt(v) + self.epsilon)
        if self.mars_type == "lion":
            return sign(state.m)
        inputs, outputs = g.shape
        return math.sqrt(max(1, outputs / inputs)) * orthogonalized(state.m / (1 - beta_1), 5, "float32")

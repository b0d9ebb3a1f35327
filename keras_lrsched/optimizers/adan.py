"""Adan: Nesterov momentum from differences of gradients."""

from typing import Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "adan",
    title="Nesterov momentum from differences of gradients",
    paper="arXiv:2208.06677",
    code=("sail-sg/Adan",),
    checked="trajectory",
    against="the authors' code, with both kinds of decay and its clipping",
    deviations=(
        "a variable whose first gradient comes after the first update has a gradient of zero before it; in the "
        "authors' code the same one"
    ),
    kind="optimizer",
)
class Adan(Optimizer):
    """Adam of a gradient that looks ahead by the last difference of gradients.

        d = g - (g of the update before)          0 at t = 1
        m = beta_1 m + (1 - beta_1) g
        s = beta_2 s + (1 - beta_2) d
        v = beta_3 v + (1 - beta_3) (g + beta_2 d)^2
        u = (m / (1 - beta_1^t) + beta_2 s / (1 - beta_2^t)) / (sqrt(v / (1 - beta_3^t)) + epsilon)
        w = (w - lr u) / (1 + lr weight_decay)         or (1 - lr weight_decay) w - lr u with `no_prox`

    The decay rates are those of the authors' code, where those of the paper are 1 minus these. Its `max_grad_norm` is
    `global_clipnorm`. Learning rates are 5 to 10 times those of Adam. Each entry is updated by itself, whatever the shape.
    State: four float32 numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.98`.
        beta_2: Decay rate of the mean of differences, and how far to look ahead, at least 0 and below 1. Defaults to `0.92`.
        beta_3: Decay rate of the mean of squares, at least 0 and below 1. Defaults to `0.99`.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`; the paper has 0.02.
        no_prox: Whether the decay is that of AdamW. Defaults to `False`, for the proximal step above.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Xie et al., Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models, arXiv:2208.06677.
        Trajectories agree with the authors' code, sail-sg/Adan.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> Adan(learning_rate=0.1).apply([keras.ops.array([3.0, -0.1])], [w])
    >>> w.numpy().round(4)
    array([0.9, 1.1], dtype=float32)
    """

    state_names = ("m", "s", "v", "last")
    elementwise = True

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.98,
        beta_2: float = 0.92,
        beta_3: float = 0.99,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        no_prox: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.beta_3 = validation.beta("beta_3", beta_3)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.no_prox = no_prox

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        decay = ctx.learning_rate * ctx.weight_decay
        step = ctx.learning_rate * self._direction(g, state, ctx.t)
        return (1 - decay) * w - step if self.no_prox else (w - step) / (1 + decay)

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        decay = ctx.learning_rate * ctx.weight_decay
        return decay * w if self.no_prox else new - new / (1 + decay)

    def _direction(self, g: Tensor, state: OptimizerState, t: Tensor) -> Tensor:
        d = ops.where(t > 1, g - state.last, ops.zeros_like(g))
        state.last = g
        state.m = average(self.beta_1, state.m, g)
        state.s = average(self.beta_2, state.s, d)
        state.v = average(self.beta_3, state.v, ops.square(g + self.beta_2 * d))
        m = state.m / bias_correction(self.beta_1, t)
        s = state.s / bias_correction(self.beta_2, t)
        return (m + self.beta_2 * s) / (ops.sqrt(state.v / bias_correction(self.beta_3, t)) + self.epsilon)

"""Base of methods that are AdamW but for the direction of a step."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._numerics import bias_correction
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


class AdamFamily(Optimizer):
    """An optimizer with Adam's arguments and decoupled weight decay: w = w - lr (u + weight_decay w).

    A subclass returns u from `direction`.
    """

    state_names = ("m", "v")
    elementwise = True

    def __init__(
        self,
        learning_rate: LearningRate,
        beta_1: float,
        beta_2: float,
        epsilon: float,
        weight_decay: WeightDecay,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)

    def direction(self, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        """u of one variable."""
        raise NotImplementedError

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        return w - ctx.learning_rate * (self.direction(g, state, ctx) + ctx.weight_decay * w)

    def denominator(self, v: Tensor, t: Tensor) -> Any:
        """The root of a second moment, corrected for its bias, plus epsilon."""
        return ops.sqrt(v / bias_correction(self.beta_2, t)) + self.epsilon

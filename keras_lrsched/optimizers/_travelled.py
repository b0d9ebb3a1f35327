"""Base of DoG and DoWG: step sizes from how far the weights have come."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._d_adaptation import warn_unless_near_one
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


class Travelled(Optimizer):
    """An optimizer with w - w_0 in its state, as the sum of the updates: a difference of weights has no correct digit at
    first.

    Weights that are set from outside move w_0 as well.
    """

    state_names = ("travelled",)

    refused_rules = dict.fromkeys(
        ("cautious", "cautious_weight_decay", "norm_control"), "its state has the sum of the steps as the formula makes them"
    )

    def __init__(
        self, learning_rate: LearningRate, epsilon: float, weight_decay: WeightDecay, **options: Unpack[Options]
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        warn_unless_near_one(self, learning_rate, stacklevel=4)
        self.epsilon = validation.positive_float("epsilon", epsilon)

    def couples_weight_decay(self) -> bool:
        return True

    def step_size(self, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        """The factor of the gradient at a learning rate of 1."""
        return ctx.cast(ctx.shared)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        u = ctx.learning_rate * self.step_size(state, ctx) * g
        state.travelled = state.travelled - u
        return w - u

    def add_decay(self, contexts: Sequence[UpdateContext]) -> None:
        """Add L2 regularization to the gradients, so that it counts in their norms."""
        for ctx in contexts:
            g = ctx.gradient + ctx.weight_decay * ctx.value
            ctx.gradient = g if ctx.takes_part is None else ops.where(ctx.takes_part, g, 0.0)

    def squared_distance(self) -> Tensor:
        """||w - w_0||^2 over all variables."""
        return sum(square(OptimizerState(each).travelled) for each in self._states if "travelled" in each)


def square(x: Tensor) -> Any:
    """The squared L2 norm over the whole tensor, in float32."""
    return ops.cast(ops.sum(ops.square(x)), "float32")

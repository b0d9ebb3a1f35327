"""COCOB: each parameter bets on its next gradient with what it has won so far."""

from typing import Any, Unpack

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._d_adaptation import warn_unless_near_one
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "cocob",
    title="coin betting, without a step size",
    paper="arXiv:1705.07795",
    code=("bremen79/parameterfree",),
    checked="trajectory",
    against="the first author's code",
    deviations="that code has no learning rate",
    kind="optimizer",
)
class COCOB(Optimizer):
    """COCOB-Backprop: coin betting, which has no step size at all.

        g = lr (g + weight_decay w)
        L = max(L, |g|);  G = G + |g|
        R = max(R - g (w - w_0), 0)                         the reward
        theta = theta - g
        w = w_0 + theta (R + L) / (L max(G + L, alpha L))

    The largest gradient L divides all others, so a constant learning rate has no effect: leave it at 1. One that falls makes
    the later bets smaller. w - w_0 is computed anew from the state, so w_0 is not stored, and weights that are set from
    outside go on from there. State: four float32 numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments; a number outside [0.1, 10] is
            warned of. Defaults to `1.0`.
        alpha: About how many updates it takes until bets have their full size. Defaults to `100.0`.
        epsilon: The first L. Defaults to `1e-8`.
        weight_decay: L2 regularization, added to the gradient: a number, a `LearningRateSchedule`, or `None`. Defaults to
            `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Orabona and Tommasi, Training Deep Networks without Learning Rates Through Coin Betting, arXiv:1705.07795.
        Trajectories agree with the first author's code, bremen79/parameterfree, which has no learning rate.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> COCOB(alpha=10).apply([keras.ops.array([2.0, -3e-6])], [w])
    >>> w.numpy()  # the first bet is 1 / alpha
    array([0.9, 1.1], dtype=float32)
    """

    elementwise = True
    refused_rules = dict.fromkeys(("cautious", "norm_control"), "its state has the distance from the first weights")

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        alpha: float = 100.0,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        warn_unless_near_one(self, learning_rate, stacklevel=3)
        self.alpha = validation.positive_float("alpha", alpha)
        self.epsilon = validation.positive_float("epsilon", epsilon)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        state = {name: self.add_state(variable, name) for name in ("theta", "total", "reward")}
        first = keras.initializers.Constant(self.epsilon)
        return state | {"largest": self.add_state(variable, "largest", initializer=first)}

    def couples_weight_decay(self) -> bool:
        return True

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        g = ctx.learning_rate * (g + ctx.weight_decay * w)
        before = self._bet(state)
        state.largest = ops.maximum(state.largest, ops.abs(g))
        state.total = state.total + ops.abs(g)
        state.reward = ops.maximum(state.reward - g * before, 0.0)
        state.theta = state.theta - g
        return w + (self._bet(state) - before)

    def _bet(self, state: OptimizerState) -> Tensor:
        """w - w_0."""
        largest = state.largest
        return state.theta / largest * ((state.reward + largest) / ops.maximum(state.total + largest, self.alpha * largest))

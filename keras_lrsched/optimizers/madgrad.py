"""MADGRAD: Adagrad with cube roots, averaged from the start of the training."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "madgrad",
    title="dual averaging with momentum and cube roots",
    paper="arXiv:2101.11075",
    code=("facebookresearch/madgrad", "kozistr/pytorch_optimizer"),
    checked="trajectory",
    against="the authors' code, with both kinds of decay, and pytorch_optimizer",
    kind="optimizer",
)
class MADGRAD(Optimizer):
    """Dual averaging: where the sum of all gradients leads from the start, over the cube root of a sum of their squares.

        k = (lr + epsilon) sqrt(t)
        s = s + k g;  v = v + k g^2
        z = w_0 - s / (v^(1/3) + epsilon)         w_0 are the weights at the start
        w = momentum w + (1 - momentum) z

    Learning rates compare to neither those of SGD nor those of Adam, and epsilon is added to them, as in the authors' code.
    Weight decay, added to the gradient, is needed less than elsewhere, often not at all. With `decoupled_weight_decay`,
    w = w - (lr + epsilon) weight_decay w as well. In place of w_0 the state has w - w_0, the way so far, so that weights
    that are set from outside move both. Each entry is updated by itself, whatever the shape. State: three float32 numbers
    for each parameter, two without momentum.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-2`.
        momentum: At least 0 and below 1. Defaults to `0.9`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        epsilon: Added to the root and to the learning rate, above 0. Defaults to `1e-6`.
        decoupled_weight_decay: Whether weights decay by themselves in place of in the gradient. Defaults to `False`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Defazio and Jelassi, Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient Method for
        Stochastic Optimization, arXiv:2101.11075. Trajectories agree with the authors' code, facebookresearch/madgrad.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> MADGRAD(learning_rate=0.001, momentum=0.0).apply([keras.ops.array([1.0, -1.0])], [w])
    >>> w.numpy().round(3)  # 0.001 / 0.001^(1/3)
    array([0.99, 1.01], dtype=float32)
    """

    state_settings = ("momentum",)
    elementwise = True

    refused_rules = dict.fromkeys(("cautious", "norm_control"), "its state has the distance from the first weights")

    def __init__(
        self,
        learning_rate: LearningRate = 1e-2,
        momentum: float = 0.9,
        weight_decay: WeightDecay = None,
        epsilon: float = 1e-6,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.momentum = validation.beta("momentum", momentum)
        self.epsilon = validation.positive_float("epsilon", epsilon)
        self.decoupled_weight_decay = decoupled_weight_decay

    def make_state(self, variable: Variable) -> dict[str, Any]:
        names = ("s", "v", "way") if self.momentum else ("s", "v")
        return {name: self.add_state(variable, name) for name in names}

    def couples_weight_decay(self) -> bool:
        return True  # it is a part of the way so far

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        decay, rate = ctx.weight_decay * w, ctx.learning_rate + self.epsilon
        before = state.way if "way" in state else -self._mean(state)
        k = rate * ops.sqrt(ctx.t)
        if not self.decoupled_weight_decay:
            g = g + decay
        state.s = state.s + k * g
        state.v = state.v + k * ops.square(g)
        after = -self._mean(state)
        if "way" in state:
            after = self.momentum * before + (1 - self.momentum) * after
        if self.decoupled_weight_decay:
            after = after - rate * decay
        if "way" in state:
            state.way = after
        return w + (after - before)

    def _mean(self, state: OptimizerState) -> Tensor:
        """w_0 - z."""
        return state.s / (ops.power(state.v, 1 / 3) + self.epsilon)

"""LaProp: Adam whose momentum is of gradients that are already normalized."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._adam_family import AdamFamily
from keras_lrsched.optimizers._d_adaptation import ratio
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "laprop",
    title="momentum of normalized gradients",
    paper="arXiv:2002.04839",
    code=("Z-T-WANG/LaProp-Optimizer",),
    checked="trajectory",
    against="the authors' code, also with AMSGrad",
    deviations=(
        "the weight decay is multiplied by the learning rate, which it is not in the authors' code; where the learning "
        "rate is 0, nothing moves; `centered` is not offered"
    ),
    kind="optimizer",
)
class LaProp(AdamFamily):
    """Adam with its two parts apart: each gradient is normalized first, and momentum is of normalized gradients.

        v = beta_2 v + (1 - beta_2) g^2
        n = g / (sqrt(v / (1 - beta_2^t)) + epsilon)
        m = beta_1 m + (1 - beta_1) lr n
        l = beta_1 l + (1 - beta_1) lr
        w = (1 - lr weight_decay) (w - m lr / l)

    The learning rate is inside the momentum; with a constant one, m lr / l is m / (1 - beta_1^t). So beta_1 and beta_2 can
    be chosen freely: in Adam a beta_1 above sqrt(beta_2) makes steps unbounded. The decay comes after the step, and is
    multiplied by the learning rate as everywhere in this package: the authors' `weight_decay` is lr weight_decay. With
    `amsgrad`, the largest v so far takes the place of v. Each entry is updated by itself, whatever the shape. State: two
    float32 numbers for each parameter, three with `amsgrad`.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `4e-4`.
        beta_1: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of squared gradients, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-15`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        amsgrad: Whether v never falls. Defaults to `False`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Ziyin et al., LaProp: Separating Momentum and Adaptivity in Adam, arXiv:2002.04839. Trajectories agree with the
        authors' code, Z-T-WANG/LaProp-Optimizer, whose weight decay is not multiplied by the learning rate.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> LaProp(learning_rate=0.1).apply([keras.ops.array([3.0, -0.1])], [w])
    >>> w.numpy().round(4)
    array([0.9, 1.1], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 4e-4,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-15,
        weight_decay: WeightDecay = None,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, **options)
        self.epsilon = validation.positive_float("epsilon", epsilon)
        self.amsgrad = amsgrad

    def make_state(self, variable: Variable) -> dict[str, Any]:
        names = ("m", "v", "v_max") if self.amsgrad else ("m", "v")
        return {name: self.add_state(variable, name) for name in names}

    def make_scalars(self) -> dict[str, Any]:
        return {"mean_rate": self.add_scalar("mean_rate")}

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """The learning rate over its mean."""
        scalars, rate = contexts[0].scalars, ops.cast(contexts[0].common_learning_rate, "float32")
        scalars.mean_rate = average(self.beta_1, scalars.mean_rate, rate)
        return ratio(rate, scalars.mean_rate)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        state.v = average(self.beta_2, state.v, ops.square(g))
        v = state.v
        if self.amsgrad:
            v = state.v_max = ops.maximum(state.v_max, v)
        state.m = average(self.beta_1, state.m, ctx.learning_rate * g / self.denominator(v, ctx.t))
        return (1 - ctx.learning_rate * ctx.weight_decay) * (w - ctx.cast(ctx.shared) * state.m)

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        return ctx.learning_rate * ctx.weight_decay * new

"""MoMo-Adam: Adam whose step size comes from a model of the loss."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._momo import MomentumModel
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "momo_adam",
    title="Adam with a step size from a model of the loss",
    paper="arXiv:2305.07583",
    code=("fabian-sp/MoMo",),
    checked="trajectory",
    against="the authors' code",
    deviations=(
        "decay and multipliers that differ between variables are not in that code; they follow from the same minimization"
    ),
    kind="optimizer",
)
class MoMoAdam(MomentumModel):
    """Adam with an adaptive Polyak step: as far as past losses and gradients predict a lower loss.

        f = beta_1 f + (1 - beta_1) loss;  d = beta_1 d + (1 - beta_1) g;  c = beta_1 c + (1 - beta_1) <g, w>
        v = beta_2 v + (1 - beta_2) g^2;  D = sqrt(v / (1 - beta_2^t)) + epsilon
        a = 1 + lr weight_decay;  rho = 1 - beta_1^t
        tau = min(lr / rho, max(a (f - rho lb) + <d, w> - a c, 0) / <d, d / D>)
        w = (w - tau d / D) / a

    The learning rate is the upper limit of the step size, which makes the method robust to one that is too large; a schedule
    may lower it. `lb` must lie below all losses: 0 suits cross-entropy and squared errors. With `use_fstar` it is estimated,
    and `lb` is the lowest value it takes. Clipped gradients fit no model of the loss. All variables share the step size: a
    rule for some of them has an effect on all.

    It needs the loss: `fit` gives it, with the regularization losses. In a loop of your own, call `optimizer.set_loss(loss)`
    before each `apply`, in the same compiled function. `mixed_float16` in `fit`, and several replicas of `tf.distribute`,
    are refused in the first update. State: two float32 numbers for each parameter.

    Args:
        learning_rate: The largest step size: a number, a `LearningRateSchedule`, or a function without arguments. Defaults
            to `1e-2`.
        beta_1: Decay rate of the means of losses and gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of squared gradients, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        divide: Whether weights decay as above; otherwise w is multiplied by 1 - lr weight_decay before the step, as in
            AdamW. Defaults to `True`.
        lb: A lower bound of the loss. Defaults to `0.0`.
        use_fstar: Whether the lower bound is estimated. Defaults to `False`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. In the first update, if there is no loss.

    Reference:
        Schaipp et al., MoMo: Momentum Models for Adaptive Learning Rates, arXiv:2305.07583. Trajectories agree with the
        authors' code, fabian-sp/MoMo. Decay and multipliers that differ between variables are not in it; they follow from
        the same minimization.

    Example:

    >>> w = keras.Variable([3.0, 4.0])
    >>> optimizer = MoMoAdam(learning_rate=100.0)
    >>> optimizer.set_loss(1.4)
    >>> optimizer.apply([keras.ops.array([0.2, -0.2])], [w])
    >>> w.numpy().round(4)  # a step of 3.5 along the signs, where the linear model is 0
    array([-0.5,  7.5], dtype=float32)
    """

    state_names = ("d", "v")

    def __init__(
        self,
        learning_rate: LearningRate = 1e-2,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        divide: bool = True,
        lb: float = 0.0,
        use_fstar: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, lb, use_fstar, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.positive_float("epsilon", epsilon)
        self.divide = divide

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        for ctx in contexts:
            ctx.state.v = average(self.beta_2, ctx.state.v, ops.square(ctx.gradient))
        return super().before_update(contexts)

    def mean(self, old: Tensor, new: Tensor, t: Tensor) -> Tensor:
        return average(self.beta_1, old, new)

    def weight(self, t: Tensor) -> Any:
        return bias_correction(self.beta_1, t)

    def metric(self, ctx: UpdateContext) -> Tensor:
        return ops.sqrt(ctx.state.v / bias_correction(self.beta_2, ctx.t)) + self.epsilon

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        if self.divide:
            return super().step(w, g, state, ctx)
        u = ctx.cast(ctx.shared) * ctx.learning_rate * state.d / self.metric(ctx)
        return w * (1 - ctx.learning_rate * ctx.weight_decay) - u

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        return super().decay(w, new, ctx) if self.divide else ctx.learning_rate * ctx.weight_decay * w

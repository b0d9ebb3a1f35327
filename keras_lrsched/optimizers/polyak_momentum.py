"""Momentum with Polyak step sizes from the loss: ALR-MAG, ALR-SMAG and ALR-SHB."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._d_adaptation import ratio
from keras_lrsched.optimizers._loss_aware_optimizer import LossAwareOptimizer
from keras_lrsched.optimizers._numerics import dot
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "polyak_momentum",
    title="momentum with a Polyak step size",
    paper="arXiv:2305.12939",
    code=("fabian-sp/step-back",),
    checked="memory",
    against='own scripts of the formulas; for "smag", from code that was read',
    deviations='step sizes are at least 0; the formula of "shb" is derived, from memory of the paper',
    kind="optimizer",
)
class PolyakMomentum(LossAwareOptimizer):
    """Momentum whose step size is as long as the loss and the momentum indicate, up to the learning rate.

        d = momentum d + g
        k = clip((loss - lb) / (c ||d||^2), 0, lr)
        w = (1 - k weight_decay) w - k d                                                     "smag"

        k = clip((loss - lb) / (c ||g||^2) + momentum <g, d> / ||g||^2, 0, lr)
        d = momentum d - k g;  w = (1 - k weight_decay) w + d                                "shb"

    `"smag"` is ALR-SMAG, the moving average of gradients, a sum here, in the denominator; without momentum it is ALR-MAG, a
    Polyak step with an upper limit. `"shb"` is ALR-SHB, the heavy ball, with the last step d in the numerator. The learning
    rate is the upper limit; a schedule may lower it. `lb` must lie below all losses: 0 suits cross-entropy and squared
    errors. Products and norms are over all variables together, whatever their shapes: a rule for some of them has an effect
    on all.

    It needs the loss: `fit` gives it, with the regularization losses. In a loop of your own, call `optimizer.set_loss(loss)`
    before each `apply`, in the same compiled function. `mixed_float16` in `fit`, and several replicas of `tf.distribute`,
    are refused in the first update. State: one float32 number for each parameter.

    Args:
        learning_rate: The largest step size: a number, a `LearningRateSchedule`, or a function without arguments. Defaults
            to `0.1`.
        momentum: At least 0 and below 1. Defaults to `0.9`.
        lb: A lower bound of the loss. Defaults to `0.0`.
        c: The step is shorter by this factor, above 0; 0.5 for smooth functions, 1 for others. Defaults to `1.0`.
        method: `"smag"` or `"shb"`. Defaults to `"smag"`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. In the first update, if there is no loss.

    Reference:
        Wang et al., Generalized Polyak Step Size for First Order Optimization with Momentum, arXiv:2305.12939. Trajectories
        agree with own scripts of the formulas: for "smag" from code that was read, fabian-sp/step-back, whose step sizes may
        be negative; for "shb" from memory of the paper.

    Example:

    >>> w = keras.Variable([3.0, 4.0])
    >>> optimizer = PolyakMomentum(learning_rate=1.0)
    >>> optimizer.set_loss(12.5)  # 0.5 ||w||^2
    >>> optimizer.apply([w + 0.0], [w])
    >>> w.numpy()
    array([1.5, 2. ], dtype=float32)
    """

    state_names = ("d",)

    def __init__(
        self,
        learning_rate: LearningRate = 0.1,
        momentum: float = 0.9,
        lb: float = 0.0,
        c: float = 1.0,
        method: str = "smag",
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.momentum = validation.beta("momentum", momentum)
        self.lb = validation.finite_float("lb", lb)
        self.c = validation.positive_float("c", c)
        self.method = validation.one_of("method", method, ("smag", "shb"))

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """The step size of all variables."""
        gain = (contexts[0].scalars.loss - self.lb) / self.c
        if self.method == "smag":
            for ctx in contexts:
                ctx.state.d = self.momentum * ctx.state.d + ctx.gradient
            size = sum(self._product(ctx, ctx.state.d, ctx.state.d) for ctx in contexts)
        else:
            gain = gain + self.momentum * sum(self._product(ctx, ctx.gradient, ctx.state.d) for ctx in contexts)
            size = sum(self._product(ctx, ctx.gradient, ctx.gradient) for ctx in contexts)
        limit = ops.cast(contexts[0].common_learning_rate, "float32")
        return ops.minimum(ops.maximum(ratio(gain, size), 0.0), limit)

    @staticmethod
    def _product(ctx: UpdateContext, x: Tensor, y: Tensor) -> Tensor:
        product = dot(x, y)
        return product if ctx.takes_part is None else ops.where(ctx.takes_part, product, 0.0)

    def own_learning_rate(self, ctx: UpdateContext) -> Tensor:
        return ctx.multiplier * ctx.cast(ctx.shared)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        k = self.own_learning_rate(ctx)
        if self.method == "smag":
            return w - k * (state.d + ctx.weight_decay * w)
        state.d = self.momentum * state.d - k * g
        return w + state.d - k * ctx.weight_decay * w

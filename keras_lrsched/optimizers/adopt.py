"""ADOPT: Adam that converges with any beta_2, since a gradient is divided by the second moment of those before it."""

from typing import Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._adam_family import AdamFamily
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "adopt",
    title="Adam that divides by the second moment of earlier gradients",
    paper="arXiv:2411.02853",
    code=("iShohei220/adopt", "google-deepmind/optax"),
    checked="trajectory",
    against="the authors' code, and optax",
    deviations=(
        "an entry whose first gradients are 0 starts with its first gradient that is not; the authors' code divides "
        "that one by epsilon, and clips it"
    ),
    kind="optimizer",
)
class ADOPT(AdamFamily):
    """Momentum of gradients, each divided by the root of the second moment before it.

        n = clip(g / max(sqrt(v), epsilon), -c, c)     with c = (t - 1)^clip_exponent
        m = beta_1 m + (1 - beta_1) n
        v = beta_2 v + (1 - beta_2) g^2                v is g^2 at first
        w = (1 - lr weight_decay) w - lr m

    The first update only sets v: no weight moves, nor does it decay, so a schedule's first learning rate has no effect.
    There are no bias corrections, and epsilon is a lower bound in place of a term. An entry starts when its gradient is
    first not 0. Each entry is updated by itself, whatever the shape. State: two float32 numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of squared gradients, at least 0 and below 1. Defaults to `0.9999`.
        epsilon: The least denominator, above 0. Defaults to `1e-6`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        decoupled_weight_decay: Whether weights decay as above, the `decouple=True` of the authors' code; otherwise
            weight_decay w is added to the gradient, which is the default there. Defaults to `True`.
        clip_exponent: The exponent in the limit c of n; `None` for no limit, as in the first version of the paper. Defaults
            to `0.25`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Taniguchi et al., ADOPT: Modified Adam Can Converge with Any beta_2 with the Optimal Rate, arXiv:2411.02853.
        Trajectories agree with the authors' code, iShohei220/adopt, and with optax. An entry whose first gradients are 0
        starts with its first gradient that is not; the authors' code divides that one by epsilon, and clips it.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> optimizer = ADOPT(learning_rate=0.1, beta_1=0.0)
    >>> for _ in range(2):
    ...     optimizer.apply([keras.ops.array([3.0, -0.1])], [w])
    >>> w.numpy().round(4)  # by the second update
    array([0.9, 1.1], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.9999,
        epsilon: float = 1e-6,
        weight_decay: WeightDecay = None,
        decoupled_weight_decay: bool = True,
        clip_exponent: float | None = 0.25,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, **options)
        self.epsilon = validation.positive_float("epsilon", epsilon)
        self.decoupled_weight_decay = decoupled_weight_decay
        self.clip_exponent = None if clip_exponent is None else validation.positive_float("clip_exponent", clip_exponent)

    def couples_weight_decay(self) -> bool:
        return not self.decoupled_weight_decay

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        return ops.cast(ctx.t > 1, w.dtype) * super().decay(w, new, ctx)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        if not self.decoupled_weight_decay:
            g = g + ctx.weight_decay * w
        u = self.direction(g, state, ctx)
        if self.decoupled_weight_decay:
            u = u + ops.cast(ctx.t > 1, w.dtype) * ctx.weight_decay * w
        return w - ctx.learning_rate * u

    def direction(self, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        first = state.v == 0
        n = self._limited(g / ops.maximum(ops.sqrt(state.v), self.epsilon), ctx.t)
        state.v = ops.where(first, ops.square(g), average(self.beta_2, state.v, ops.square(g)))
        state.m = average(self.beta_1, state.m, ops.where(first, 0 * g, n))  # 0 g, so that NaN is seen at once
        return state.m

    def _limited(self, n: Tensor, t: Tensor) -> Tensor:
        if self.clip_exponent is None:
            return n
        limit = (t - 1) ** self.clip_exponent
        return ops.minimum(ops.maximum(n, -limit), limit)

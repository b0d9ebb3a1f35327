"""D-Adapted SGD: dual averaging whose step size is an estimate of the distance to the solution."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._d_adaptation import DistanceEstimate, ratio
from keras_lrsched.optimizers._numerics import dot
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "dadapt_sgd",
    title="SGD that estimates the distance to the solution",
    paper="arXiv:2301.07733",
    code=("facebookresearch/dadaptation",),
    checked="trajectory",
    against="the authors' code",
    deviations="the authors' code divides by 0 if the first gradient is 0",
    kind="optimizer",
)
class DAdaptSGD(DistanceEstimate):
    """SGD with steps of d lr / ||g_0||, where d grows towards the distance from the start to the solution.

        r = d lr / ||g_0||;  g = g + weight_decay w
        numerator = numerator + r <g, s>
        s = s + r g
        d_new = max(d, 2 numerator / ||s||)
        z = w_0 - s
        w = momentum w + (1 - momentum) z

    Leave the learning rate at 1. A schedule multiplies the steps. g_0 is the first gradient that is not 0, of all variables
    together. All variables share d: a rule for some of them (weight decay, a multiplier) has an effect on all. A multiplier
    scales what its variable counts in the sums as well. State: one float32 number for each parameter, two with momentum.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments; a number outside [0.1, 10] is
            warned of. Defaults to `1.0`.
        momentum: How much of w stays in each update, at least 0 and below 1. Defaults to `0.0`.
        weight_decay: L2 regularization, added to the gradient: a number, a `LearningRateSchedule`, or `None`. Defaults to
            `None`.
        d0: The first d. Defaults to `1e-6`.
        growth_rate: d grows at most by this factor in an update. Defaults to `None`, for no limit; `1.02` is like a warmup.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Defazio and Mishchenko, Learning-Rate-Free Learning by D-Adaptation, arXiv:2301.07733. Trajectories agree with the
        authors' code, facebookresearch/dadaptation, which divides by 0 if the first gradient is 0.

    Example:

    >>> w = keras.Variable([10.0])
    >>> optimizer = DAdaptSGD(d0=0.1)
    >>> for _ in range(50):
    ...     optimizer.apply([w - 2.0], [w])
    >>> w.numpy().round(1)
    array([2.], dtype=float32)
    >>> round(float(optimizer.d.numpy()), 1)  # of a distance of 8
    6.9
    """

    refused_rules = dict.fromkeys(
        ("cautious", "norm_control"), "its state has the distance from the weights without momentum"
    )

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        momentum: float = 0.0,
        weight_decay: WeightDecay = None,
        d0: float = 1e-6,
        growth_rate: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, d0, growth_rate, weight_decay, **options)
        self.momentum = validation.beta("momentum", momentum)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        names = ("s", "lag") if self.momentum else ("s",)
        return {name: self.add_state(variable, name) for name in names}

    def make_scalars(self) -> dict[str, Any]:
        return {**super().make_scalars(), "first_norm": self.add_scalar("first_norm")}

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """Add the gradients to the sums and raise d; d lr / ||g_0|| with its old value goes into the steps."""
        scalars = contexts[0].scalars
        d, first = scalars.d, scalars.first_norm
        norm = ops.sqrt(sum(dot(ctx.gradient, ctx.gradient) for ctx in contexts))
        scalars.first_norm = ops.where(ops.equal(first, 0), norm, first)
        rate = ratio(d * ops.cast(contexts[0].common_learning_rate, "float32"), scalars.first_norm)
        gain = length = 0.0
        for ctx in contexts:
            ctx.gradient = self.decayed_gradient(ctx)
            step = ctx.cast(rate) * ctx.gradient
            gain = gain + ctx.multiplier * dot(step, ctx.state.s)
            ctx.state.s = ctx.state.s + step
            length = length + ctx.multiplier * dot(ctx.state.s, ctx.state.s)
        length = length + sum(self._multipliers[i] * dot(s, s) for i, s in self.fade(contexts, 1.0))
        scalars.numerator = scalars.numerator + gain
        estimate = ratio(2 * scalars.numerator, ops.sqrt(length))
        scalars.d = ops.maximum(d, self._limited(estimate, d))
        return rate

    def couples_weight_decay(self) -> bool:
        return True

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        u = ctx.multiplier * ctx.cast(ctx.shared) * g
        if not self.momentum:
            return w - u
        u = state.lag + u
        state.lag = self.momentum * u  # w - z
        return w - (1 - self.momentum) * u

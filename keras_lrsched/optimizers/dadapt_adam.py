"""D-Adapted Adam: Adam whose learning rate is an estimate of the distance to the solution."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._d_adaptation import DistanceEstimate, ratio
from keras_lrsched.optimizers._numerics import average, bias_correction, dot, sum_of_sizes
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "dadapt_adam",
    title="Adam that estimates the distance to the solution",
    paper="arXiv:2301.07733",
    code=("facebookresearch/dadaptation",),
    checked="trajectory",
    against="the authors' code",
    kind="optimizer",
)
class DAdaptAdam(DistanceEstimate):
    """Adam with steps of d times the learning rate, where d grows towards the distance from the start to the solution.

        r = d lr;  b = sqrt(beta_2)
        numerator = b numerator + (1 - b) r <g, s / (sqrt(v) + epsilon)>
        s = b s + (1 - b) r g
        d_new = max(d, numerator / ((1 - b) ||s||_1))
        m = beta_1 m + (1 - beta_1) r g;  v = beta_2 v + (1 - beta_2) g^2
        w = w - m / (sqrt(v) + epsilon)

    Leave the learning rate at 1. A schedule multiplies the steps. All variables share d: a rule for some of them (weight
    decay, a multiplier) has an effect on all. A multiplier is what the authors' code calls `layer_scale`, but it scales the
    decoupled weight decay as well. `Prodigy`, by the same authors, is its faster successor. State: three float32 numbers for
    each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments; a number outside [0.1, 10] is
            warned of. Defaults to `1.0`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, above 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        decoupled_weight_decay: Whether w is multiplied by 1 - r weight_decay before the step, as in AdamW; otherwise
            weight_decay w is added to the gradient. Defaults to `False`.
        bias_correction: Whether r is multiplied by sqrt(1 - beta_2^t) / (1 - beta_1^t). Defaults to `False`.
        d0: The first d. Defaults to `1e-6`.
        growth_rate: d grows at most by this factor in an update. Defaults to `None`, for no limit; `1.02` is like a warmup.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Defazio and Mishchenko, Learning-Rate-Free Learning by D-Adaptation, arXiv:2301.07733. Trajectories agree with the
        authors' code, facebookresearch/dadaptation.

    Example:

    >>> w = keras.Variable([10.0])
    >>> optimizer = DAdaptAdam(d0=0.1)
    >>> for _ in range(120):
    ...     optimizer.apply([w - 2.0], [w])
    >>> w.numpy().round(1)
    array([2.], dtype=float32)
    """

    state_names = ("m", "v", "s")

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        decoupled_weight_decay: bool = False,
        bias_correction: bool = False,
        d0: float = 1e-6,
        growth_rate: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, d0, growth_rate, weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.inner_fraction("beta_2", beta_2)
        self.epsilon = validation.positive_float("epsilon", epsilon)
        self.decoupled_weight_decay = decoupled_weight_decay
        self.bias_correction = bias_correction

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """Add the gradients to the sums and raise d; its old value goes into the steps."""
        scalars, b = contexts[0].scalars, self.beta_2**0.5
        d, gain, length = scalars.d, 0.0, 0.0
        for ctx in contexts:
            if not self.decoupled_weight_decay:
                ctx.gradient = self.decayed_gradient(ctx)
            state, s = ctx.state, self.past(ctx)
            r = ctx.cast(d) * self._correction(ctx.t) * ctx.common_learning_rate
            gain = gain + ctx.multiplier * dot(r * ctx.gradient, s / (ops.sqrt(state.v) + self.epsilon))
            state.s = average(b, s, r * ctx.gradient)
            length = length + ctx.multiplier * sum_of_sizes(state.s)
        length = length + sum(self._multipliers[i] * sum_of_sizes(s) for i, s in self.fade(contexts, b))
        scalars.numerator = average(b, scalars.numerator, gain)
        estimate = ratio(scalars.numerator, (1 - b) * length)
        scalars.d = ops.maximum(d, self._limited(estimate, d))
        return d

    def couples_weight_decay(self) -> bool:
        return not self.decoupled_weight_decay

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        rate = ctx.cast(ctx.shared) * self._correction(ctx.t) * ctx.learning_rate
        return rate * ctx.weight_decay * w  # the step is of w as it was: m and v do not depend on it

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        r = ctx.cast(ctx.shared) * self._correction(ctx.t) * ctx.learning_rate
        state.m = average(self.beta_1, state.m, r * g)
        state.v = average(self.beta_2, state.v, ops.square(g))
        if self.decoupled_weight_decay:
            w = w - r * ctx.weight_decay * w
        return w - state.m / (ops.sqrt(state.v) + self.epsilon)

    def _correction(self, t: Tensor) -> Any:
        if not self.bias_correction:
            return 1.0
        return ops.sqrt(bias_correction(self.beta_2, t)) / bias_correction(self.beta_1, t)

"""D-Adapted Lion: Lion whose learning rate is an estimate of the distance to the solution."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._d_adaptation import DistanceEstimate, ratio
from keras_lrsched.optimizers._numerics import average, dot, sign, sum_of_sizes
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "dadapt_lion",
    title="Lion that estimates the distance to the solution",
    paper="arXiv:2301.07733",
    code=("facebookresearch/dadaptation",),
    checked="trajectory",
    against="the authors' code",
    deviations="the paper does not have this variant",
    kind="optimizer",
)
class DAdaptLion(DistanceEstimate):
    """Lion with steps of d times the learning rate, where d grows towards the distance from the start to the solution.

        r = d lr;  b = sqrt(beta_2)
        u = sign(beta_1 m + (1 - beta_1) g)
        w = (1 - r weight_decay) w - r u
        m = beta_2 m + (1 - beta_2) r g
        numerator = b numerator + (1 - b) r <u, s>
        s = b s + (1 - b) r u
        d_new = max(d, numerator / ((1 - b) ||s||_1))

    The authors call it experimental. As in their code, m holds r g and is then averaged with g itself, so that the momentum
    has next to no effect as long as d is small. With this code and with theirs, d can grow far beyond the distance, also on
    an easy classifier, and training fails: `growth_rate` and a smaller learning rate hold it back. Otherwise leave the
    learning rate at 1. A schedule multiplies the steps. All variables share d: a rule for some of them (weight decay, a
    multiplier) has an effect on all. A multiplier scales what its variable counts in the sums as well. State: two float32
    numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments; a number outside [0.1, 10] is
            warned of. Defaults to `1.0`.
        beta_1: Weight of the momentum in the update, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the momentum, above 0 and below 1. Defaults to `0.99`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        d0: The first d. Defaults to `1e-6`.
        growth_rate: d grows at most by this factor in an update, which the authors' code does not offer here. Defaults to
            `None`, for no limit.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Trajectories agree with the authors' code, facebookresearch/dadaptation. The paper on D-Adaptation, Defazio and
        Mishchenko, arXiv:2301.07733, does not have this variant.

    Example:

    >>> w = keras.Variable([10.0])
    >>> optimizer = DAdaptLion(d0=0.1)
    >>> for _ in range(10):
    ...     optimizer.apply([w - 2.0], [w])
    >>> round(float(optimizer.d.numpy()), 2)  # of a distance of 8
    1.25
    """

    state_names = ("m", "s")

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        weight_decay: WeightDecay = None,
        d0: float = 1e-6,
        growth_rate: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, d0, growth_rate, weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.inner_fraction("beta_2", beta_2)

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """Add the steps to the sums and raise d; its old value goes into the steps."""
        scalars, b = contexts[0].scalars, self.beta_2**0.5
        d, gain, length = scalars.d, 0.0, 0.0
        for ctx in contexts:
            state, r = ctx.state, ctx.cast(d) * ctx.common_learning_rate
            u = r * self._direction(ctx.gradient, state)
            if ctx.takes_part is not None:  # of a gradient of zero, the sign of the momentum
                u = ops.where(ctx.takes_part, u, 0.0)
            s = self.past(ctx)
            gain = gain + ctx.multiplier * dot(u, s)
            state.s = average(b, s, u)
            length = length + ctx.multiplier * sum_of_sizes(state.s)
        length = length + sum(self._multipliers[i] * sum_of_sizes(s) for i, s in self.fade(contexts, b))
        scalars.numerator = average(b, scalars.numerator, gain)
        estimate = ratio(scalars.numerator, (1 - b) * length)
        scalars.d = ops.maximum(d, self._limited(estimate, d))
        return d

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        r = ctx.cast(ctx.shared) * ctx.learning_rate
        u = self._direction(g, state)
        state.m = average(self.beta_2, state.m, r * g)
        return w - r * (u + ctx.weight_decay * w)

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        return ctx.cast(ctx.shared) * ctx.learning_rate * ctx.weight_decay * w

    def _direction(self, g: Tensor, state: OptimizerState) -> Tensor:
        return sign(average(self.beta_1, state.m, g))

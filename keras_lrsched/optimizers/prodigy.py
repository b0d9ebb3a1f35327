"""Prodigy: Adam that estimates the distance to the solution, and needs no learning rate."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._d_adaptation import DistanceEstimate, ratio
from keras_lrsched.optimizers._numerics import average, bias_correction, dot, sum_of_sizes
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "prodigy",
    title="Adam that estimates the distance to the solution, faster",
    paper="arXiv:2306.06101",
    code=("konstmish/prodigy",),
    checked="trajectory",
    against="the authors' code, with each option",
    deviations=(
        "the authors' code leaves out the updates before the first gradient that is not 0, with their weight "
        "decay; here they count"
    ),
    kind="optimizer",
)
class Prodigy(DistanceEstimate):
    """Adam with steps of d times the learning rate, where d grows towards the distance from the start to the solution.

        r = (d / d0) d lr
        numerator = beta_3 numerator + r <g, w_0 - w>
        s = beta_3 s + r g
        d_new = max(d, d_coef numerator / ||s||_1)
        m = beta_1 m + (1 - beta_1) d g;  v = beta_2 v + (1 - beta_2) d^2 g^2
        w = w - d lr (m / (sqrt(v) + d_new epsilon) + weight_decay w)

    Leave the learning rate at 1. A schedule multiplies the steps: a cosine or a linear decay to 0 is usual, without
    restarts. With a warmup, set `safeguard_warmup=True`. If d stays at `d0`, raise `d0` to 1e-5 or 1e-4. To tune something,
    tune `d_coef`, between 0.5 and 2. Do not restart from a file that lacks the state of the optimizer: d would start anew.

    All variables share d: a rule for some of them (weight decay, a multiplier) has an effect on all. A multiplier scales
    what its variable counts in the two sums as well. w_0 - w is kept as the sum of the updates, not as a difference of
    weights, which in float32 would have no correct digit as long as d is `d0`. State: four float32 numbers for each
    parameter, three if beta_1 is 0.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments; a number outside [0.1, 10] is
            warned of. Defaults to `1.0`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.999`.
        beta_3: Decay rate of the sums behind d, at least 0 and below 1. Defaults to `None`, for sqrt(beta_2).
        epsilon: Added to the root, times d. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        decoupled_weight_decay: Whether weights decay as above; otherwise weight_decay w is added to the gradient. Defaults
            to `True`.
        bias_correction: Whether steps are multiplied by sqrt(1 - beta_2^t) / (1 - beta_1^t). Defaults to `False`.
        safeguard_warmup: Whether s is without the learning rate, so that a warmup cannot make d too large. Defaults to
            `False`.
        d0: The first d. Defaults to `1e-6`.
        d_coef: Multiplies the estimate. Defaults to `1.0`.
        growth_rate: d grows at most by this factor in an update, apart from the first growth. Defaults to `None`, for no
            limit; `1.02` is like a warmup.
        slice_p: Only each `slice_p`th entry of a variable counts in the sums; s and w_0 - w are as much smaller. Defaults to
            `1`; `11` saves nearly half of the memory.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Mishchenko and Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free Learner, arXiv:2306.06101. Trajectories
        agree with the authors' code, konstmish/prodigy, with each of these options. It leaves out the updates before the
        first gradient that is not 0, with their weight decay; here they count.

    Example:

    >>> w = keras.Variable([10.0])
    >>> optimizer = Prodigy(d0=0.1)
    >>> for _ in range(120):
    ...     optimizer.apply([w - 2.0], [w])
    >>> w.numpy().round(1)
    array([2.], dtype=float32)
    """

    state_settings = ("beta_1",)

    refused_rules = dict.fromkeys(
        ("cautious", "cautious_weight_decay", "norm_control"), "its state has the sum of the steps as the formula makes them"
    )

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        beta_3: float | None = None,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        decoupled_weight_decay: bool = True,
        bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: float = 1e-6,
        d_coef: float = 1.0,
        growth_rate: float | None = None,
        slice_p: int = 1,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, d0, growth_rate, weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.beta_3 = None if beta_3 is None else validation.beta("beta_3", beta_3)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.decoupled_weight_decay = decoupled_weight_decay
        self.bias_correction = bias_correction
        self.safeguard_warmup = safeguard_warmup
        self.d_coef = validation.positive_float("d_coef", d_coef)
        self.slice_p = validation.positive_int("slice_p", slice_p)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        names = ("m", "v") if self.beta_1 else ("v",)
        state = {name: self.add_state(variable, name) for name in names}
        shape = self._part(ops.zeros(variable.shape)).shape
        return state | {name: self.add_state(variable, name, shape=shape) for name in ("s", "travelled")}

    def make_scalars(self) -> dict[str, Any]:
        return {**super().make_scalars(), "d_max": self.add_scalar("d_max", self.d0)}

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """Add the gradients to the sums and raise d; its old value goes into the steps."""
        scalars = contexts[0].scalars
        d, beta_3 = scalars.d, self.beta_2**0.5 if self.beta_3 is None else self.beta_3
        gain = length = 0.0
        for ctx in contexts:
            if not self.decoupled_weight_decay:
                ctx.gradient = self.decayed_gradient(ctx)
            g, state, own_d = self._part(ctx.gradient), ctx.state, ctx.cast(d)
            rate = own_d * self._correction(ctx.t) * ctx.common_learning_rate
            weight = ctx.multiplier * (own_d if self.safeguard_warmup else rate)
            gain = gain + dot(own_d / self.d0 * rate * g, state.travelled)
            state.s = beta_3 * self.past(ctx) + own_d / self.d0 * weight * g
            length = length + sum_of_sizes(state.s)
        length = length + sum(sum_of_sizes(s) for _, s in self.fade(contexts, beta_3))
        scalars.numerator = beta_3 * scalars.numerator + gain
        estimate = self.d_coef * ratio(scalars.numerator, length)
        risen = ops.where(ops.equal(d, self.d0), ops.maximum(d, estimate), d)
        scalars.d_max = ops.maximum(scalars.d_max, estimate)
        scalars.d = self._limited(scalars.d_max, risen) if self.growth_rate else scalars.d_max
        return d

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        d, d_new = ctx.cast(ctx.shared), ctx.cast(ctx.scalars.d)
        state.v = average(self.beta_2, state.v, ops.square(d * g))
        if self.beta_1:
            state.m = average(self.beta_1, state.m, d * g)
        m = state.m if self.beta_1 else d_new * g
        u = m / (ops.sqrt(state.v) + d_new * self.epsilon)
        if self.decoupled_weight_decay:
            u = u + ctx.weight_decay * w
        u = d * self._correction(ctx.t) * ctx.learning_rate * u
        state.travelled = state.travelled + self._part(u)
        return w - u

    def _correction(self, t: Tensor) -> Any:
        if not self.bias_correction:
            return 1.0
        return ops.sqrt(bias_correction(self.beta_2, t)) / bias_correction(self.beta_1, t)

    def _part(self, x: Tensor) -> Tensor:
        """The entries of a tensor that count in the sums."""
        return x if self.slice_p == 1 else ops.reshape(x, (-1,))[:: self.slice_p]

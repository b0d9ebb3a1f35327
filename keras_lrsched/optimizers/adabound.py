"""AdaBound: Adam between two learning rates that close in on that of SGD."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "adabound",
    title="Adam between bounds that close in on SGD",
    paper="arXiv:1902.09843",
    code=("https://pypi.org/project/adabound",),
    checked="trajectory",
    against="the authors' package adabound 0.0.5",
    kind="optimizer",
)
class AdaBound(Optimizer):
    """Adam whose rate for each entry is clipped to an interval that shrinks, so that it ends as SGD with momentum.

        g = g + weight_decay w
        m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2
        s = lr sqrt(1 - beta_2^t) / (1 - beta_1^t) / (sqrt(v) + epsilon)
        f = final_learning_rate lr / base_learning_rate
        w = w - clip(s, f (1 - 1 / (gamma t + 1)), f (1 + 1 / (gamma t))) m

    At the first update the upper bound is about f / gamma: the bounds bite late. With `amsbound`, the largest v so far takes
    the place of v. m is not corrected for its bias other than in s. The bounds follow the schedule of the learning rate;
    the authors' code takes the rate at construction as base, which for a schedule with a warmup would be about 0, so here
    it must be given. State: two float32 numbers for each parameter, three with `amsbound`.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`; added to the gradient. Defaults to `None`.
        final_learning_rate: The rate of SGD at which the bounds meet, while lr is the base. Defaults to `0.1`.
        base_learning_rate: The learning rate that `final_learning_rate` belongs to, such as the peak of a schedule.
            Defaults to `None`, for `learning_rate`, which must then be a number.
        gamma: How fast the bounds close in, per update. Defaults to `1e-3`.
        amsbound: Whether v never falls. Defaults to `False`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range, or `base_learning_rate` is missing beside a schedule.

    Reference:
        Luo et al., Adaptive Gradient Methods with Dynamic Bound of Learning Rate, arXiv:1902.09843. Trajectories agree with
        the authors' package adabound 0.0.5.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> optimizer = AdaBound(learning_rate=0.1, final_learning_rate=0.3, gamma=0.5)
    >>> optimizer.apply([keras.ops.array([10.0, 0.1])], [w])
    >>> w.numpy().round(4)  # m is (1, 0.01); the rates 0.1 and 10 become 0.1 and 0.9
    array([0.9  , 0.991], dtype=float32)
    """

    elementwise = True

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        final_learning_rate: float = 0.1,
        base_learning_rate: float | None = None,
        gamma: float = 1e-3,
        amsbound: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.final_learning_rate = validation.positive_float("final_learning_rate", final_learning_rate)
        if base_learning_rate is None and callable(learning_rate):
            raise ValueError(
                "`base_learning_rate` must be given if `learning_rate` is no number: the bounds need a rate to refer to. "
                f"Received: base_learning_rate=None, learning_rate={learning_rate!r}"
            )
        base = learning_rate if base_learning_rate is None else base_learning_rate
        self.base_learning_rate = validation.positive_float("base_learning_rate", base)
        self.gamma = validation.positive_float("gamma", gamma)
        self.amsbound = amsbound

    def make_state(self, variable: Variable) -> dict[str, Any]:
        names = ("m", "v", "v_max") if self.amsbound else ("m", "v")
        return {name: self.add_state(variable, name) for name in names}

    def couples_weight_decay(self) -> bool:
        return True

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        g = g + ctx.weight_decay * w
        state.m = average(self.beta_1, state.m, g)
        state.v = average(self.beta_2, state.v, ops.square(g))
        v = state.v
        if self.amsbound:
            v = state.v_max = ops.maximum(state.v_max, v)
        correction = ops.sqrt(bias_correction(self.beta_2, ctx.t)) / bias_correction(self.beta_1, ctx.t)
        rate = ctx.learning_rate * correction / (ops.sqrt(v) + self.epsilon)
        final = self.final_learning_rate * ctx.learning_rate / self.base_learning_rate
        low, high = final * (1 - 1 / (self.gamma * ctx.t + 1)), final * (1 + 1 / (self.gamma * ctx.t))
        return w - ops.minimum(ops.maximum(rate, low), high) * state.m

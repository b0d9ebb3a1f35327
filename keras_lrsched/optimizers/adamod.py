"""AdaMod: Adam whose rates may not exceed their own moving average."""

from typing import Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "adamod",
    title="Adam with rates below their moving average",
    paper="arXiv:1910.12249",
    code=("lancopku/AdaMod",),
    checked="trajectory",
    against="the authors' code",
    kind="optimizer",
)
class AdaMod(Optimizer):
    """Adam with a momental bound: the rate of each entry is limited to its average over many updates.

        m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2
        s = lr sqrt(1 - beta_2^t) / (1 - beta_1^t) / (sqrt(v) + epsilon)
        e = beta_3 e + (1 - beta_3) s
        w = (1 - lr weight_decay) w - min(s, e) m

    e starts at 0 and is not corrected for it: a warmup of about 1 / (1 - beta_3) updates, the first step being 1 - beta_3 as
    long as Adam's. As e averages rates, it lags behind a schedule. An entry whose gradients are zero has a huge s, so its
    bound is void for as many updates. State: three float32 numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.999`.
        beta_3: Decay rate of the mean of rates, at least 0 and below 1. Defaults to `0.999`, as in the authors' code; its
            comment has 0.9999.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Ding et al., An Adaptive and Momental Bound Method for Stochastic Learning, arXiv:1910.12249. Trajectories agree with
        the authors' code, lancopku/AdaMod.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> AdaMod(learning_rate=0.1, beta_3=0.5).apply([keras.ops.array([3.0, -0.1])], [w])
    >>> w.numpy().round(4)  # by half of 0.1
    array([0.95, 1.05], dtype=float32)
    """

    state_names = ("m", "v", "e")
    elementwise = True
    second_moment = "v"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        beta_3: float | None = 0.999,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.beta_3 = validation.beta("beta_3", beta_3)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        state.m = average(self.beta_1, state.m, g)
        state.v = average(self.beta_2, state.v, ops.square(g))
        correction = ops.sqrt(bias_correction(self.beta_2, ctx.t)) / bias_correction(self.beta_1, ctx.t)
        rate = ctx.learning_rate * correction / (ops.sqrt(state.v) + self.epsilon)
        state.e = average(self.beta_3, state.e, rate)
        return w - ctx.learning_rate * ctx.weight_decay * w - ops.minimum(rate, state.e) * state.m

"""Adam-atan2: Adam without an epsilon."""

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
    "adam_atan2",
    title="Adam with an arc tangent in place of epsilon",
    paper="arXiv:2407.05872",
    code=("lucidrains/adam-atan2-pytorch",),
    checked="trajectory",
    against="lucidrains/adam-atan2-pytorch, with its defaults",
    deviations="the constants of the paper itself are unverified",
    kind="optimizer",
)
class AdamAtan2(Optimizer):
    """AdamW whose quotient is an arc tangent: bounded, without epsilon, and the same for gradients of any scale.

        m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2
        w = (1 - lr weight_decay) w - lr a atan2(m / (1 - beta_1^t), b sqrt(v / (1 - beta_2^t)))

    No entry moves by more than lr a pi / 2. State: two float32 numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-4`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.99`.
        a: Scale of the step. Defaults to `1.27`, about 4 / pi: a step of lr where |m| = sqrt(v).
        b: Scale of the root inside. Defaults to `1.0`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Everett et al., Scaling Exponents Across Parameterizations and Optimizers, arXiv:2407.05872. Trajectories and
        defaults agree with lucidrains/adam-atan2-pytorch; the constants of the paper itself are unverified.

    Example:

    >>> w = keras.Variable([1.0, 1.0, 1.0])
    >>> AdamAtan2(learning_rate=0.1).apply([keras.ops.array([1e-9, -1e9, 0.0])], [w])
    >>> w.numpy().round(3)
    array([0.9, 1.1, 1. ], dtype=float32)
    """

    state_names = ("m", "v")
    elementwise = True
    second_moment = "v"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-4,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        a: float = 1.27,
        b: float = 1.0,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.a = validation.positive_float("a", a)
        self.b = validation.positive_float("b", b)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        state.m = average(self.beta_1, state.m, g)
        state.v = average(self.beta_2, state.v, ops.square(g))
        m = state.m / bias_correction(self.beta_1, ctx.t)
        v = state.v / bias_correction(self.beta_2, ctx.t)
        return w - ctx.learning_rate * (self.a * ops.arctan2(m, self.b * ops.sqrt(v)) + ctx.weight_decay * w)

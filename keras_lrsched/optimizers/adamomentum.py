"""AdaMomentum: Adam that squares its momentum instead of its gradient."""

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
    "adamomentum",
    title="Adam that squares its momentum",
    paper="arXiv:2106.11514",
    code=("wyzjack/AdaM3",),
    checked="trajectory",
    against="the authors' code, with its decoupled weight decay",
    kind="optimizer",
)
class AdaMomentum(Optimizer):
    """AdaM3: AdamW with the mean of squared momenta in its denominator.

        m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) m^2 + epsilon
        w = (1 - lr weight_decay) w - lr (m / (1 - beta_1^t)) / sqrt(v / (1 - beta_2^t))

    v takes m before its bias correction, so the first step has the length lr / (1 - beta_1), ten times that of Adam: warm
    up. epsilon adds up in v, to epsilon / (1 - beta_2); in float32 it is lost beside any v above 1e-9, and only keeps the
    quotient finite where gradients are zero. State: two float32 numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of squared momenta, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to v at each update, above 0. Defaults to `1e-16`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Wang et al., Rethinking Adam: A Twofold Exponential Moving Average Approach, arXiv:2106.11514. Trajectories agree
        with the authors' code, wyzjack/AdaM3, with its decoupled weight decay.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> AdaMomentum(learning_rate=0.01).apply([keras.ops.array([3.0, -0.1])], [w])
    >>> w.numpy().round(4)  # by 0.01 / (1 - 0.9)
    array([0.9, 1.1], dtype=float32)
    """

    state_names = ("m", "v")
    elementwise = True

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-16,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.positive_float("epsilon", epsilon)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        state.m = average(self.beta_1, state.m, g)
        state.v = average(self.beta_2, state.v, ops.square(state.m)) + self.epsilon
        m = state.m / bias_correction(self.beta_1, ctx.t)
        v = state.v / bias_correction(self.beta_2, ctx.t)
        return w - ctx.learning_rate * (m / ops.sqrt(v) + ctx.weight_decay * w)

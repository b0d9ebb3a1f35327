"""Yogi: Adam whose second moment changes by a bounded amount."""

from typing import Any, Unpack

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._adam_family import AdamFamily
from keras_lrsched.optimizers._numerics import average, bias_correction, sign
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "yogi",
    title="Adam with a second moment that falls slowly",
    paper="https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization",
    code=("google-deepmind/optax", "tensorflow/addons"),
    checked="trajectory",
    against="optax",
    deviations="TensorFlow Addons, which adds epsilon before the bias correction, was read",
    kind="optimizer",
)
class Yogi(AdamFamily):
    """Adam whose second moment moves towards the squared gradient by a part of that square, however far away it is.

        m = beta_1 m + (1 - beta_1) g
        v = v - (1 - beta_2) sign(v - g^2) g^2
        w = w - lr ((m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon) + weight_decay w)

    Where gradients become small, v falls slower than in Adam, and steps stay short. v starts at
    `initial_accumulator_value`. epsilon is far larger than in Adam. Each entry is updated by itself, whatever the shape.
    State: two float32 numbers for each parameter.

    - optax: `initial_momentum=1e-6`, with which m starts there.
    - TensorFlow Addons: `beta_1` and `beta_2` are `beta1` and `beta2` there. It adds epsilon before the bias correction, so
      that it counts more in the first updates. Its `activation="tanh"` and proximal regularizers are not covered.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-2`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the second moment, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-3`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        initial_accumulator_value: Where v starts. Defaults to `1e-6`.
        initial_momentum: Where m starts. Defaults to `0.0`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Zaheer et al., Adaptive Methods for Nonconvex Optimization, NeurIPS 2018,
        https://papers.nips.cc/paper/8186-adaptive-methods-for-nonconvex-optimization. Trajectories agree with optax.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> Yogi(learning_rate=0.1, epsilon=0.0).apply([keras.ops.array([3.0, -3.0])], [w])
    >>> w.numpy().round(3)
    array([0.9, 1.1], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-2,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-3,
        weight_decay: WeightDecay = None,
        initial_accumulator_value: float = 1e-6,
        initial_momentum: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, **options)
        self.initial_accumulator_value = validation.non_negative_float(
            "initial_accumulator_value", initial_accumulator_value
        )
        self.initial_momentum = validation.finite_float("initial_momentum", initial_momentum)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        starts = {"m": self.initial_momentum, "v": self.initial_accumulator_value}
        return {
            name: self.add_state(variable, name, initializer=keras.initializers.Constant(start))
            for name, start in starts.items()
        }

    def direction(self, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        square = ops.square(g)
        state.m = average(self.beta_1, state.m, g)
        state.v = state.v - (1 - self.beta_2) * sign(state.v - square) * square
        return state.m / bias_correction(self.beta_1, ctx.t) / self.denominator(state.v, ctx.t)

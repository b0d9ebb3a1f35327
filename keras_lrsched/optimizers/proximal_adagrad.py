"""Proximal Adagrad: Adagrad with L1 and L2 regularization by forward-backward splitting."""

from typing import Any, Unpack

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._numerics import sign
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "proximal_adagrad",
    title="Adagrad with L1 and L2 regularization that sets weights to 0",
    paper="https://papers.nips.cc/paper/3793-efficient-learning-using-forward-backward-splitting",
    code=("tensorflow/addons", "tensorflow/tensorflow"),
    checked="trajectory",
    against="the operation of TensorFlow that TensorFlow Addons calls",
    kind="optimizer",
)
class ProximalAdagrad(Optimizer):
    """Adagrad, after whose step each weight is moved towards 0 as its regularization demands, and stays there if it is near.

        v = v + g^2
        k = lr / sqrt(v)
        w = w - k g
        w = sign(w) max(|w| - k l1_regularization_strength, 0) / (1 + k l2_regularization_strength)

    v starts at `initial_accumulator_value`. Each entry is updated by itself, whatever the shape. The arguments are those of
    TensorFlow Addons. State: one float32 number for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        initial_accumulator_value: Where v starts, above 0. Defaults to `0.1`.
        l1_regularization_strength: Strength of the L1 regularization. Defaults to `0.0`.
        l2_regularization_strength: Strength of the L2 regularization. Defaults to `0.0`.
        weight_decay: L2 regularization that is added to the gradient, and so counts in v: a number, a
            `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Duchi and Singer, Efficient Learning using Forward-Backward Splitting, NeurIPS 2009,
        https://papers.nips.cc/paper/3793-efficient-learning-using-forward-backward-splitting. Trajectories agree with
        TensorFlow's `ResourceApplyProximalAdagrad`, which TensorFlow Addons calls.

    Example:

    >>> w = keras.Variable([1.0, 0.2])
    >>> optimizer = ProximalAdagrad(learning_rate=0.1, initial_accumulator_value=1e-9, l1_regularization_strength=1.5)
    >>> optimizer.apply([keras.ops.array([1.0, 1.0])], [w])
    >>> w.numpy().round(4)  # by 0.1, and by 0.15 towards 0
    array([0.75, 0.  ], dtype=float32)
    """

    elementwise = True

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.initial_accumulator_value = validation.positive_float("initial_accumulator_value", initial_accumulator_value)
        self.l1_regularization_strength = validation.non_negative_float(
            "l1_regularization_strength", l1_regularization_strength
        )
        self.l2_regularization_strength = validation.non_negative_float(
            "l2_regularization_strength", l2_regularization_strength
        )

    def couples_weight_decay(self) -> bool:
        return True

    def make_state(self, variable: Variable) -> dict[str, Any]:
        first = keras.initializers.Constant(self.initial_accumulator_value)
        return {"v": self.add_state(variable, "v", initializer=first)}

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        g = g + ctx.weight_decay * w
        state.v = state.v + ops.square(g)
        k = ctx.learning_rate * ops.rsqrt(state.v)
        w = w - k * g
        size = ops.maximum(ops.abs(w) - k * self.l1_regularization_strength, 0.0)
        return sign(w) * size / (1 + k * self.l2_regularization_strength)

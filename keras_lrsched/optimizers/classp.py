"""CLASSP: weights that moved much become slow, and small gradients move none."""

from typing import Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "classp",
    title="continual learning by sparse updates and sums of past ones",
    paper="arXiv:2405.09637",
    code=("oswaldoludwig/CLASSP",),
    checked="numbers",
    against="the paper's pseudo-code, written down again",
    deviations="the released code compares a boolean with the threshold and drops the power; it is not followed",
    kind="optimizer",
)
class CLASSP(Optimizer):
    """Adagrad for one task after another: entries with small gradients stay, and others slow down for good.

        where g^2 > threshold:  total = total + |g|^power
                                w = w - lr g / (epsilon + total)^(1 / power)

    What is left of the weight decay, w = w - lr weight_decay w, holds for all entries. Each entry of a variable, of whatever
    shape, is treated by itself. State: one float32 number for each parameter, which tasks share.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `0.2`.
        threshold: Squared gradients up to it move nothing, at least 0. Defaults to `0.5`.
        epsilon: Added to the sum, above 0. Defaults to `1e-5`.
        power: Power of the gradients in the sum, above 0. Defaults to `1.0`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Ludwig, CLASSP: a Biologically-Inspired Approach to Continual Learning through Adjustment Suppression and Sparsity
        Promotion, arXiv:2405.09637, by its pseudo-code; the released code differs, and is not followed.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> CLASSP(0.5, epsilon=1e-12).apply([keras.ops.array([2.0, 0.5])], [w])
    >>> w.numpy()
    array([0.5, 1. ], dtype=float32)
    """

    state_names = ("total",)
    elementwise = True

    def __init__(
        self,
        learning_rate: LearningRate = 0.2,
        threshold: float = 0.5,
        epsilon: float = 1e-5,
        power: float = 1.0,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.threshold = validation.non_negative_float("threshold", threshold)
        self.epsilon = validation.positive_float("epsilon", epsilon)
        self.power = validation.positive_float("power", power)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        g = ops.where(ops.square(g) <= self.threshold, 0.0, g)  # NaN stays
        state.total = state.total + ops.abs(g) ** self.power
        u = g / (self.epsilon + state.total) ** (1 / self.power)
        return w - ctx.learning_rate * (u + ctx.weight_decay * w)

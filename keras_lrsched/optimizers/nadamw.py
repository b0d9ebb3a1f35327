"""NAdamW: AdamW with Nesterov momentum, the baseline rule of AlgoPerf."""

from typing import Unpack

from keras import ops

from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._adam_family import AdamFamily
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "nadamw",
    title="AdamW with Nesterov momentum",
    paper="arXiv:1910.05446",
    code=("mlcommons/algorithmic-efficiency", "google-deepmind/optax"),
    checked="trajectory",
    against="AlgoPerf's baseline, and optax",
    kind="optimizer",
)
class NAdamW(AdamFamily):
    """AdamW whose numerator looks ahead by one update, as the baseline of AlgoPerf has it.

        m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2
        n = (beta_1 m + (1 - beta_1) g) / (1 - beta_1^t)
        w = (1 - lr weight_decay) w - lr n / (sqrt(v / (1 - beta_2^t)) + epsilon)

    `AdamW(nesterov=True)` is the same with Keras' arguments. Other Nesterov Adams correct the bias in other ways. With
    `correct_ahead`, n is beta_1 m / (1 - beta_1^(t + 1)) + (1 - beta_1) g / (1 - beta_1^t), as in optax and NVIDIA's;
    `keras.optimizers.Nadam` and `torch.optim.NAdam` have a schedule of beta_1 as well. Each entry is updated by itself,
    whatever the shape. State: two float32 numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `1e-2`.
        correct_ahead: Whether m, which belongs to the next update, is corrected as in the next update. Defaults to `False`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Dozat, Incorporating Nesterov Momentum into Adam, 2016; Choi et al., On Empirical Comparisons of Optimizers for Deep
        Learning, arXiv:1910.05446. Trajectories agree with mlcommons/algorithmic-efficiency, and with optax.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> NAdamW(learning_rate=0.1, weight_decay=None).apply([keras.ops.array([3.0, -0.1])], [w])
    >>> w.numpy().round(4)  # 0.9 times 0.1 and 0.1, over 0.1
    array([0.81, 1.19], dtype=float32)
    """

    second_moment = "v"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = 1e-2,
        correct_ahead: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, **options)
        self.correct_ahead = correct_ahead

    def direction(self, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        state.m = average(self.beta_1, state.m, g)
        state.v = average(self.beta_2, state.v, ops.square(g))
        of_next = bias_correction(self.beta_1, ctx.t + 1 if self.correct_ahead else ctx.t)
        n = self.beta_1 * state.m / of_next + (1 - self.beta_1) * g / bias_correction(self.beta_1, ctx.t)
        return n / self.denominator(state.v, ctx.t)

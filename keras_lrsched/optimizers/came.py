"""CAME: Adafactor with momentum, and less of it where it is unstable."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._factored import add_factors, inverse_root, normalize
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "came",
    title="Adafactor with momentum that counts less where it is unstable",
    paper="arXiv:2307.02047",
    code=("yangluo7/CAME", "kozistr/pytorch_optimizer"),
    checked="trajectory",
    against="the authors' code, and pytorch_optimizer for matrices",
    deviations="gradients above 1e16 count as that",
    kind="optimizer",
)
class CAME(Optimizer):
    """Factored second moments of the gradient and of its deviation from the momentum, each kept as means of rows and
    columns.

        v = beta_2 v + (1 - beta_2) (g^2 + epsilon_1)         factored
        u = g / sqrt(v);  u = u / max(1, rms(u) / clip_threshold)
        m = beta_1 m + (1 - beta_1) u
        s = beta_3 s + (1 - beta_3) ((u - m)^2 + epsilon_2)   factored
        w = (1 - lr weight_decay) w - lr m / sqrt(s)          for vectors and scalars: - lr m

    A moment is factored over the last two axes: a variable with more is a stack of matrices, such as (height, width) ones of
    (inputs, outputs) in the kernel of a convolution. Vectors and scalars have a v for each entry and no s. There are no bias
    corrections: s starts at 0, so that the first steps of matrices are some 1 / sqrt(1 - beta_3) times longer than later
    ones; warm up. State: one float32 number for each parameter, and two for each row and each column.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `2e-4`.
        beta_1: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of squared gradients, at least 0 and below 1. Defaults to `0.999`.
        beta_3: Decay rate of the mean of squared deviations, at least 0 and below 1. Defaults to `0.9999`.
        epsilon_1: Added to the squared gradient, above 0. Defaults to `1e-30`.
        epsilon_2: Added to the squared deviation, above 0. Defaults to `1e-16`.
        clip_threshold: Largest root mean square of u. Defaults to `1.0`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Luo et al., CAME: Confidence-guided Adaptive Memory Efficient Optimization, arXiv:2307.02047. Trajectories agree with
        the authors' code, yangluo7/CAME.

    Example:

    >>> w = keras.Variable(keras.ops.ones((512, 512)))
    >>> optimizer = CAME(learning_rate=1e-3)
    >>> optimizer.apply([keras.ops.full((512, 512), -3.0)], [w])
    >>> round(float(w[0, 0]), 4)  # u is 1, m 0.1, and s a ten-thousandth of 0.9^2
    1.0111
    >>> round(optimizer.state_bytes_per_parameter(), 2)
    4.03
    """

    def __init__(
        self,
        learning_rate: LearningRate = 2e-4,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        beta_3: float = 0.9999,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-16,
        clip_threshold: float = 1.0,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.beta_3 = validation.beta("beta_3", beta_3)
        self.epsilon_1 = validation.positive_float("epsilon_1", epsilon_1)
        self.epsilon_2 = validation.positive_float("epsilon_2", epsilon_2)
        self.clip_threshold = validation.positive_float("clip_threshold", clip_threshold)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        state = {"m": self.add_state(variable, "m"), **add_factors(self, variable)}
        return state if len(variable.shape) < 2 else {**state, **add_factors(self, variable, "deviation_")}

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        u = normalize(g, state, 1 - self.beta_2, self.epsilon_1, self.clip_threshold)
        m = state.m = average(self.beta_1, state.m, u)
        if "deviation_rows" in state:
            m = m * inverse_root(ops.square(u - m) + self.epsilon_2, state, 1 - self.beta_3, "deviation_")
        return w - ctx.learning_rate * (m + ctx.weight_decay * w)

"""AdaBelief: Adam that divides by how far gradients are from their mean."""

from typing import Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._adam_family import AdamFamily
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.rectified_adam import average_length, longest_average, rectification


@register(
    "adabelief",
    title="Adam that divides by the distance of gradients from their mean",
    paper="arXiv:2010.07468",
    code=("juntang-zhuang/Adabelief-Optimizer", "google-deepmind/optax", "tensorflow/addons"),
    checked="trajectory",
    against="the authors' package adabelief_pytorch 0.2.1, and optax",
    deviations="`degenerated_to_sgd=False`, `fixed_decay` and AMSGrad are not offered",
    kind="optimizer",
)
class AdaBelief(AdamFamily):
    """AdamW with the mean of squared deviations from the momentum in its denominator: long steps where gradients agree.

        m = beta_1 m + (1 - beta_1) g
        s = beta_2 s + (1 - beta_2) (g - m)^2 + epsilon
        u = r (m / (1 - beta_1^t)) / (sqrt(s / (1 - beta_2^t)) + epsilon)
        w = w - lr (u + weight_decay w)

    r is 1 with `rectify=False`, otherwise the factor of `RectifiedAdam`: below a length of 5 of the average, in the first
    five updates with the default beta_2, u is m / (1 - beta_1^t). epsilon adds up in s, to epsilon / (1 - beta_2), and is
    what bounds steps where gradients are constant. Each entry is updated by itself, whatever the shape. State: two float32
    numbers for each parameter.

    - optax: `rectify=False`.
    - TensorFlow Addons: `epsilon=1e-14`; for its `total_steps` and `warmup_proportion` give a schedule.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of squared deviations, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to s at each update, and to the root, above 0. Defaults to `1e-16`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        rectify: Whether there is a warmup from the variance, as in RAdam. Defaults to `True`.
        sma_threshold: The length of the moving average from which the step is rectified, at least 4. Defaults to `5.0`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range, or beta_2 so small that no step would ever be rectified.

    Reference:
        Zhuang et al., AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients, arXiv:2010.07468.
        Trajectories agree with the authors' package adabelief_pytorch 0.2.1, and with optax.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> AdaBelief(learning_rate=0.09, rectify=False).apply([keras.ops.array([3.0, -0.1])], [w])
    >>> w.numpy().round(4)  # m is a tenth of g, so that g - m is 0.9 g
    array([0.9, 1.1], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-16,
        weight_decay: WeightDecay = None,
        rectify: bool = True,
        sma_threshold: float = 5.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, **options)
        self.epsilon = validation.positive_float("epsilon", epsilon)
        self.rectify = rectify
        self.sma_threshold = validation.finite_float("sma_threshold", sma_threshold)
        if self.sma_threshold < 4:
            raise ValueError(f"`sma_threshold` must be at least 4. Received: sma_threshold={sma_threshold!r}")
        if rectify and longest_average(self.beta_2) <= self.sma_threshold:
            raise ValueError(
                "`beta_2` must be so large that 2 / (1 - beta_2) - 1 is above `sma_threshold`, or no step is rectified. "
                f"Received: beta_2={beta_2!r}, sma_threshold={sma_threshold!r}"
            )

    def direction(self, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        state.m = average(self.beta_1, state.m, g)
        state.v = average(self.beta_2, state.v, ops.square(g - state.m)) + self.epsilon
        m = state.m / bias_correction(self.beta_1, ctx.t)
        u = m / self.denominator(state.v, ctx.t)
        if not self.rectify:
            return u
        n = average_length(self.beta_2, ctx.t)
        r = rectification(self.beta_2, ops.maximum(n, self.sma_threshold))
        return ops.where(n >= self.sma_threshold, r * u, m)

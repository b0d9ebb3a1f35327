"""RAdam: Adam whose first steps are as short as the uncertainty of the variance requires."""

import math
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
    "rectified_adam",
    title="Adam with a warmup from its variance",
    paper="arXiv:1908.03265",
    code=("LiyuanLucasLiu/RAdam", "pytorch/pytorch", "tensorflow/addons", "google-deepmind/optax"),
    checked="trajectory",
    against="the authors' code, PyTorch, TensorFlow Addons and optax",
    deviations=(
        "the first two add epsilon before the bias correction, which is not followed: it only makes epsilon "
        "count more in the first updates"
    ),
    kind="optimizer",
)
class RectifiedAdam(Optimizer):
    """Adam with a factor that rises from about 0 to 1 as its second moment becomes reliable: a warmup without a length.

        m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2
        n_max = 2 / (1 - beta_2) - 1;  n = n_max - 2 t beta_2^t / (1 - beta_2^t)
        r = sqrt((n - 4) (n - 2) n_max / ((n_max - 4) (n_max - 2) n))
        d = r (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)     if n >= sma_threshold
        d = m / (1 - beta_1^t)                                                 below it
        w = w - lr (d + weight_decay w)

    With the defaults the first five updates are below the threshold. Then the authors' code does nothing at all, not even
    decay, without documentation of it; here, as in PyTorch, TensorFlow Addons and optax, they are steps of momentum, whose
    length depends on the size of the gradients. n is computed from a series while t is small: as it is written, float32
    keeps four digits of it. State: two float32 numbers for each parameter.

    - The authors' code: `below_threshold="nothing"`; its `degenerated_to_sgd=True` is the default.
    - PyTorch: the defaults; its default `decoupled_weight_decay=False` is `decay_placement="gradient"`.
    - TensorFlow Addons: `epsilon=1e-7`; for its `total_steps` and `warmup_proportion` give a schedule.
    - The paper: `sma_threshold=4.0`.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, below 1 and so large that n_max is above the threshold. Defaults to
            `0.999`.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        sma_threshold: The length n of the moving average from which the step is rectified, at least 4. Defaults to `5.0`.
        below_threshold: `"momentum"`, for a step of momentum, or `"nothing"`, where w stays. Defaults to `"momentum"`.
        decay_placement: `"outside"` of the moments, as above, or in the `"gradient"`, as L2 regularization. Defaults to
            `"outside"`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range, or beta_2 so small that no step would ever be rectified.

    Reference:
        Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, arXiv:1908.03265. Trajectories agree with the
        authors' code (LiyuanLucasLiu/RAdam), PyTorch, TensorFlow Addons and optax. The first two add epsilon before the bias
        correction, which is not followed: it only makes epsilon count more in the first updates.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> RectifiedAdam(learning_rate=0.1).apply([keras.ops.array([2.0, -0.5])], [w])
    >>> w.numpy()
    array([0.8 , 1.05], dtype=float32)
    """

    state_names = ("m", "v")
    elementwise = True
    second_moment = "v"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        sma_threshold: float = 5.0,
        below_threshold: str = "momentum",
        decay_placement: str = "outside",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.sma_threshold = validation.finite_float("sma_threshold", sma_threshold)
        if self.sma_threshold < 4:
            raise ValueError(f"`sma_threshold` must be at least 4. Received: sma_threshold={sma_threshold!r}")
        if longest_average(self.beta_2) <= self.sma_threshold:
            raise ValueError(
                "`beta_2` must be so large that 2 / (1 - beta_2) - 1 is above `sma_threshold`, or no step is rectified. "
                f"Received: beta_2={beta_2!r}, sma_threshold={sma_threshold!r}"
            )
        self.below_threshold = validation.one_of("below_threshold", below_threshold, ("momentum", "nothing"))
        self.decay_placement = validation.one_of("decay_placement", decay_placement, ("outside", "gradient"))

    def couples_weight_decay(self) -> bool:
        return self.decay_placement == "gradient"

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        off = super().decay(w, new, ctx)
        if self.below_threshold == "momentum":
            return off
        return ops.where(average_length(self.beta_2, ctx.t) >= self.sma_threshold, off, 0.0)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        in_gradient = self.decay_placement == "gradient"
        if in_gradient:
            g = g + ctx.weight_decay * w
        state.m = average(self.beta_1, state.m, g)
        state.v = average(self.beta_2, state.v, ops.square(g))
        m = state.m / bias_correction(self.beta_1, ctx.t)
        v = state.v / bias_correction(self.beta_2, ctx.t)
        n = average_length(self.beta_2, ctx.t)
        known = n >= self.sma_threshold
        r = rectification(self.beta_2, ops.maximum(n, self.sma_threshold))
        d = ops.where(known, r * m / (ops.sqrt(v) + self.epsilon), m)
        new = w - ctx.learning_rate * (d if in_gradient else d + ctx.weight_decay * w)
        return ops.where(known, new, w) if self.below_threshold == "nothing" else new


def longest_average(beta: Tensor) -> float:
    """The length of the simple moving average that is as good as an exponential one, after infinitely many updates."""
    return 2 / (1 - beta) - 1


def average_length(beta: Tensor, t: Tensor) -> Tensor:
    """The same after t updates: n_max - 2 t beta^t / (1 - beta^t), with all digits also where the two terms nearly cancel.

    With x = -log(beta) and h = x t / 2 it is n_max - 2 / x + t - (2 / x) (h coth(h) - 1), whose last factor has a series.
    """
    x = -math.log(beta) if isinstance(beta, float) else -ops.log(beta)  # a tensor, from a schedule
    h = 0.5 * x * t
    s = ops.square(h)
    series = s * (1 / 3 - s * (1 / 45 - s * (2 / 945 - s * (1 / 4725 - s * (2 / 93555)))))
    early = (longest_average(beta) - 2 / x) + t - (2 / x) * series
    late = longest_average(beta) - 2 * t / ops.expm1(x * t)
    return ops.where(h < 0.5, early, late)


def rectification(beta: Tensor, n: Tensor) -> Tensor:
    """The factor r of a step, for n of at least 4."""
    longest = longest_average(beta)
    return ops.sqrt((n - 4) * (n - 2) * longest / ((longest - 4) * (longest - 2) * n))

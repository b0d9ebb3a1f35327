"""Simplified AdEMAMix: one accumulator of gradients, and the gradient itself."""

from typing import Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._adam_family import AdamFamily
from keras_lrsched.optimizers._ademamix import log_of_rate
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "simplified_ademamix",
    title="Adam with a long sum of gradients beside the last one",
    paper="arXiv:2502.02431",
    code=("google-deepmind/optax", "DepenM/Simplified-AdEMAMix"),
    checked="trajectory",
    against="optax",
    deviations="the authors' code, whose learning rate is 1e-3 by default, was read: it has the warmup, optax has not",
    kind="optimizer",
)
class SimplifiedAdEMAMix(AdamFamily):
    """AdamW with a decaying sum of gradients and the last gradient in its numerator.

        m = beta_1 m + g;  v = beta_2 v + (1 - beta_2) g^2
        w = w - lr ((m + alpha g) / (sqrt(v / (1 - beta_2^t)) + epsilon) + weight_decay w)

    m is a sum, some 1 / (1 - beta_1) times as large as a mean and not corrected for its bias, so the learning rate is that
    of Adam times 1 - beta_1. Other libraries have a mean there and other learning rates: that of pytorch_optimizer is
    1 / (1 - beta_1) times this one, and alpha likewise. alpha suits small batches at 100 and large ones at 0. Each entry is
    updated by itself, whatever the shape. State: two float32 numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-4`.
        beta_1: Decay rate of the sum, at least 0 and below 1. Defaults to `0.99`.
        beta_2: Decay rate of the mean of squared gradients, at least 0 and below 1. Defaults to `0.95`.
        alpha: The weight of the last gradient. Defaults to `0.0`.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        beta_1_warmup: Updates until beta_1 is reached, its half-life rising in a line from that of `min_beta_1`. Defaults to
            `None`, for beta_1 from the start.
        min_beta_1: Where that warmup begins, at least 0 and below 1. Defaults to `0.9`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Morwani et al., Connections between Schedule-Free Optimizers, AdEMAMix, and Accelerated SGD Variants,
        arXiv:2502.02431. Trajectories agree with optax; the authors' code, with its warmup, was read.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> optimizer = SimplifiedAdEMAMix(learning_rate=0.01, alpha=9.0)
    >>> optimizer.apply([keras.ops.array([3.0, -0.1])], [w])
    >>> w.numpy().round(4)  # g and nine times g
    array([0.9, 1.1], dtype=float32)
    """

    second_moment = "v"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-4,
        beta_1: float = 0.99,
        beta_2: float = 0.95,
        alpha: float = 0.0,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        beta_1_warmup: int | None = None,
        min_beta_1: float = 0.9,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, **options)
        self.alpha = validation.non_negative_float("alpha", alpha)
        self.beta_1_warmup = None if beta_1_warmup is None else validation.positive_int("beta_1_warmup", beta_1_warmup)
        self.min_beta_1 = validation.beta("min_beta_1", min_beta_1)

    def direction(self, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        state.m = self._rate(ctx.t) * state.m + g
        state.v = average(self.beta_2, state.v, ops.square(g))
        return (state.m + self.alpha * g) / self.denominator(state.v, ctx.t)

    def _rate(self, t: Tensor) -> Tensor:
        if self.beta_1_warmup is None:
            return self.beta_1
        return ops.exp(log_of_rate(self.min_beta_1, self.beta_1, t, self.beta_1_warmup))

"""AdEMAMix: Adam with a second, much slower mean of gradients."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._adam_family import AdamFamily
from keras_lrsched.optimizers._ademamix import log_of_rate, moved, warmed_up
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "ademamix",
    title="Adam with a second, slower mean of gradients",
    paper="arXiv:2409.03137",
    code=("apple/ml-ademamix", "google-deepmind/optax"),
    checked="trajectory",
    against="the authors' code, and optax",
    kind="optimizer",
)
class AdEMAMix(AdamFamily):
    """AdamW with a mixture of a fast and a slow mean of gradients in its numerator.

        m = beta_1 m + (1 - beta_1) g;  s = beta_3 s + (1 - beta_3) g;  v = beta_2 v + (1 - beta_2) g^2
        u = (m / (1 - beta_1^t) + alpha s) / (sqrt(v / (1 - beta_2^t)) + epsilon)
        w = w - lr (u + weight_decay w)

    s, which is not corrected for its bias, remembers some 1 / (1 - beta_3) gradients: 10 000 with the default. In shorter
    runs lower beta_3. The warmups keep the first updates from following s too early; the paper sets both to the number of
    updates of the training. `alpha_warmup` raises alpha in a line; `beta_3_warmup` raises the half-life of beta_3 in a line
    from that of beta_1. Each entry is updated by itself, whatever the shape. State: three float32 numbers for each
    parameter, two if beta_1 is 0.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the fast mean, at least 0 and below 1; with 0 it is g. Defaults to `0.9`.
        beta_2: Decay rate of the mean of squared gradients, at least 0 and below 1. Defaults to `0.999`.
        beta_3: Decay rate of the slow mean, above 0 and below 1. Defaults to `0.9999`.
        alpha: The weight of the slow mean. Defaults to `2.0`, as in the authors' code; the paper has 5 to 8.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        alpha_warmup: Updates until alpha is reached. Defaults to `None`, for alpha from the start.
        beta_3_warmup: Updates until beta_3 is reached. Defaults to `None`, for beta_3 from the start.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Pagliardini et al., The AdEMAMix Optimizer: Better, Faster, Older, arXiv:2409.03137. Trajectories agree with the
        authors' code, apple/ml-ademamix, with both warmups, and with optax.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> AdEMAMix(learning_rate=0.1, alpha=5.0, beta_3=0.9).apply([keras.ops.array([3.0, -0.1])], [w])
    >>> w.numpy().round(4)  # m and a tenth of g, five times
    array([0.85, 1.15], dtype=float32)
    """

    state_settings = ("beta_1",)

    second_moment = "v"

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        beta_3: float = 0.9999,
        alpha: float = 2.0,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        alpha_warmup: int | None = None,
        beta_3_warmup: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, **options)
        self.beta_3 = validation.inner_fraction("beta_3", beta_3)
        self.alpha = validation.non_negative_float("alpha", alpha)
        self.alpha_warmup = None if alpha_warmup is None else validation.positive_int("alpha_warmup", alpha_warmup)
        self.beta_3_warmup = None if beta_3_warmup is None else validation.positive_int("beta_3_warmup", beta_3_warmup)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        names = ("m", "s", "v") if self.beta_1 else ("s", "v")
        return {name: self.add_state(variable, name) for name in names}

    def direction(self, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        state.s = moved(state.s, g, log_of_rate(self.beta_1, self.beta_3, ctx.t, self.beta_3_warmup))
        state.v = average(self.beta_2, state.v, ops.square(g))
        m = self._fast(g, state, ctx.t)
        return (m + warmed_up(self.alpha, ctx.t, self.alpha_warmup) * state.s) / self.denominator(state.v, ctx.t)

    def _fast(self, g: Tensor, state: OptimizerState, t: Tensor) -> Tensor:
        if "m" not in state:
            return g
        state.m = average(self.beta_1, state.m, g)
        return state.m / bias_correction(self.beta_1, t)

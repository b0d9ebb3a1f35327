"""StableSPAM: Adam of gradients whose spikes are clipped and whose norm is adapted."""

import math
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._adam_family import AdamFamily
from keras_lrsched.optimizers._d_adaptation import ratio
from keras_lrsched.optimizers._numerics import average, bias_correction, norm
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "stable_spam",
    title="Adam that clips spikes, adapts norms and resets its moments",
    paper="arXiv:2502.17055",
    code=("TianjinYellow/StableSPAM",),
    checked="trajectory",
    against="the authors' code, with the decay of beta_1, and with its reset as an option",
    deviations=(
        "moments are reset before they are used, and corrections of the averages of norms do not start anew with them; "
        "the authors' code has both otherwise, for which `official_reset` is"
    ),
    kind="optimizer",
)
class StableSPAM(AdamFamily):
    """AdamW with three measures against unstable training in low precision: for each variable,

        a = theta a + (1 - theta) max|g|;  a' = a / (1 - theta^t)
        g = g a' / max|g|                                   for entries with |g| > a'
        p = gamma_1 p + (1 - gamma_1) ||g||;  q = gamma_2 q + (1 - gamma_2) ||g||^2
        g = (g / ||g||) (p / (1 - gamma_1^t)) / (sqrt(q / (1 - gamma_2^t)) + epsilon)

    and then AdamW, whose m and v start anew each `reset_interval` updates, with their bias corrections. The norm of what
    Adam gets is about 1, whatever the scale of the loss. With `total_steps`, gamma_1 and beta_1 are multiplied by a cosine
    that falls from 1 to `eta_min`.

    The authors' code resets otherwise: the update of a reset uses the old moments with the corrections of a first one, which
    shortens it to about a third, and from then on the averages a, p and q, which are not reset, are corrected as if they
    were, so that for hundreds of updates spikes pass. `official_reset=True` does the same. Largest entries and norms are
    over a whole variable, whatever its shape. State: two float32 numbers for each parameter and three for each variable.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to roots. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        gamma_1: Decay rate of the mean of norms, at least 0 and below 1. Defaults to `0.7`.
        gamma_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.9`.
        theta: Decay rate of the mean of largest entries, at least 0 and below 1; `gamma3` in the authors' code. Defaults to
            `0.999`.
        total_steps: The number of updates in which gamma_1 and beta_1 fall. Defaults to `None`, for constant ones.
        eta_min: What they are multiplied by in the end. Defaults to `0.5`.
        reset_interval: Updates between resets of m and v; `None` for none. Defaults to `1000`.
        official_reset: Whether to reset as the authors' code does. Defaults to `False`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Huang et al., Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam, arXiv:2502.17055. Trajectories agree
        with the authors' code, TianjinYellow/StableSPAM; at resets with `official_reset`.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> StableSPAM(learning_rate=0.1).apply([keras.ops.array([3.0, -0.1])], [w])
    >>> w.numpy().round(4)
    array([0.9, 1.1], dtype=float32)
    """

    elementwise = False

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        gamma_1: float = 0.7,
        gamma_2: float = 0.9,
        theta: float = 0.999,
        total_steps: int | None = None,
        eta_min: float = 0.5,
        reset_interval: int | None = 1000,
        official_reset: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, **options)
        self.gamma_1 = validation.beta("gamma_1", gamma_1)
        self.gamma_2 = validation.beta("gamma_2", gamma_2)
        self.theta = validation.beta("theta", theta)
        self.total_steps = None if total_steps is None else validation.positive_int("total_steps", total_steps)
        self.eta_min = validation.fraction("eta_min", eta_min)
        self.reset_interval = None if reset_interval is None else validation.positive_int("reset_interval", reset_interval)
        self.official_reset = official_reset

    def make_state(self, variable: Variable) -> dict[str, Any]:
        numbers = {name: self.add_state(variable, name, shape=()) for name in ("largest", "norm", "square")}
        return {**super().make_state(variable), **numbers}

    def direction(self, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        scale = self._scale(ctx.t)
        resets, since_reset, of_norms = self._counts(ctx)
        g = self._of_stable_norm(self._without_spikes(g, state, of_norms), state, of_norms, scale)
        m, v = state.m, state.v
        if not self.official_reset:
            m, v = ops.where(resets, 0.0, m), ops.where(resets, 0.0, v)
        beta_1 = self.beta_1 * scale
        m, v = average(beta_1, m, g), average(self.beta_2, v, ops.square(g))
        state.m, state.v = m, v
        if self.official_reset:
            state.m, state.v = ops.where(resets, 0.0, m), ops.where(resets, 0.0, v)
        return m / bias_correction(beta_1, since_reset) / self.denominator(v, since_reset)

    def _scale(self, t: Tensor) -> Any:
        if self.total_steps is None:
            return 1.0
        cosine = 0.5 + 0.5 * ops.cos(math.pi * ops.minimum(t / (self.total_steps + 1), 1.0))
        return self.eta_min + (1 - self.eta_min) * cosine

    def _counts(self, ctx: UpdateContext) -> tuple[Any, Tensor, Tensor]:
        """Whether this update resets, and the t in the corrections of moments and of norms."""
        if self.reset_interval is None:
            return False, ctx.t, ctx.t
        n = self.reset_interval
        t = ctx.iterations + 1
        since = ops.where(t < n, t, t % n + 1)
        of_norms = ops.where(t <= n, t, (t - 1) % n + 2) if self.official_reset else t
        return ops.equal(t % n, 0), ctx.cast(since), ctx.cast(of_norms)

    def _without_spikes(self, g: Tensor, state: OptimizerState, t: Tensor) -> Tensor:
        size = ops.abs(g)
        largest = ops.max(size)
        state.largest = average(self.theta, state.largest, largest)
        limit = state.largest / bias_correction(self.theta, t)
        return ops.where(size > limit, g * ratio(limit, largest), g)

    def _of_stable_norm(self, g: Tensor, state: OptimizerState, t: Tensor, scale: Tensor) -> Tensor:
        length, gamma_1 = norm(g), self.gamma_1 * scale
        state.norm = average(gamma_1, state.norm, length)
        state.square = average(self.gamma_2, state.square, ops.square(length))
        of_norm = state.norm / bias_correction(gamma_1, t)
        target = of_norm / (ops.sqrt(state.square / bias_correction(self.gamma_2, t)) + self.epsilon)
        return g * ratio(target, length)

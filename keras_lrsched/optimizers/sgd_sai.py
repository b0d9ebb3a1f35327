"""SGD-SaI: SGD with learning rates scaled once, at initialization."""

import math
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._numerics import average, norm
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "sgd_sai",
    title="SGD with rates scaled by the first gradient",
    paper="arXiv:2412.11768",
    code=("AnonymousAlethiometer/SGD_SaI",),
    checked="trajectory",
    against="the authors' code, version 1.0.3",
    deviations=(
        "variables of one entry, without noise, or with a first gradient of zero are defined here; the "
        "authors' code leaves them to chance"
    ),
    kind="optimizer",
)
class SGDSaI(Optimizer):
    """SGD with momentum, each variable's rate scaled by the signal-to-noise ratio of its first gradient.

        snr = ||g|| / (std(g) + epsilon)          at the first update; std over the entries, with n - 1
        m = g at the first update, then momentum m + (1 - momentum) g
        w = (1 - lr weight_decay) w - lr snr m

    What the authors' code leaves to chance is defined here:

    - A variable of one entry, and one whose entries of g are all equal (std below 1e-6 ||g||), has no such ratio: it is 1.
      In the authors' code a scalar with a gradient of 0.5 moves by 250000.
    - As long as a variable's gradient is zero, or it has none, it waits with its ratio for the first one that is not; the
      authors' code freezes it for ever, as the first factor of LoRA beside a second that starts at zero.
    - Under gradient accumulation or on several replicas, the ratio is that of the mean gradient.

    The ratio of n entries is about sqrt(n) or more, so large variables take large steps. State: one float32 number for each
    parameter and one for each variable.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-2`.
        momentum: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.9`.
        epsilon: Added to the standard deviation. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `1e-2`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Xu et al., No More Adam: Learning Rate Scaling at Initialization is All You Need, arXiv:2412.11768. Trajectories
        agree with the authors' code, AnonymousAlethiometer/SGD_SaI, version 1.0.3.

    Example:

    >>> w = keras.Variable([0.0, 0.0])
    >>> SGDSaI(learning_rate=0.1).apply([keras.ops.array([3.0, -3.0])], [w])
    >>> w.numpy().round(4)  # ||g|| = std(g) = 3 sqrt(2)
    array([-0.3,  0.3], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-2,
        momentum: float = 0.9,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = 1e-2,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.momentum = validation.beta("momentum", momentum)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        return {"m": self.add_state(variable, "m"), "snr": self.add_state(variable, "snr", shape=())}

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        first = state.snr == 0  # not known yet
        state.snr = ops.where(first, self._ratio(g), state.snr)
        state.m = ops.where(first, g, average(self.momentum, state.m, g))
        return w - ctx.learning_rate * (state.snr * state.m + ctx.weight_decay * w)

    def _ratio(self, g: Tensor) -> Tensor:
        """The signal-to-noise ratio; 1 if there is no noise, 0 if there is no signal."""
        signal = norm(g)
        noise = norm(g - ops.mean(g)) / math.sqrt(max(1, math.prod(g.shape) - 1))
        noisy = noise > 1e-6 * signal
        return ops.where(noisy, signal / (ops.where(noisy, noise, 1.0) + self.epsilon), ops.cast(signal > 0, g.dtype))

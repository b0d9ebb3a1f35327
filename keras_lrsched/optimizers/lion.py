"""Lion: the sign of a moving average of gradients."""

import math
from typing import Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._numerics import average, sign
from keras_lrsched.optimizers._options import OwnFusedOptions
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.fused_optimizer import FusedOptimizer


@register(
    "lion",
    title="sign of a momentum",
    paper="arXiv:2302.06675",
    code=("google/automl",),
    checked="trajectory",
    against="the authors' code, `lion_pytorch.py`",
    kind="optimizer",
    options={"learning_rate": 1e-4},
)
class Lion(FusedOptimizer):
    """Evolved sign momentum: every entry moves by the learning rate, whatever the size of its gradient.

        w = (1 - lr weight_decay) w - lr sign(beta_1 m + (1 - beta_1) g)
        m = beta_2 m + (1 - beta_2) g

    The arguments of `keras.optimizers.Lion` in its order, with its defaults; the authors' code has `learning_rate=1e-4`. The
    learning rate should be 3 to 10 times smaller than for AdamW, the weight decay as many times larger. The sign is taken in
    float32, so it is right also for gradients in 16 bits. State: one float32 number for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Weight of the momentum in the update, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.99`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
            gradient_accumulation_steps, name: As in Keras.
        **options: See `keras_lrsched.optimizers.Optimizer`, and `fused`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Chen et al., Symbolic Discovery of Optimization Algorithms, arXiv:2302.06675. Trajectories agree with the authors'
        code, google/automl `lion_pytorch.py`.

    Example:

    >>> w = keras.Variable([1.0, -2.0, 3.0])
    >>> Lion(learning_rate=0.5).apply([keras.ops.array([1e-3, -5.0, 0.0])], [w])
    >>> w.numpy()
    array([ 0.5, -1.5,  3. ], dtype=float32)
    """

    state_names = ("momentum",)
    elementwise = True
    kernel = "lion"

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        weight_decay: WeightDecay = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **options: Unpack[OwnFusedOptions],
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
            **options,
        )
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)

    def agreement_scale(self, mask: Tensor) -> Tensor:
        return math.prod(mask.shape) / (ops.sum(mask) + 1)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        m = state.momentum
        state.momentum = average(self.beta_2, m, g)
        return w - ctx.learning_rate * (sign(average(self.beta_1, m, g)) + ctx.weight_decay * w)

    def kernel_parameters(self, t: Tensor) -> dict[str, Tensor]:
        betas = {"beta_1": self.beta_1, "beta_2": self.beta_2}
        return {**betas, "one_minus_beta_1": 1 - self.beta_1, "one_minus_beta_2": 1 - self.beta_2}

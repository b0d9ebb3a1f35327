"""AdamW, with state and arithmetic in float32."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import OwnFusedOptions
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.fused_optimizer import FusedOptimizer


@register(
    "adamw",
    title="Adam with decoupled weight decay",
    paper="arXiv:1711.05101",
    code=("pytorch/pytorch",),
    checked="trajectory",
    against="`torch.optim.AdamW`",
    deviations="the weight decay is multiplied by the learning rate, as in PyTorch and Keras",
    kind="optimizer",
    options={"epsilon": 1e-8},
)
class AdamW(FusedOptimizer):
    """Adam with decoupled weight decay, also for variables in bfloat16.

        m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2
        w = (1 - lr weight_decay) w - lr (u / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)
        u = beta_1 m + (1 - beta_1) g     if nesterov, else m

    With `amsgrad`, the largest v so far takes its place in the root. With `nesterov`, it is the NAdamW of AlgoPerf, which
    corrects both parts of u alike.

    The arguments of `keras.optimizers.AdamW` in its order, with its defaults; the paper and PyTorch have `epsilon=1e-8`, and
    PyTorch `weight_decay=0.01`. Keras' AdamW keeps m, v and beta_2 in the dtype of the variable; in bfloat16, 0.999 is 1 and
    nothing moves. It adds epsilon before the bias correction, so that it counts more in the first updates. State: two
    float32 numbers for each parameter, three with `amsgrad`.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `0.004`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-7`.
        amsgrad: Whether v is the largest mean of squares so far. The compiled update has no such state. Defaults to `False`.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
            gradient_accumulation_steps, name: As in Keras.
        nesterov: Whether the momentum looks one gradient ahead, in plain Keras operations. Defaults to `False`.
        **options: See `keras_lrsched.optimizers.Optimizer`, and `fused`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv:1711.05101, with lr weight_decay as one factor,
        as in PyTorch and Keras. Trajectories agree with `torch.optim.AdamW`, those of `nesterov` with AlgoPerf's NAdamW.

    Example:

    >>> w = keras.Variable([1.0, -2.0], dtype="bfloat16")
    >>> AdamW(learning_rate=0.5, weight_decay=None).apply([keras.ops.array([1e-3, -5.0], "bfloat16")], [w])
    >>> w.numpy().astype("float32")
    array([ 0.5, -1.5], dtype=float32)
    """

    state_names = ("m", "v")
    elementwise = True
    kernel = "adamw"
    second_moment = "v"

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        weight_decay: WeightDecay = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        nesterov: bool = False,
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
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.amsgrad = bool(amsgrad)
        self.nesterov = bool(nesterov)
        if self.amsgrad:
            self.second_moment = "v_max"

    def make_state(self, variable: Variable) -> dict[str, Any]:
        names = ("m", "v", "v_max") if self.amsgrad else ("m", "v")
        return {name: self.add_state(variable, name) for name in names}

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        m = state.m = average(self.beta_1, state.m, g)
        v = state.v = average(self.beta_2, state.v, ops.square(g))
        if self.nesterov:
            m = average(self.beta_1, m, g)
        if self.amsgrad:
            v = state.v_max = ops.maximum(state.v_max, v)
        m, v = m / bias_correction(self.beta_1, ctx.t), v / bias_correction(self.beta_2, ctx.t)
        return w - ctx.learning_rate * (m / (ops.sqrt(v) + self.epsilon) + ctx.weight_decay * w)

    def _unsuited(self, variables: Sequence[Variable]) -> str | None:
        for name in ("amsgrad", "nesterov"):
            if getattr(self, name):
                return f"they do not have {name}. Received: {name}=True."
        return super()._unsuited(variables)

    def kernel_parameters(self, t: Tensor) -> dict[str, Tensor]:
        return adamw_parameters(self.beta_1, self.beta_2, self.epsilon, t)


def adamw_parameters(beta_1: float, beta_2: float, epsilon: float, t: Tensor) -> dict[str, Tensor]:
    """The parameters of the kernel."""
    return {
        "beta_1": beta_1,
        "gradient_weight": 1 - beta_1,
        "beta_2": beta_2,
        "one_minus_beta_2": 1 - beta_2,
        "epsilon": epsilon,
        "correction_1": 1 / bias_correction(beta_1, t),
        "correction_2": 1 / bias_correction(beta_2, t),
    }

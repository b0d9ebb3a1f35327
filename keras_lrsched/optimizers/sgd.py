"""Stochastic gradient descent with momentum, with state and arithmetic in float32."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._options import OwnFusedOptions
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.fused_optimizer import FusedOptimizer


@register(
    "sgd",
    title="momentum, exact also in bfloat16",
    paper="https://proceedings.mlr.press/v28/sutskever13.html",
    code=("tensorflow/addons",),
    checked="trajectory",
    against="SGDW of TensorFlow Addons",
    deviations="the weight decay is multiplied by the learning rate, unless `independent_weight_decay`",
    kind="optimizer",
    options={"momentum": 0.9},
)
class SGD(FusedOptimizer):
    """Gradient descent with heavy-ball or Nesterov momentum and decoupled weight decay, also for variables in bfloat16.

        m = momentum m + g
        w = (1 - lr weight_decay) w - lr m                      (heavy ball)
        w = (1 - lr weight_decay) w - lr (g + momentum m)       (Nesterov)

    With `independent_weight_decay`, it is SGDW of TensorFlow Addons: (1 - weight_decay) in place of (1 - lr weight_decay).

    The arguments of `keras.optimizers.SGD` in its order, with its defaults; 0.9 is the usual momentum. The learning rate
    stays outside of the momentum, as in PyTorch: when a schedule lowers it, the step is lower at once. Keras' SGD keeps
    `lr g` in its momentum; with a constant rate the two are the same. State: one float32 number for each parameter; none
    without momentum, unless `fused=True`, since the compiled update reads one.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `0.01`.
        momentum: At least 0 and below 1. Defaults to `0.0`.
        nesterov: Whether to look ahead. Defaults to `False`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
            gradient_accumulation_steps, name: As in Keras.
        independent_weight_decay: Whether the weight decay is not multiplied by the learning rate, in plain Keras operations.
            Defaults to `False`.
        **options: See `keras_lrsched.optimizers.Optimizer`, and `fused`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013,
        https://proceedings.mlr.press/v28/sutskever13.html; Loshchilov and Hutter, arXiv:1711.05101, for the decay. The
        trajectory agrees with TensorFlow Addons' SGDW, whose decay is not multiplied by the learning rate.

    Example:

    >>> w = keras.Variable([1.0, -2.0])
    >>> optimizer = SGD(learning_rate=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     optimizer.apply([keras.ops.array([1.0, 0.0])], [w])
    >>> w.numpy()
    array([-0.25, -2.  ], dtype=float32)
    """

    state_names = ("momentum",)
    elementwise = True
    kernel = "sgd"

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
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
        independent_weight_decay: bool = False,
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
        self.momentum = validation.beta("momentum", momentum)
        self.nesterov = nesterov
        self.independent_weight_decay = bool(independent_weight_decay)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        return super().make_state(variable) if self.momentum or self.fused is True else {}

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        new = w - ctx.learning_rate * self._direction(g, state)
        return new - self.decay(w, new, ctx)

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        return ctx.weight_decay * w if self.independent_weight_decay else super().decay(w, new, ctx)

    def _direction(self, g: Tensor, state: OptimizerState) -> Tensor:
        if "momentum" in state:
            m = state.momentum = self.momentum * state.momentum + g
            return g + self.momentum * m if self.nesterov else m
        if self.momentum:
            raise ValueError(
                "`momentum` was 0 when SGD was built, so that there is no state for it: construct SGD with a positive one. "
                f"Received: momentum={self.momentum!r}"
            )
        return g

    def _unsuited(self, variables: Sequence[Variable]) -> str | None:
        present = [variable for variable in variables if 0 not in variable.shape]
        if self.built and any(
            "momentum" not in self._states[keras_private.variable_index(self, variable)] for variable in present
        ):
            return "they read a momentum. Received: momentum=0."
        if self.independent_weight_decay:
            return "they multiply weight decay by the learning rate. Received: independent_weight_decay=True."
        return super()._unsuited(variables)

    def kernel_parameters(self, t: Tensor) -> dict[str, Tensor]:
        return {"momentum": self.momentum, "nesterov": self.nesterov}

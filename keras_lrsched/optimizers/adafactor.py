"""Adafactor: adaptive steps from the means of rows and columns only."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._factored import add_factors, normalize, rms
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers._options import OwnOptions
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "adafactor",
    title="second moments by row and column, relative steps",
    paper="arXiv:1804.04235",
    code=(
        "tensorflow/tensor2tensor",
        "huggingface/transformers",
        "pytorch/pytorch",
        "keras-team/keras",
        "google-deepmind/optax",
    ),
    checked="trajectory",
    against="Hugging Face transformers, PyTorch, Keras and optax, for matrices",
    deviations="optax factors the two longest axes of any variable; the authors' code in Tensor2Tensor was not run",
    kind="optimizer",
    options={"learning_rate": 1e-2},
)
class Adafactor(Optimizer):
    """Adam without momentum, whose second moment is the outer product of a mean for each row and for each column.

        s = g^2 + epsilon_1;  c = t^beta_2_decay
        r = (1 - c) r + c mean of s over the last axis
        k = (1 - c) k + c mean of s over the axis before
        u = g / sqrt(r k / mean(r));  u = u / max(1, rms(u) / clip_threshold)
        a = min(lr, 1 / sqrt(t))          if relative_step; min(lr, 1e-6 t, 1 / sqrt(t)) if warmup_init too; else lr
        a = a max(epsilon_2, rms(w))      if scale_parameter
        w = (1 - a weight_decay) w - a u

    State: for a matrix of n rows and m columns n + m float32 numbers, so 0.016 bytes for each parameter if both are 512.
    In a variable with more axes, such as a kernel of a convolution in Keras' layout, the last two are the matrix. With fewer
    than two axes, or where one of the two is shorter than `min_dim_size_to_factor`, the second moment is whole.

    The arguments of `keras.optimizers.Adafactor` in its order, with its defaults; the paper has `learning_rate=1e-2`, as has
    Hugging Face transformers with `relative_step`. Keras' Adafactor allocates a second moment of full size beside the
    factors, which saves nothing, and limits the learning rate to 1 / sqrt(t) also if `relative_step=False`. PyTorch and
    Keras multiply the weight decay by lr rather than a.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. With `relative_step` it is an
            upper limit. Defaults to `1e-3`.
        beta_2_decay: Exponent of the weight of a new gradient in the means, below 0. Defaults to `-0.8`.
        epsilon_1: Added to squared gradients, above 0. Defaults to `1e-30`.
        epsilon_2: Least root mean square of w for the step. Defaults to `1e-3`.
        clip_threshold: Largest root mean square of the update u. Defaults to `1.0`.
        relative_step: Whether the learning rate falls as 1 / sqrt(t). Defaults to `True`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
            gradient_accumulation_steps, name: As in Keras.
        scale_parameter: Whether the step is relative to the root mean square of w. Defaults to `True`.
        warmup_init: Whether the learning rate of `relative_step` rises as 1e-6 t at first. Defaults to `False`.
        beta_1: Decay rate of a mean of a u, which takes one float32 number more for each parameter. Defaults to `None`, for
            none.
        min_dim_size_to_factor: The least length of both axes of a matrix for a second moment in factors; optax has 128.
            Defaults to `0`, for all matrices.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range, or `warmup_init` is given without `relative_step`.

    Reference:
        Shazeer and Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, arXiv:1804.04235. Trajectories
        agree with Hugging Face transformers, PyTorch, Keras and optax, for matrices; optax takes the two longest axes of any
        variable. The authors' code in Tensor2Tensor was not run.

    Example:

    >>> w = keras.Variable(keras.ops.ones((512, 512)))
    >>> optimizer = Adafactor(1e-2)
    >>> optimizer.apply([keras.ops.full((512, 512), -3.0)], [w])
    >>> float(w[0, 0])
    1.0099999904632568
    >>> optimizer.state_bytes_per_parameter()
    0.015625
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        relative_step: bool = True,
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
        scale_parameter: bool = True,
        warmup_init: bool = False,
        beta_1: float | None = None,
        min_dim_size_to_factor: int = 0,
        **options: Unpack[OwnOptions],
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
        self.beta_2_decay = validation.negative_float("beta_2_decay", beta_2_decay)
        self.epsilon_1 = validation.positive_float("epsilon_1", epsilon_1)
        self.epsilon_2 = validation.non_negative_float("epsilon_2", epsilon_2)
        self.clip_threshold = validation.positive_float("clip_threshold", clip_threshold)
        self.relative_step = relative_step
        self.scale_parameter = scale_parameter
        if warmup_init and not relative_step:
            raise ValueError(
                "`warmup_init` must be False without `relative_step`: give a schedule with a warmup. "
                f"Received: warmup_init={warmup_init!r}, relative_step={relative_step!r}"
            )
        self.warmup_init = warmup_init
        self.beta_1 = None if beta_1 is None else validation.beta("beta_1", beta_1)
        self.min_dim_size_to_factor = validation.non_negative_int("min_dim_size_to_factor", min_dim_size_to_factor)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        state = add_factors(self, variable, least=self.min_dim_size_to_factor)
        return state if self.beta_1 is None else {"m": self.add_state(variable, "m"), **state}

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        u = normalize(g, state, ops.power(ctx.t, self.beta_2_decay), self.epsilon_1, self.clip_threshold)
        rate = self._rate(w, ctx)
        move = rate * u
        if self.beta_1 is not None:
            move = state.m = average(self.beta_1, state.m, move)
        return w - rate * ctx.weight_decay * w - move

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        return self._rate(w, ctx) * ctx.weight_decay * w

    def _rate(self, w: Tensor, ctx: UpdateContext) -> Tensor:
        rate = ctx.learning_rate
        if self.relative_step:
            rate = ops.minimum(rate, ops.rsqrt(ctx.t))
        if self.warmup_init:
            rate = ops.minimum(rate, 1e-6 * ctx.t)
        return rate * ops.maximum(self.epsilon_2, rms(w)) if self.scale_parameter else rate

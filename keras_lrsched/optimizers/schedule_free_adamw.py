"""Schedule-Free AdamW, and Schedule-Free+."""

import math
from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._d_adaptation import ratio
from keras_lrsched.optimizers._loss_aware_optimizer import LossAwareOptimizer
from keras_lrsched.optimizers._numerics import average, bias_correction, dot, sum_of_sizes
from keras_lrsched.optimizers._options import OwnOptions
from keras_lrsched.optimizers._schedule_free import ScheduleFree
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "schedule_free_plus",
    title="Schedule-Free AdamW with step sizes from the loss",
    paper="https://github.com/facebookresearch/schedule_free",
    code=("facebookresearch/schedule_free",),
    checked="trajectory",
    against="the authors' reference code of 2026",
    deviations=(
        "a mean of gradient norms (`polyak_beta`) is corrected for its bias where it is used; the authors' code stores the "
        "corrected one, and corrects it again"
    ),
    kind="optimizer",
    options={"plus": True, "learning_rate": 1.0, "beta_2": 0.95, "inner_momentum": 0.9},
)
@register(
    "schedule_free_adamw",
    title="AdamW with averaged weights in place of a schedule",
    paper="arXiv:2405.15682",
    code=("facebookresearch/schedule_free",),
    checked="trajectory",
    against="the authors' code, version 1.4",
    deviations="before version 1.3 the authors' v was not corrected for its bias",
    kind="optimizer",
)
class ScheduleFreeAdamW(LossAwareOptimizer, ScheduleFree):
    """AdamW with an average of weights in the place of momentum and of a schedule that depends on the number of updates.

        k = min(t / warmup_steps, 1) lr
        v = beta_2 v + (1 - beta_2) g^2
        z = z - k (g / (sqrt(v / (1 - beta_2^t)) + epsilon) + weight_decay y)
        x = (1 - c) x + c z              with c from t^r (largest k so far)^weight_lr_power, over the sum of these
        y = (1 - beta_1) z + beta_1 x

    The gradient g is taken at y, which the model has in training; the result is x. After `fit` the model has x, and the next
    update goes back to y. To have x in `evaluate`, `predict` and files within `fit`, and BatchNorm statistics that belong to
    it, add the callback `ScheduleFreeEvaluation`; in a loop of your own, call `use_average()` and `use_training_weights()`.

    The arguments of `keras.optimizers.ScheduleFreeAdamW` in its order, with its defaults, which are those of the authors'
    code. On TensorFlow and PyTorch, Keras' class reads z after it has changed, so that y is the plain mean of z; it never
    gives x to the model.

    Good learning rates are 1 to 10 times those of AdamW; a warmup helps; for long runs beta_1 may be 0.95 or 0.98. If the
    learning rate has a schedule, what it falls to counts no less in the average. Weights decay at y.

    With `plus`, it is Schedule-Free+, whose step size is a Polyak step from the loss, multiplied by the learning rate:

        k = min(t / warmup_steps, 1) lr max(0, loss + beta_1 <g, z - x>) / n
        n = sqrt(pi / 2) ||g||_1, or its mean with the decay rate polyak_beta
        z = z - k (m / (sqrt(v / (1 - beta_2^t)) + epsilon) + k weight_decay y)

    Products and norms are over all variables together. The name `"schedule_free_plus"` stands for it with the values of the
    authors' code: a learning rate of 1, `beta_2=0.95` and `inner_momentum=0.9`. Values of weight decay are 20 to 50. In the
    first `average_warmup` updates x is z. beta_1 rises to `beta_1_max` in `beta_1_anneal_steps` updates, in a line of the
    logarithm of 1 - beta_1. It needs a loss that is 0 at best: `fit` gives it, with the regularization losses. In a loop of
    your own, call `optimizer.set_loss(loss)` before each `apply`, in the same compiled function; `mixed_float16` in `fit`,
    and several replicas of `tf.distribute`, are refused in the first update.

    State: two float32 numbers for each parameter, three with `inner_momentum`; two for each variable.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `0.0025`.
        beta_1: How much of y is x, between 0 and 1, both excluded. Defaults to `0.9`.
        beta_2: Decay rate of the mean of squared gradients, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-8`.
        warmup_steps: Updates until the learning rate is reached, in a line. Defaults to `0`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
            gradient_accumulation_steps, name: As in Keras.
        r: Power of t in the weights of the average, at least 0. Defaults to `0.0`.
        weight_lr_power: Power of the largest learning rate so far in them, at least 0. Defaults to `2.0`.
        inner_momentum: Decay rate of a mean of gradients that takes the place of g above the root, at least 0 and below 1.
            Defaults to `0.0`, for g itself; otherwise `0.9` is usual.
        plus: Whether the step size comes from the loss, as above, for which are the four arguments below. Defaults to
            `False`.
        polyak_beta: Decay rate of the mean of gradient norms, at least 0 and below 1. Defaults to `0.0`, for the last one.
        average_warmup: Updates until the average begins; once or twice those of a warmup. Defaults to `0`.
        beta_1_anneal_steps: Updates until `beta_1_max` is reached. Defaults to `None`, for a constant beta_1.
        beta_1_max: The last beta_1, between 0 and 1, both excluded. Defaults to `0.965`.
        **options: See `keras_lrsched.optimizers.Optimizer`. With `use_ema`, the model does not have x after `fit`.

    Raises:
        ValueError: If an argument is out of its range, or belongs to `plus` and is given without it. In the first update, if
            there is no loss with `plus`.

    Reference:
        Defazio et al., The Road Less Scheduled, arXiv:2405.15682. Trajectories agree with the authors' code,
        facebookresearch/schedule_free, version 1.4; before 1.3, v was not corrected for its bias. Those of Schedule-Free+
        agree with its `AdamCScheduleFreePlusPaper`, but for `polyak_beta`: the corrected mean is stored there, and corrected
        again.

    Example:

    >>> w = keras.Variable([1.0])
    >>> optimizer = ScheduleFreeAdamW(learning_rate=0.5)
    >>> for _ in range(2):
    ...     optimizer.apply([keras.ops.array([4.0])], [w])
    >>> w.numpy().round(4)  # y
    array([0.225], dtype=float32)
    >>> optimizer.use_average()
    >>> w.numpy().round(4)  # x, the mean of 0.5 and 0
    array([0.25], dtype=float32)
    """

    state_settings = ("inner_momentum",)

    def __init__(
        self,
        learning_rate: LearningRate = 0.0025,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        warmup_steps: int = 0,
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
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        inner_momentum: float = 0.0,
        plus: bool = False,
        polyak_beta: float = 0.0,
        average_warmup: int = 0,
        beta_1_anneal_steps: int | None = None,
        beta_1_max: float = 0.965,
        **options: Unpack[OwnOptions],
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay,
            r,
            weight_lr_power,
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
        self.beta_1 = validation.inner_fraction("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        self.inner_momentum = validation.beta("inner_momentum", inner_momentum)
        self.plus = self.needs_loss = bool(plus)
        self.polyak_beta = validation.beta("polyak_beta", polyak_beta)
        self.average_warmup = validation.non_negative_int("average_warmup", average_warmup)
        self.beta_1_anneal_steps = _positive_or_none("beta_1_anneal_steps", beta_1_anneal_steps)
        self.beta_1_max = validation.inner_fraction("beta_1_max", beta_1_max)
        given = {"polyak_beta": polyak_beta, "average_warmup": average_warmup, "beta_1_anneal_steps": beta_1_anneal_steps}
        if not plus and any(given.values()):
            name = next(name for name, value in given.items() if value)
            raise ValueError(
                f"`{name}` is for Schedule-Free+: pass plus=True. Received: {name}={given[name]!r}, plus={plus!r}"
            )
        if self.plus and self.corrected_weight_decay:
            raise ValueError(
                "`corrected_weight_decay` is what Schedule-Free+ does by itself: leave it out. "
                f"Received: corrected_weight_decay={self.corrected_weight_decay!r}, plus=True"
            )

    def make_state(self, variable: Variable) -> dict[str, Any]:
        names = ("gap", "v", "m") if self.inner_momentum else ("gap", "v")
        return {name: self.add_state(variable, name) for name in names}

    def make_scalars(self) -> dict[str, Any]:
        scalars = super().make_scalars()
        return {**scalars, "mean_norm": self.add_scalar("mean_norm")} if self.plus else scalars

    def beta_at(self, t: Tensor) -> Any:
        if self.beta_1_anneal_steps is None:
            return self.beta_1
        done = ops.minimum((t - 1) / self.beta_1_anneal_steps, 1.0)
        return 1 - (1 - self.beta_1) ** (1 - done) * (1 - self.beta_1_max) ** done

    def factor(self, t: Tensor) -> Any:
        return ops.minimum(t / max(self.warmup_steps, 1), 1.0)

    def common_factor(self, contexts: Sequence[UpdateContext], t: Tensor) -> Any:
        return self.factor(t) * self._polyak_step(contexts, t) if self.plus else self.factor(t)

    def _polyak_step(self, contexts: Sequence[UpdateContext], t: Tensor) -> Tensor:
        scalars = contexts[0].scalars
        product = sum(dot(ctx.gradient, ctx.state.gap) / scalars.share[ctx.index] for ctx in contexts)  # <g, z - x>
        size = math.sqrt(math.pi / 2) * sum(sum_of_sizes(ctx.gradient) for ctx in contexts)
        scalars.mean_norm = average(self.polyak_beta, scalars.mean_norm, size)
        n = scalars.mean_norm / bias_correction(self.polyak_beta, t)
        if self._stores_corrected_norm:
            scalars.mean_norm = n
        gain = ops.maximum(scalars.loss + self.beta_at(t) * product, 0.0)
        return ratio(ops.where(n == 0, 0.0, gain), n)

    _stores_corrected_norm = False
    """Whether the bias is corrected twice, as in the authors' code, for comparison."""

    def weight(self, t: Tensor, largest_rate: Tensor) -> Tensor:
        return super().weight(t, largest_rate) * ops.cast(t > self.average_warmup, "float32")

    def _add_weight(self, scalars: OptimizerState, t: Tensor) -> Tensor:
        return ops.where(t > self.average_warmup, super()._add_weight(scalars, t), 1.0)

    def direction(self, y: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        decay = ctx.weight_decay * y
        if self.plus:  # in proportion to the square of the step size, as AdamC
            decay = ctx.cast(ctx.shared[0]) * ctx.learning_rate * decay
        state.v = average(self.beta_2, state.v, ops.square(g))
        if self.inner_momentum:
            state.m = average(self.inner_momentum, state.m, g)
            g = state.m / bias_correction(self.inner_momentum, ctx.t)
        return g / (ops.sqrt(state.v / bias_correction(self.beta_2, ctx.t)) + self.epsilon) + decay


def _positive_or_none(name: str, value: Any) -> int | None:
    return None if value is None else validation.positive_int(name, value)

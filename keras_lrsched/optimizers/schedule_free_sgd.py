"""Schedule-Free SGD."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._schedule_free import ScheduleFree
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "schedule_free_sgd",
    title="SGD with averaged weights in place of a schedule",
    paper="arXiv:2405.15682",
    code=("facebookresearch/schedule_free",),
    checked="trajectory",
    against="the authors' code",
    kind="optimizer",
)
class ScheduleFreeSGD(ScheduleFree):
    """SGD with an average of weights in the place of momentum and of a schedule that depends on the number of updates.

        k = min(t / warmup_steps, 1) lr
        z = z - k (g + weight_decay y)
        x = (1 - c) x + c z              with c from t^r (largest k so far)^weight_lr_power, over the sum of these
        y = (1 - momentum) z + momentum x

    The gradient g is taken at y, which the model has in training; the result is x. After `fit` the model has x, and the next
    update goes back to y. To have x in `evaluate`, `predict` and files within `fit`, and BatchNorm statistics that belong to
    it, add the callback `ScheduleFreeEvaluation`; in a loop of your own, call `use_average()` and `use_training_weights()`.

    Good learning rates are 10 to 50 times those of SGD with momentum. If the learning rate has a schedule, what it falls to
    counts no less in the average. Weights decay at y. State: one float32 number for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1.0`.
        momentum: How much of y is x, between 0 and 1, both excluded. Defaults to `0.9`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        warmup_steps: Updates until the learning rate is reached, in a line. Defaults to `0`.
        r: Power of t in the weights of the average, at least 0. Defaults to `0.0`.
        weight_lr_power: Power of the largest learning rate so far in them, at least 0. Defaults to `2.0`.
        **options: See `keras_lrsched.optimizers.Optimizer`. With `use_ema`, the model does not have x after `fit`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Defazio et al., The Road Less Scheduled, arXiv:2405.15682. Trajectories agree with the authors' code,
        facebookresearch/schedule_free.

    Example:

    >>> w = keras.Variable([1.0])
    >>> optimizer = ScheduleFreeSGD(learning_rate=0.5)
    >>> for _ in range(2):
    ...     optimizer.apply([w + 0.0], [w])
    >>> w.numpy().round(4)  # y
    array([0.3625], dtype=float32)
    >>> optimizer.use_average()
    >>> w.numpy().round(4)  # x, the mean of 0.5 and 0.25
    array([0.375], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        momentum: float = 0.9,
        weight_decay: WeightDecay = None,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, r, weight_lr_power, **options)
        self.momentum = validation.inner_fraction("momentum", momentum)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)

    def beta_at(self, t: Tensor) -> Any:
        return self.momentum

    def factor(self, t: Tensor) -> Any:
        return ops.minimum(t / max(self.warmup_steps, 1), 1.0)

    def direction(self, y: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        return g + ctx.weight_decay * y

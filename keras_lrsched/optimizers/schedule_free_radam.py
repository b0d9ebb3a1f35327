"""Schedule-Free RAdam."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._schedule_free import ScheduleFree
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.rectified_adam import average_length, longest_average, rectification


@register(
    "schedule_free_radam",
    title="RAdam with averaged weights in place of a schedule",
    paper="arXiv:2405.15682",
    code=("facebookresearch/schedule_free",),
    checked="trajectory",
    against="the authors' code",
    kind="optimizer",
)
class ScheduleFreeRAdam(ScheduleFree):
    """Schedule-Free AdamW whose warmup is the rectification of RAdam: no schedule, and no length to choose.

        n_max = 2 / (1 - beta_2) - 1;  n = n_max - 2 t beta_2^t / (1 - beta_2^t)
        k = lr sqrt((n - 4) (n - 2) n_max / ((n_max - 4) (n_max - 2) n))     if n > 4
        v = beta_2 v + (1 - beta_2) g^2
        z = z - k (g / (sqrt(v / (1 - beta_2^t)) + epsilon) + weight_decay y)
        x = (1 - c) x + c z              with c from t^r (largest k so far)^weight_lr_power, over the sum of these
        y = (1 - beta_1) z + beta_1 x

    While n is at most 4, in the first four updates with the defaults, k is 0, or lr with g itself as the step.

    The gradient g is taken at y, which the model has in training; the result is x. After `fit` the model has x, and the next
    update goes back to y. To have x in `evaluate`, `predict` and files within `fit`, and BatchNorm statistics that belong to
    it, add the callback `ScheduleFreeEvaluation`; in a loop of your own, call `use_average()` and `use_training_weights()`.
    Weights decay at y. State: two float32 numbers for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `0.0025`.
        beta_1: How much of y is x, between 0 and 1, both excluded. Defaults to `0.9`.
        beta_2: Decay rate of the mean of squared gradients, above 0.6 and below 1, so that n comes above 4. Defaults to
            `0.999`.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        r: Power of t in the weights of the average, at least 0. Defaults to `0.0`.
        weight_lr_power: Power of the largest k so far in them, at least 0. Defaults to `2.0`.
        silent_sgd_phase: Whether nothing moves while n is at most 4. Defaults to `True`.
        **options: See `keras_lrsched.optimizers.Optimizer`. With `use_ema`, the model does not have x after `fit`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Defazio et al., The Road Less Scheduled, arXiv:2405.15682, and Liu et al., arXiv:1908.03265. Trajectories agree with
        the code of facebookresearch/schedule_free.

    Example:

    >>> w = keras.Variable([1.0])
    >>> optimizer = ScheduleFreeRAdam(learning_rate=0.5)
    >>> for _ in range(5):
    ...     optimizer.apply([keras.ops.array([4.0])], [w])
    >>> w.numpy().round(4)  # after the first of five steps that is not silent
    array([0.9913], dtype=float32)
    """

    state_names = ("gap", "v")

    def __init__(
        self,
        learning_rate: LearningRate = 0.0025,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        silent_sgd_phase: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, r, weight_lr_power, **options)
        self.beta_1 = validation.inner_fraction("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        if longest_average(self.beta_2) <= 4:
            raise ValueError(f"`beta_2` must be above 0.6, or no step is rectified. Received: beta_2={beta_2!r}")
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.silent_sgd_phase = silent_sgd_phase

    def beta_at(self, t: Tensor) -> Any:
        return self.beta_1

    def factor(self, t: Tensor) -> Any:
        n = average_length(self.beta_2, t)
        rectified = rectification(self.beta_2, ops.maximum(n, 4.0))
        return ops.where(n > 4, rectified, 0.0 if self.silent_sgd_phase else 1.0)

    def direction(self, y: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        state.v = average(self.beta_2, state.v, ops.square(g))
        u = g / (ops.sqrt(state.v / bias_correction(self.beta_2, ctx.t)) + self.epsilon)
        return ops.where(average_length(self.beta_2, ctx.t) > 4, u, g) + ctx.weight_decay * y

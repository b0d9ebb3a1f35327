"""AdaLomo: the update rule of low-memory optimization with an adaptive learning rate."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._factored import add_factors, normalize, rms
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "adalomo",
    title="the update rule of low-memory optimization",
    paper="arXiv:2310.10195",
    code=("https://pypi.org/project/lomo-optim",),
    checked="trajectory",
    against="the authors' package lomo-optim 0.1.1",
    kind="optimizer",
)
class AdaLomo(Optimizer):
    """Factored second moments, each variable's update normalized and in proportion to its weights.

        s = g^2 + epsilon_1;  c = t^beta_2_decay
        r = (1 - c) r + c mean of s over the last axis
        k = (1 - c) k + c mean of s over the axis before
        u = g / sqrt(r k / mean(r));  u = u / max(1, rms(u) / clip_threshold)
        a = lr max(epsilon_2, rms(w))
        w = (1 - a weight_decay) w - a u

    It is Adafactor with `relative_step=False`. LOMO saves the memory of gradients too, in that each variable is updated
    during the backward pass and its gradient freed; Keras has all gradients before it calls an optimizer, so this is the
    update rule only. State: n + m float32 numbers for an n x m matrix, see `Adafactor`, also for variables with more than
    two axes, which the authors' code does not take.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_2_decay: Exponent of the weight of a new gradient in the means, below 0. Defaults to `-0.8`.
        epsilon_1: Added to squared gradients, above 0. Defaults to `1e-30`.
        epsilon_2: Least root mean square of w for the step. Defaults to `1e-3`.
        clip_threshold: Largest root mean square of the update u. Defaults to `1.0`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Lv et al., AdaLomo: Low-memory Optimization with Adaptive Learning Rate, arXiv:2310.10195. Trajectories agree with
        the authors' package lomo-optim 0.1.1.

    Example:

    >>> w = keras.Variable([[2.0, 2.0], [2.0, 2.0]])
    >>> AdaLomo(learning_rate=0.1).apply([keras.ops.array([[1.0, -3.0], [1.0, -3.0]])], [w])
    >>> w.numpy().round(4)  # by 0.1 * 2
    array([[1.8, 2.2], [1.8, 2.2]], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_2_decay = validation.negative_float("beta_2_decay", beta_2_decay)
        self.epsilon_1 = validation.positive_float("epsilon_1", epsilon_1)
        self.epsilon_2 = validation.non_negative_float("epsilon_2", epsilon_2)
        self.clip_threshold = validation.positive_float("clip_threshold", clip_threshold)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        return add_factors(self, variable)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        u = normalize(g, state, ops.power(ctx.t, self.beta_2_decay), self.epsilon_1, self.clip_threshold)
        return w - self._rate(w, ctx) * (u + ctx.weight_decay * w)

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        return self._rate(w, ctx) * ctx.weight_decay * w

    def _rate(self, w: Tensor, ctx: UpdateContext) -> Tensor:
        return ctx.learning_rate * ops.maximum(self.epsilon_2, rms(w))

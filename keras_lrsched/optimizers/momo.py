"""MoMo: SGD with momentum whose step size comes from a model of the loss."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._momo import MomentumModel
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import Options


@register(
    "momo",
    title="momentum with a step size from a model of the loss",
    paper="arXiv:2305.07583",
    code=("fabian-sp/MoMo",),
    checked="trajectory",
    against="the authors' code",
    deviations=(
        "decay and multipliers that differ between variables are not in that code; they follow from the same minimization"
    ),
    kind="optimizer",
)
class MoMo(MomentumModel):
    """Momentum with an adaptive Polyak step: as far as past losses and gradients predict a lower loss.

        f = beta f + (1 - beta) loss;  d = beta d + (1 - beta) g;  c = beta c + (1 - beta) <g, w>
        a = 1 + lr weight_decay
        tau = min(lr, max(a (f - lb) + <d, w> - a c, 0) / ||d||^2)
        w = (w - tau d) / a

    The first loss, g and <g, w> are the first means. The learning rate is the upper limit of the step size, which makes the
    method robust to one that is too large; a schedule may lower it. `lb` must lie below all losses: 0 suits cross-entropy
    and squared errors. With `use_fstar` (MoMo*) it is estimated, and `lb` is the lowest value it takes. Clipped gradients
    fit no model of the loss. All variables share the step size: a rule for some of them has an effect on all.

    It needs the loss: `fit` gives it, with the regularization losses. In a loop of your own, call `optimizer.set_loss(loss)`
    before each `apply`, in the same compiled function. `mixed_float16` in `fit`, and several replicas of `tf.distribute`,
    are refused in the first update. State: one float32 number for each parameter.

    Args:
        learning_rate: The largest step size: a number, a `LearningRateSchedule`, or a function without arguments. Defaults
            to `1.0`.
        beta: Decay rate of the means, at least 0 and below 1. Defaults to `0.9`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        lb: A lower bound of the loss. Defaults to `0.0`.
        bias_correction: Whether the means start at 0 instead, with lb and the limit of tau corrected for that: multiplied
            and divided by 1 - beta^t. Defaults to `False`.
        use_fstar: Whether the lower bound is estimated. Defaults to `False`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. In the first update, if there is no loss.

    Reference:
        Schaipp et al., MoMo: Momentum Models for Adaptive Learning Rates, arXiv:2305.07583. Trajectories agree with the
        authors' code, fabian-sp/MoMo. Decay and multipliers that differ between variables are not in it; they follow from
        the same minimization.

    Example:

    >>> w = keras.Variable([3.0, 4.0])
    >>> optimizer = MoMo()
    >>> optimizer.set_loss(12.5)  # 0.5 ||w||^2
    >>> optimizer.apply([w + 0.0], [w])
    >>> w.numpy()  # a linear model is 0 halfway to the minimum
    array([1.5, 2. ], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        beta: float = 0.9,
        weight_decay: WeightDecay = None,
        lb: float = 0.0,
        bias_correction: bool = False,
        use_fstar: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, lb, use_fstar, **options)
        self.beta = validation.beta("beta", beta)
        self.bias_correction = bias_correction

    def mean(self, old: Tensor, new: Tensor, t: Tensor) -> Tensor:
        updated = average(self.beta, old, new)
        return updated if self.bias_correction else ops.where(t == 1, new, updated)

    def weight(self, t: Tensor) -> Any:
        return bias_correction(self.beta, t) if self.bias_correction else 1.0

"""Conditional gradient: a step towards the point of a ball that the gradient points away from."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, WeightDecay
from keras_lrsched.optimizers._numerics import norm
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "conditional_gradient",
    title="steps towards the border of a ball (Frank-Wolfe)",
    paper="arXiv:1803.06453",
    code=("tensorflow/addons",),
    checked="read",
    against="TensorFlow Addons",
    deviations="the nuclear norm is that of (inputs, outputs) for kernels with more than two axes, which fail there",
    kind="optimizer",
)
class ConditionalGradient(Optimizer):
    """Weights that stay in a ball: each update moves them towards its point that is farthest along the negative gradient.

        w = learning_rate w - (1 - learning_rate) lambda_ s
        s = g / (||g|| + epsilon)                            "fro": the ball of the Frobenius norm
        s = first singular vectors u v^T of g                "nuclear": the ball of the nuclear norm

    The learning rate is the share of w that remains, from 0 to 1, so that larger ones are shorter steps; a schedule rises
    to 1. With `"nuclear"`, a vector and a scalar are matrices of one row, where both norms are the same, and a variable with
    more axes is a matrix of (all but the last, last). The norm is that of a whole variable. There is no state. The arguments
    are those of TensorFlow Addons.

    Args:
        learning_rate: The share of w that remains: a number of at most 1, a `LearningRateSchedule`, or a function without
            arguments. Defaults to `0.99`; TensorFlow Addons has no default.
        lambda_: The radius of the ball. Defaults to `0.01`.
        epsilon: Added to the norm, above 0. Defaults to `1e-7`.
        ord: `"fro"` or `"nuclear"`. Defaults to `"fro"`.
        weight_decay: L2 regularization, added to the gradient: a number, a `LearningRateSchedule`, or `None`. Defaults to
            `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range, or `learning_rate_multipliers` are given, also by
            `LayerwiseLearningRate`: a multiplier of 0 would take all of the weights, and not leave them.

    Reference:
        Ravi et al., Constrained Deep Learning using Conditional Gradient and Applications in Computer Vision,
        arXiv:1803.06453, as in TensorFlow Addons, whose code was read.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> ConditionalGradient(learning_rate=0.5, lambda_=5.0).apply([keras.ops.array([3.0, -4.0])], [w])
    >>> w.numpy().round(4)  # halfway to (-3, 4)
    array([-1. ,  2.5], dtype=float32)
    """

    refused_rules = dict.fromkeys(
        ("cautious", "cautious_weight_decay", "norm_control"), "its step is to a point of the ball, and no direction"
    )

    takes_multipliers = False

    def __init__(
        self,
        learning_rate: LearningRate = 0.99,
        lambda_: float = 0.01,
        epsilon: float = 1e-7,
        ord: str = "fro",
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        if isinstance(learning_rate, (int, float)):
            validation.fraction("learning_rate", learning_rate)
        self.lambda_ = validation.positive_float("lambda_", lambda_)
        self.epsilon = validation.positive_float("epsilon", epsilon)
        self.ord = validation.one_of("ord", ord, ("fro", "nuclear"))

    def couples_weight_decay(self) -> bool:
        return True

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        g = g + ctx.weight_decay * w
        s = first_singular_vectors(g) if self._is_matrix(g) else g / (norm(g) + self.epsilon)
        return ctx.learning_rate * w - (1 - ctx.learning_rate) * self.lambda_ * s

    def _is_matrix(self, g: Tensor) -> Any:
        return self.ord == "nuclear" and len(g.shape) > 1


def first_singular_vectors(x: Tensor) -> Tensor:
    """u v^T of the largest singular value of a matrix (all axes but the last, last), in the shape of x."""
    u, _, v = ops.svd(ops.reshape(x, (-1, x.shape[-1])), full_matrices=False)
    return ops.reshape(u[:, :1] * v[:1], x.shape)

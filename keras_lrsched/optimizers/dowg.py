"""DoWG: SGD with the distance over weighted gradients as step size."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, WeightDecay
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._travelled import Travelled, square
from keras_lrsched.optimizers._update_context import UpdateContext


@register(
    "dowg",
    title="SGD with the distance over weighted gradients as step size",
    paper="arXiv:2305.16284",
    code=("google-deepmind/optax",),
    checked="trajectory",
    against="optax",
    deviations="weights that are set from outside move the start as well; w - w_0 is the sum of the updates",
    kind="optimizer",
)
class DoWG(Travelled):
    """SGD whose step size is the squared distance from the start, over the root of gradients that are weighted with it.

        r = max(r, ||w - w_0||^2)           init_estim_sq_dist at first
        s = s + r ||g||^2
        w = w - lr r / (sqrt(s) + epsilon) g

    Leave the learning rate at 1. Later gradients, farther from the start, count more, so that it is less cautious than
    `DoG`. Norms are over all variables together, which share the step size: a rule for some of them (weight decay, a
    multiplier) has an effect on all. State: one float32 number for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments; a number outside [0.1, 10] is
            warned of. Defaults to `1.0`.
        init_estim_sq_dist: The first r, above 0. Defaults to `None`, for epsilon.
        epsilon: Added to the root, above 0. Defaults to `1e-4`.
        weight_decay: L2 regularization, added to the gradient: a number, a `LearningRateSchedule`, or `None`. Defaults to
            `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Khaled et al., DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent Method, arXiv:2305.16284.
        Trajectories agree with optax.

    Example:

    >>> w = keras.Variable([3.0, 4.0])
    >>> DoWG(init_estim_sq_dist=0.25).apply([keras.ops.array([0.0, 8.0])], [w])
    >>> w.numpy().round(3)  # by the root of 0.25
    array([3. , 3.5], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        init_estim_sq_dist: float | None = None,
        epsilon: float = 1e-4,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, epsilon, weight_decay, **options)
        first = epsilon if init_estim_sq_dist is None else init_estim_sq_dist
        self.init_estim_sq_dist = validation.positive_float("init_estim_sq_dist", first)

    def make_scalars(self) -> dict[str, Any]:
        return {"r": self.add_scalar("r", self.init_estim_sq_dist), "s": self.add_scalar("s")}

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        self.add_decay(contexts)
        scalars = contexts[0].scalars
        r = scalars.r = ops.maximum(scalars.r, self.squared_distance())
        scalars.s = scalars.s + r * sum(square(ctx.gradient) for ctx in contexts)
        return r / (ops.sqrt(scalars.s) + self.epsilon)

"""DoG: SGD with the distance over gradients as step size."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._travelled import Travelled, square
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "dog",
    title="SGD with the distance over gradients as step size",
    paper="arXiv:2302.12022",
    code=("formll/dog", "google-deepmind/optax"),
    checked="trajectory",
    against="the authors' code, also by layer, and optax",
    deviations="weights that are set from outside move the start as well; w - w_0 is the sum of the updates",
    kind="optimizer",
)
class DoG(Travelled):
    """SGD whose step size is the largest distance from the start so far, over the root of all squared gradient norms.

        r = max(r, ||w - w_0||)             reps_rel (1 + ||w_0||) at first
        s = s + ||g||^2                     from epsilon
        w = w - lr r / sqrt(s) g

    Leave the learning rate at 1. Norms are over all variables together; with `layerwise`, which is LDoG, each variable has
    its own r and s. The result should be an average of the weights, such as that of the callback `WeightAveraging`. Take
    `reps_rel=1e-4` for networks with batch normalization. All variables share the step size: a rule for some of them (weight
    decay, a multiplier) has an effect on all. State: one float32 number for each parameter; with `layerwise`, two for each
    variable.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments; a number outside [0.1, 10] is
            warned of. Defaults to `1.0`.
        reps_rel: The first distance, relative to the norm of the weights. Defaults to `1e-6`.
        epsilon: Where s starts, above 0. Defaults to `1e-8`.
        weight_decay: L2 regularization, added to the gradient: a number, a `LearningRateSchedule`, or `None`. Defaults to
            `None`.
        layerwise: Whether each variable has its own step size. Defaults to `False`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Ivgi et al., DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule, arXiv:2302.12022. Trajectories
        agree with the authors' code, formll/dog, also by layer, and with optax.

    Example:

    >>> w = keras.Variable([3.0, 4.0])
    >>> DoG(reps_rel=0.1).apply([keras.ops.array([0.0, 8.0])], [w])
    >>> w.numpy().round(4)  # by 0.1 (1 + 5)
    array([3. , 3.4], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        reps_rel: float = 1e-6,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = None,
        layerwise: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, epsilon, weight_decay, **options)
        self.reps_rel = validation.positive_float("reps_rel", reps_rel)
        self.layerwise = layerwise

    def make_state(self, variable: Variable) -> dict[str, Any]:
        numbers = ("r", "s") if self.layerwise else ()
        return {**super().make_state(variable), **{name: self.add_state(variable, name, shape=()) for name in numbers}}

    def make_scalars(self) -> dict[str, Any]:
        return {} if self.layerwise else {name: self.add_scalar(name) for name in ("r", "s")}

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        self.add_decay(contexts)
        if self.layerwise:
            return None
        weights, gradients = (sum(each) for each in zip(*map(self._squares, contexts), strict=True))
        return self._size(contexts[0].scalars, weights, self.squared_distance(), gradients)

    @staticmethod
    def _squares(ctx: UpdateContext) -> tuple[Tensor, Tensor]:
        """Squared norms of a variable, if it takes part, and of its gradient."""
        weights = square(ctx.value)
        return weights if ctx.takes_part is None else ops.where(ctx.takes_part, weights, 0.0), square(ctx.gradient)

    def step_size(self, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        if not self.layerwise:
            return super().step_size(state, ctx)
        return ctx.cast(self._size(state, square(ctx.value), square(state.travelled), square(ctx.gradient)))

    def _size(self, numbers: OptimizerState, weights: Tensor, distance: Tensor, gradients: Tensor) -> Tensor:
        """r / sqrt(s), from squared norms."""
        first = numbers.s == 0
        start = self.reps_rel * (1 + ops.sqrt(weights))
        numbers.r = ops.where(first, start, ops.maximum(numbers.r, ops.sqrt(distance)))
        numbers.s = ops.where(first, self.epsilon, numbers.s) + gradients
        return numbers.r * ops.rsqrt(numbers.s)

"""SM3: Adagrad with a bound for each row and each column in place of a sum for each entry."""

from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "sm3",
    title="Adagrad with one number for each row and column",
    paper="arXiv:1901.11150",
    code=("google-research/google-research", "kozistr/pytorch_optimizer"),
    checked="trajectory",
    against="pytorch_optimizer",
    deviations="the authors' code (SM3-II) was read",
    kind="optimizer",
)
class SM3(Optimizer):
    """Adagrad whose sum of squares is bounded by the least of one number for each index along each axis.

        v = min(a_1, a_2, ...) + g^2         a_i has one number for each index along axis i
        a_i = max of v over all axes but i
        m = momentum m + (1 - momentum) g / sqrt(v + epsilon)
        w = (1 - lr weight_decay) w - lr m

    It is SM3-II of the paper. The axes are those of the variable: rows and columns of a matrix, all four of the kernel of a
    convolution, the words and features of an embedding. A vector has a sum for each entry, as in Adagrad, and so has a
    scalar. v never falls, so steps become shorter. A warmup helps. State: one number in float32 for each index along each
    axis, and one for each parameter with momentum.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `0.1`.
        momentum: Decay rate of the mean of normalized gradients, at least 0 and below 1. Defaults to `0.9`.
        epsilon: Added under the root, above 0. Defaults to `1e-30`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Anil et al., Memory-Efficient Adaptive Optimization, arXiv:1901.11150. Trajectories agree with pytorch_optimizer; the
        authors' code, google-research/google-research, was read.

    Example:

    >>> w = keras.Variable([[1.0, 1.0], [1.0, 1.0]])
    >>> optimizer = SM3(learning_rate=0.1, momentum=0.0)
    >>> optimizer.apply([keras.ops.array([[3.0, -1.0], [4.0, 0.0]])], [w])
    >>> w.numpy()
    array([[0.9, 1.1],
           [0.9, 1. ]], dtype=float32)
    """

    state_settings = ("momentum",)

    def __init__(
        self,
        learning_rate: LearningRate = 0.1,
        momentum: float = 0.9,
        epsilon: float = 1e-30,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.momentum = validation.beta("momentum", momentum)
        self.epsilon = validation.positive_float("epsilon", epsilon)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        shapes = [[size] for size in variable.shape] or [[]]
        bounds = {f"bound_{axis}": self.add_state(variable, f"bound_{axis}", shape) for axis, shape in enumerate(shapes)}
        return {"m": self.add_state(variable, "m"), **bounds} if self.momentum else bounds

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        u = g * ops.rsqrt(self._bounded_sum(g, state) + self.epsilon)
        if "m" in state:
            u = state.m = average(self.momentum, state.m, u)
        return w - ctx.learning_rate * (u + ctx.weight_decay * w)

    def _bounded_sum(self, g: Tensor, state: OptimizerState) -> Tensor:
        axes = range(len(g.shape))
        v = state.bound_0
        if len(g.shape) > 1:
            spread = [ops.expand_dims(getattr(state, f"bound_{i}"), [j for j in axes if j != i]) for i in axes]
            v = spread[0]
            for bound in spread[1:]:
                v = ops.minimum(v, bound)
        v = v + ops.square(g)
        for i in axes or (0,):
            setattr(state, f"bound_{i}", ops.max(v, axis=[j for j in axes if j != i]) if len(g.shape) > 1 else v)
        return v

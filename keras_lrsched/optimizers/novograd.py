"""NovoGrad: gradients normalized by variable, with one second moment for each."""

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
    "novograd",
    title="momentum of gradients that are normalized by variable",
    paper="arXiv:1905.11286",
    code=("google-deepmind/optax", "kozistr/pytorch_optimizer", "tensorflow/addons"),
    checked="trajectory",
    against="optax and pytorch_optimizer",
    deviations="the authors' own code was not run; TensorFlow Addons was read; AMSGrad is not offered",
    kind="optimizer",
)
class NovoGrad(Optimizer):
    """Momentum of gradients that are divided by a moving average of their norms, one number for each variable.

        v = beta_2 v + (1 - beta_2) ||g||^2          v is ||g||^2 at first
        m = beta_1 m + g / (sqrt(v) + epsilon) + weight_decay w
        w = w - lr m

    With `grad_averaging`, what is added to m after the first time is multiplied by 1 - beta_1. The weight decay is inside
    the momentum. A scalar moves by its sign. The norm is over a whole variable, whatever its shape. State: one float32
    number for each parameter and one for each variable.

    - optax and the paper: the defaults. pytorch_optimizer: `beta_1=0.95, beta_2=0.98, epsilon=1e-8`.
    - TensorFlow Addons: `beta_2=0.999, epsilon=1e-7`.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of squared norms, at least 0 and below 1. Defaults to `0.25`.
        epsilon: Added to the root, above 0. Defaults to `1e-6`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        grad_averaging: Whether the momentum is a mean in place of a sum. Defaults to `False`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Ginsburg et al., Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep Networks,
        arXiv:1905.11286. Trajectories agree with optax and pytorch_optimizer; the authors' own code was not run.

    Example:

    >>> w = keras.Variable([1.0, 1.0])
    >>> NovoGrad(learning_rate=0.1).apply([keras.ops.array([3.0, -4.0])], [w])
    >>> w.numpy().round(4)  # ||g|| is 5
    array([0.94, 1.08], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.25,
        epsilon: float = 1e-6,
        weight_decay: WeightDecay = None,
        grad_averaging: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.positive_float("epsilon", epsilon)
        self.grad_averaging = grad_averaging

    def make_state(self, variable: Variable) -> dict[str, Any]:
        return {"m": self.add_state(variable, "m"), "v": self.add_state(variable, "v", shape=())}

    def couples_weight_decay(self) -> bool:
        return True

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        square, first = ops.sum(ops.square(g)), state.v == 0  # or all gradients were zero so far
        state.v = ops.where(first, square, average(self.beta_2, state.v, square))
        u = g / (ops.sqrt(state.v) + self.epsilon) + ctx.weight_decay * w
        share = ops.where(first, 1.0, 1 - self.beta_1) if self.grad_averaging else 1.0
        state.m = self.beta_1 * state.m + ops.cast(share, u.dtype) * u
        return w - ctx.learning_rate * state.m

"""LARS: SGD with a learning rate for each layer."""

from collections.abc import Sequence
from typing import Unpack

from keras import ops

from keras_lrsched._core import path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import FindRoles, LearningRate, Patterns, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._numerics import norm
from keras_lrsched.optimizers._options import FusedOptions
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.fused_optimizer import FusedOptimizer


@register(
    "lars",
    title="layerwise adaptive SGD for large batches",
    paper="arXiv:1708.03888",
    code=("huggingface/pytorch-image-models",),
    checked="trajectory",
    against="timm",
    deviations=(
        "the authors' Caffe code was not run; optax has ||g + weight_decay w|| as its denominator, which "
        "differs in the 6th digit"
    ),
    kind="optimizer",
)
class Lars(FusedOptimizer):
    """Layerwise adaptive rate scaling: SGD with momentum, each variable's step in proportion to its norm.

        q = trust_coefficient ||w|| / (||g|| + weight_decay ||w|| + epsilon)      1 where a norm is 0
        d = q (g + weight_decay w)
        m = momentum m + d
        w = w - lr m

    The learning rate is outside of the momentum, as in timm. With `learning_rate_in_momentum`, as in the paper:
    m = momentum m + lr d; w = w - m. The two are the same as long as the learning rate is constant. Biases and scales of
    normalization are usually neither decayed nor adapted: exclude them, and warm up. State: one float32 number for each
    parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1.0`.
        momentum: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.9`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        trust_coefficient: Scale of the ratio. Defaults to `0.001`.
        epsilon: Added to the denominator. Defaults to `1e-8`.
        nesterov: Whether to step by d + momentum m instead of m. Defaults to `False`.
        trust_clip: Whether to limit q lr to lr (LARC). Defaults to `False`.
        learning_rate_in_momentum: Whether m sums lr d instead of d. Defaults to `False`.
        exclude_from_layer_adaptation: Regular expressions; a variable has the ratio 1 if one is found in its path. Defaults
            to `None`, for none.
        always_adapt: Whether a variable without weight decay is adapted; timm has `False`. Defaults to `True`.
        **options: See `keras_lrsched.optimizers.Optimizer`, and `fused`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        You et al., Large Batch Training of Convolutional Networks, arXiv:1708.03888. Trajectories agree with timm; the
        authors' Caffe code was not run. optax has ||g + weight_decay w|| as its denominator, which differs in the 6th digit.

    Example:

    >>> w = keras.Variable([3.0, 4.0])
    >>> Lars(learning_rate=100.0, epsilon=0.0).apply([keras.ops.array([0.0, 10.0])], [w])
    >>> w.numpy()  # by 100 * 0.001 * 5
    array([3. , 3.5], dtype=float32)
    """

    state_names = ("momentum",)
    kernel = "lars"

    def __init__(
        self,
        learning_rate: LearningRate = 1.0,
        momentum: float = 0.9,
        weight_decay: WeightDecay = None,
        trust_coefficient: float = 0.001,
        epsilon: float = 1e-8,
        nesterov: bool = False,
        trust_clip: bool = False,
        learning_rate_in_momentum: bool = False,
        exclude_from_layer_adaptation: Patterns = None,
        always_adapt: bool = True,
        **options: Unpack[FusedOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.momentum = validation.beta("momentum", momentum)
        self.trust_coefficient = validation.positive_float("trust_coefficient", trust_coefficient)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.nesterov = nesterov
        self.trust_clip = trust_clip
        self.learning_rate_in_momentum = learning_rate_in_momentum
        self.exclude_from_layer_adaptation = path_rules.patterns(
            "exclude_from_layer_adaptation", exclude_from_layer_adaptation
        )
        self.always_adapt = always_adapt

    def resolve_paths(self, variables: Sequence[Variable], find_roles: FindRoles) -> None:
        super().resolve_paths(variables, find_roles)
        self._adapted = path_rules.included(
            "exclude_from_layer_adaptation", self.exclude_from_layer_adaptation, variables, find_roles
        )

    def couples_weight_decay(self) -> bool:
        return True

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        d = self._trust_ratio(w, g, ctx) * (g + ctx.weight_decay * w)
        inside, outside = (ctx.learning_rate, 1.0) if self.learning_rate_in_momentum else (1.0, ctx.learning_rate)
        state.momentum = self.momentum * state.momentum + inside * d
        move = inside * d + self.momentum * state.momentum if self.nesterov else state.momentum
        return w - outside * move

    def _trust_ratio(self, w: Tensor, g: Tensor, ctx: UpdateContext) -> Tensor:
        if not self.adapts(ctx.index, ctx.is_decayed):
            return 1.0
        w_norm, g_norm = norm(w), norm(g)
        both = (w_norm > 0) & (g_norm > 0)
        denominator = g_norm + ctx.weight_decay * w_norm + self.epsilon
        ratio = ops.where(both, self.trust_coefficient * w_norm / ops.where(both, denominator, 1.0), 1.0)
        if self.trust_clip:
            ratio = ops.minimum(ratio / ctx.learning_rate, 1.0)
        return ratio

    def adapts(self, index: int, is_decayed: bool) -> bool:
        return self._adapted[index] and (is_decayed or self.always_adapt)

    def kernel_parameters(self, t: Tensor) -> dict[str, Tensor]:
        names = ("momentum", "nesterov", "trust_coefficient", "epsilon", "trust_clip", "learning_rate_in_momentum")
        return {name: getattr(self, name) for name in names}

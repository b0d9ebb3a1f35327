"""LAMB: Adam with a step for each layer that is proportional to the norm of its weights."""

from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import FindRoles, LearningRate, Patterns, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._numerics import average, bias_correction, global_norm, norm
from keras_lrsched.optimizers._options import OwnFusedOptions
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.fused_optimizer import FusedOptimizer


@register(
    "lamb",
    title="layerwise adaptive Adam for large batches",
    paper="arXiv:1904.00962",
    code=("google-research/albert", "tensorflow/addons", "google-deepmind/optax", "huggingface/pytorch-image-models"),
    checked="trajectory",
    against="TensorFlow Addons, optax and timm",
    deviations=(
        "apex and the authors' code were read, not run; `grad_averaging=False` and "
        '`decay_placement="gradient"` have no reference numbers'
    ),
    kind="optimizer",
    options={"epsilon": 1e-6},
)
class Lamb(FusedOptimizer):
    """Layerwise adaptive moments, for large batches: each variable moves by a fixed share of its own norm.

        m = beta_1 m + (1 - beta_1) g;  v = beta_2 v + (1 - beta_2) g^2
        u = (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon) + weight_decay w
        w = w - lr (||w|| / ||u||) u          with the ratio 1 where a norm is 0

    The arguments of `keras.optimizers.Lamb` in its order, with its defaults; the weight decay lies inside the trust ratio,
    as in the paper, where Keras' Lamb has it outside. Each variable has one ratio, so a fused QKV kernel behaves differently
    from three. State: two float32 numbers for each parameter.

    - The authors' code, TensorFlow Addons and optax: `epsilon=1e-6`; the authors' code with `bias_correction=False`.
    - TensorFlow Addons: give what `exclude_from_weight_decay` lists as `exclude_from_layer_adaptation` too.
    - timm: `epsilon=1e-6, weight_decay=0.01, max_grad_norm=1.0, always_adapt=False`; its `decoupled_decay=True` is
      `decay_placement="outside"`.
    - NVIDIA apex `FusedLAMB`: `epsilon=1e-6, weight_decay=0.01, max_grad_norm=1.0, always_adapt=False`; its
      `use_nvlamb=True` is `always_adapt=True`, its `adam_w_mode=False` is `decay_placement="gradient"`.
    - `keras.optimizers.Lamb`: `decay_placement="outside"`.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.999`.
        epsilon: Added to the root. Defaults to `1e-7`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
            gradient_accumulation_steps, name: As in Keras.
        decay_placement: `"inside"` the trust ratio; `"outside"`, where w is multiplied by 1 - lr weight_decay before the
            step; or in the `"gradient"`, as L2 regularization. Defaults to `"inside"`.
        exclude_from_layer_adaptation: Regular expressions; a variable has the ratio 1 if one is found in its path. Defaults
            to `None`, for none.
        always_adapt: Whether a variable without weight decay is adapted. Defaults to `True`.
        bias_correction: Whether to divide m and v by 1 - beta^t. Defaults to `True`.
        trust_clip: Whether to limit the ratio to 1 (LAMBC). Defaults to `False`.
        max_grad_norm: All gradients are scaled down together such that their norm is at most this. Defaults to `None`, for
            no limit.
        grad_averaging: If `False`, m = beta_1 m + g. Defaults to `True`.
        **options: See `keras_lrsched.optimizers.Optimizer`, and `fused`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes, arXiv:1904.00962. Trajectories
        agree with TensorFlow Addons, optax and timm. apex and the authors' code (google-research/albert) were read, not run;
        `grad_averaging=False` and `decay_placement="gradient"` have no reference numbers.

    Example:

    >>> w = keras.Variable([3.0, 4.0])
    >>> Lamb(learning_rate=0.1).apply([keras.ops.array([1.0, 1.0])], [w])
    >>> w.numpy().round(4)  # by 0.1 * 5, in the direction (1, 1)
    array([2.6464, 3.6464], dtype=float32)
    """

    state_names = ("m", "v")
    kernel = "lamb"

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: WeightDecay = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        decay_placement: str = "inside",
        exclude_from_layer_adaptation: Patterns = None,
        always_adapt: bool = True,
        bias_correction: bool = True,
        trust_clip: bool = False,
        max_grad_norm: float | None = None,
        grad_averaging: bool = True,
        **options: Unpack[OwnFusedOptions],
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
            **options,
        )
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.decay_placement = validation.one_of("decay_placement", decay_placement, ("inside", "outside", "gradient"))
        self.exclude_from_layer_adaptation = path_rules.patterns(
            "exclude_from_layer_adaptation", exclude_from_layer_adaptation
        )
        self.always_adapt = always_adapt
        self.bias_correction = bias_correction
        self.trust_clip = trust_clip
        self.max_grad_norm = None if max_grad_norm is None else validation.positive_float("max_grad_norm", max_grad_norm)
        self.grad_averaging = grad_averaging

    def resolve_paths(self, variables: Sequence[Variable], find_roles: FindRoles) -> None:
        super().resolve_paths(variables, find_roles)
        self._adapted = path_rules.included(
            "exclude_from_layer_adaptation", self.exclude_from_layer_adaptation, variables, find_roles
        )

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """Return the factor of all gradients."""
        return self.kernel_scale([ctx.gradient for ctx in contexts])

    def couples_weight_decay(self) -> bool:
        return True

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        g = g * ctx.shared
        if self.decay_placement == "gradient":
            g = g + ctx.weight_decay * w
        state.m = average(self.beta_1, state.m, g) if self.grad_averaging else self.beta_1 * state.m + g
        state.v = average(self.beta_2, state.v, ops.square(g))
        u = self._direction(state.m, state.v, ctx.t)
        if self.decay_placement == "inside":
            u = u + ctx.weight_decay * w
        elif self.decay_placement == "outside":
            w = w - ctx.learning_rate * ctx.weight_decay * w
        return w - ctx.learning_rate * self._trust_ratio(w, u, ctx) * u

    def _direction(self, m: Tensor, v: Tensor, t: Tensor) -> Tensor:
        if self.bias_correction:
            m, v = m / bias_correction(self.beta_1, t), v / bias_correction(self.beta_2, t)
        return m / (ops.sqrt(v) + self.epsilon)

    def _trust_ratio(self, w: Tensor, u: Tensor, ctx: UpdateContext) -> Tensor:
        if not self.adapts(ctx.index, ctx.is_decayed):
            return 1.0
        w_norm, u_norm = norm(w), norm(u)
        ratio = ops.where((w_norm > 0) & (u_norm > 0), w_norm / ops.where(u_norm > 0, u_norm, 1.0), 1.0)
        return ops.minimum(ratio, 1.0) if self.trust_clip else ratio

    def adapts(self, index: int, is_decayed: bool) -> bool:
        return self._adapted[index] and (is_decayed or self.always_adapt)

    def kernel_scale(self, gradients: Sequence[Tensor]) -> Tensor:
        if self.max_grad_norm is None:
            return 1.0
        return 1.0 / ops.maximum(1.0, global_norm([ops.cast(g, "float32") for g in gradients]) / self.max_grad_norm)

    def kernel_parameters(self, t: Tensor) -> dict[str, Tensor]:
        return {
            "beta_1": self.beta_1,
            "gradient_weight": 1 - self.beta_1 if self.grad_averaging else 1.0,
            "beta_2": self.beta_2,
            "one_minus_beta_2": 1 - self.beta_2,
            "epsilon": self.epsilon,
            "correction_1": 1 / bias_correction(self.beta_1, t) if self.bias_correction else 1.0,
            "correction_2": 1 / bias_correction(self.beta_2, t) if self.bias_correction else 1.0,
            "decay_placement": ("inside", "outside", "gradient").index(self.decay_placement),
            "trust_clip": self.trust_clip,
        }

"""Muon: momentum, orthogonalized."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

from keras import ops

from keras_lrsched._core import keras_private, path_rules, registry, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.roles import Role
from keras_lrsched._core.types import FindRoles, LearningRate, Patterns, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._arguments import checked_rate
from keras_lrsched.optimizers._matrices import HIDDEN, MatrixView, hidden_matrix, is_guess
from keras_lrsched.optimizers._numerics import average, bias_correction, matrix_norm
from keras_lrsched.optimizers._options import Options, OwnOptions
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


class MatrixOptions(Options, total=False):
    """Arguments of `Muon` that a method derived from it may hand on."""

    adam_beta_1: float
    exclude_layers: Patterns
    exclude_embeddings: bool
    muon_a: float
    muon_b: float
    muon_c: float
    momentum: float
    ns_steps: int
    nesterov: bool
    rms_rate: float | None
    ns_dtype: str
    input_axes: Mapping[str, int] | None


class MuonOptions(MatrixOptions, total=False):
    """All arguments of `Muon` but the learning rate."""

    adam_beta_2: float
    adam_weight_decay: WeightDecay
    epsilon: float
    weight_decay: WeightDecay
    adam_lr_ratio: float
    adjust_lr: str


COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the Newton-Schulz iteration."""


@register(
    "muon",
    title="orthogonalized momentum for matrices",
    paper="https://kellerjordan.github.io/posts/muon",
    code=("KellerJordan/Muon", "pytorch/pytorch", "keras-team/keras"),
    checked="trajectory",
    against="the authors' code without its bfloat16, PyTorch and Keras",
    deviations="Moonlight was read, not run",
    kind="optimizer",
    options={
        "learning_rate": 0.02,
        "weight_decay": None,
        "adjust_lr": "original",
        "adam_lr_ratio": 0.015,
        "adam_beta_2": 0.95,
        "adam_weight_decay": None,
        "epsilon": 1e-10,
    },
)
class Muon(Optimizer):
    """Momentum with all its singular values set to about 1, for matrices of hidden layers; AdamW for all else.

        m = momentum m + (1 - momentum) g
        u = momentum m + (1 - momentum) g         if nesterov, else m
        w = (1 - lr weight_decay) w - lr q orthogonalized(u)
        q = rms_rate sqrt(max(outputs, inputs)) to match the length of AdamW's steps, or sqrt(max(1, outputs / inputs))

    A variable is a matrix (inputs, outputs) by its role in its layer, see `Role`: axes that the layer sums over are inputs.
    So in the kernel of a convolution all axes but the last are inputs; of a transposed one, (height, width, outputs,
    inputs), the last; in an attention layer those of the equation of the `EinsumDense`, such as the features in
    (features, heads, size), or Gemma's (heads, features, size). The heads together are one matrix, as the authors' code,
    Moonlight and PyTorch have them, where projections have two axes. Several matrices in one variable, such as the experts
    of a mixture, are orthogonalized each by itself. Factors of LoRA are matrices. `input_axes` sets it for single variables,
    and brings them under Muon whatever they are.

    AdamW, with `adam_lr_ratio` lr and `adam_weight_decay`, updates all else: biases, normalizations, embeddings (also tables
    of positions, class tokens, the output matrix of a `ReversibleEmbedding`), kernels of depthwise convolutions, which are
    vectors for each channel, slopes and gains; and what `exclude_layers` lists. The last layer should be there: it is found
    where `roles`, the table from `roles(model)`, is given, since no variable shows it. What has more than two axes, and a
    layer that is not known, is taken as (..., outputs), with a warning.

    The arguments of `keras.optimizers.Muon` in its order, with its defaults, and its values in matrices. It leaves variables
    with more than two axes to AdamW, and those with `embedding` anywhere in their paths; AdamW differs from Keras' as
    `AdamW` does. `keras.optimizers.get("Muon")` is Keras' own. Others:

    - The authors' code: `Muon.original()`, with `ns_dtype="bfloat16"`. For convolutions it takes q from the last two axes of
      (out, in, height, width), so 1; here it is that of the matrix. A depthwise kernel is (channels, height x width) there.
    - `torch.optim.Muon`: `ns_dtype="bfloat16", weight_decay=0.1`, and `adjust_lr` as its `adjust_lr_fn`.
    - Moonlight: `weight_decay=0.1, adam_weight_decay=0.1, adam_beta_2=0.95, epsilon=1e-8`. Its momentum is a sum, which
      orthogonalization makes the same.

    optax mixes m and g in another way in the first updates, which is not offered. State: one float32 number for each
    parameter under Muon, two under AdamW.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`.
        adam_beta_1: As in AdamW. Defaults to `0.9`.
        adam_beta_2: As in AdamW. Defaults to `0.999`.
        adam_weight_decay: The weight decay under AdamW: a number, a `LearningRateSchedule`, or `None`. Defaults to `0.004`.
        epsilon: As in AdamW. Defaults to `1e-7`.
        weight_decay: The weight decay under Muon: a number, a `LearningRateSchedule`, or `None`. Defaults to `0.004`.
        clipnorm, clipvalue, global_clipnorm, use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor,
            gradient_accumulation_steps, name: As in Keras.
        exclude_layers: Regular expressions; AdamW updates a variable if one is found in its path. Defaults to `None`, for
            none.
        exclude_embeddings: Whether AdamW updates embeddings. Defaults to `True`.
        muon_a, muon_b, muon_c: Coefficients of the Newton-Schulz iteration. Default to `3.4445`, `-4.775` and `2.0315`.
        adam_lr_ratio: The learning rate of AdamW, divided by that of Muon. Defaults to `1`.
        momentum: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.95`.
        ns_steps: The number of Newton-Schulz iterations. Defaults to `5`.
        nesterov: Whether to look one gradient ahead. Defaults to `True`.
        rms_rate: The root mean square of an update at a learning rate of 1; `None` for q = 1. Defaults to `0.2`.
        ns_dtype: The precision of these. `"bfloat16"` is faster on GPUs and TPUs, and right to 2 or 3 digits. Defaults to
            `"float32"`.
        adjust_lr: The factor q: `"match_rms_adamw"`, or `"original"`, which has no use for `rms_rate`. Defaults to
            `"match_rms_adamw"`.
        input_axes: A dictionary from regular expressions to how many of the first axes of a kernel are inputs. Defaults to
            `None`, as above.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if a variable has no more axes than in
            `input_axes`.

    Reference:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024,
        https://kellerjordan.github.io/posts/muon. Trajectories agree with the authors' code, KellerJordan/Muon, exactly if
        its bfloat16 is removed, and with PyTorch and Keras. Moonlight was read, not run.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((3, 3)))
    >>> Muon.original(learning_rate=1.0).apply([keras.ops.diag([4.0, 0.1, 2.0])], [w])
    >>> (-w.numpy().diagonal()).round(1)
    array([0.7, 0.8, 1.1], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.999,
        adam_weight_decay: WeightDecay = 0.004,
        epsilon: float = 1e-7,
        weight_decay: WeightDecay = 0.004,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        exclude_layers: Patterns = None,
        exclude_embeddings: bool = True,
        muon_a: float = 3.4445,
        muon_b: float = -4.775,
        muon_c: float = 2.0315,
        adam_lr_ratio: float = 1,
        momentum: float = 0.95,
        ns_steps: int = 5,
        nesterov: bool = True,
        rms_rate: float | None = 0.2,
        ns_dtype: str = "float32",
        adjust_lr: str = "match_rms_adamw",
        input_axes: Mapping[str, int] | None = None,
        **options: Unpack[OwnOptions],
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
        self.adam_beta_1 = validation.beta("adam_beta_1", adam_beta_1)
        self.adam_beta_2 = validation.beta("adam_beta_2", adam_beta_2)
        self.adam_weight_decay = checked_rate("adam_weight_decay", adam_weight_decay)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.exclude_layers = path_rules.patterns("exclude_layers", exclude_layers)
        self.exclude_embeddings = exclude_embeddings
        self.muon_a = validation.finite_float("muon_a", muon_a)
        self.muon_b = validation.finite_float("muon_b", muon_b)
        self.muon_c = validation.finite_float("muon_c", muon_c)
        self.adam_lr_ratio = validation.positive_float("adam_lr_ratio", adam_lr_ratio)
        self.momentum = validation.beta("momentum", momentum)
        self.ns_steps = validation.positive_int("ns_steps", ns_steps)
        self.nesterov = nesterov
        self.rms_rate = None if rms_rate is None else validation.positive_float("rms_rate", rms_rate)
        self.ns_dtype = validation.one_of("ns_dtype", ns_dtype, ("float32", "bfloat16"))
        self.adjust_lr = validation.one_of("adjust_lr", adjust_lr, ("original", "match_rms_adamw"))
        self.input_axes = path_rules.numbers("input_axes", input_axes, validation.positive_int)

    @classmethod
    def original(cls, learning_rate: LearningRate = 0.02, **options: Unpack[MuonOptions]) -> Self:
        """Return the optimizer with the defaults of the authors' code: no decay, and AdamW with 3e-4 beside 0.02."""
        published = registry.find("optimizers", "muon").options
        return cls(**{**published, "learning_rate": learning_rate, **options})

    def resolve_paths(self, variables: Sequence[Variable], find_roles: FindRoles) -> None:
        super().resolve_paths(variables, find_roles)
        taken = path_rules.included("exclude_layers", self.exclude_layers, variables, find_roles)
        rules = path_rules.first_match("input_axes", self.input_axes, variables, find_roles)
        axes = [self.input_axes.get(rule) if is_taken else None for rule, is_taken in zip(rules, taken, strict=True)]
        kinds = HIDDEN if self.exclude_embeddings else (*HIDDEN, "embedding")
        self._views = [
            hidden_matrix(role, n, kinds) if is_taken else None
            for role, n, is_taken in zip(find_roles(), axes, taken, strict=True)
        ]
        self._warn_of_guesses(find_roles(), axes)

    def _warn_of_guesses(self, roles: Sequence[Role], axes: Any) -> None:
        places = zip(roles, axes, self._views, strict=True)
        guessed = [f"{role.path} of shape {role.shape}" for role, n, view in places if view and n is None and is_guess(role)]
        if guessed:
            warnings.warn(
                "All axes but the last are taken for inputs, as no layer is known that has it, or none of its class: "
                f"{', '.join(guessed)}. Set `input_axes`, or give `roles`, a corrected table from `roles(model)`.",
                stacklevel=2,
            )

    def matrix_shape(self, variable: Variable) -> tuple[int, int] | None:
        """The numbers of inputs and outputs of a variable, or of each of its matrices; `None` if AdamW updates it."""
        view = self._views[keras_private.variable_index(self, variable)]
        return None if view is None else (view.inputs, view.outputs)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        names = ("m", "v") if self.matrix_shape(variable) is None else ("momentum",)
        return {name: self.add_state(variable, name) for name in names}

    def _make_context(
        self,
        variable: Variable,
        gradient: Tensor,
        scalars: OptimizerState,
        learning_rate: Any,
        weight_decay: Any,
        iterations: Tensor,
    ) -> UpdateContext:
        if self.matrix_shape(variable) is None:
            weight_decay = self._current_adam_decay()
        return super()._make_context(variable, gradient, scalars, learning_rate, weight_decay, iterations)

    def _current_adam_decay(self) -> Any:
        return self._current_decay(self.adam_weight_decay)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        view = self._views[ctx.index]
        if view is None:
            rate, direction = self.adam_lr_ratio * ctx.learning_rate, self._adam(g, state, ctx.t)
        else:
            rate, direction = ctx.learning_rate, view.back(self.matrix_step(g, state, view))
        return w - rate * (direction + ctx.weight_decay * w)

    def matrix_step(self, g: Tensor, state: OptimizerState, view: MatrixView) -> Tensor:
        """The step of a matrix (inputs, outputs), or of each of several, at a learning rate of 1."""
        return self._scale(view) * self._orthogonal(g, state, view)

    def _orthogonal(self, g: Tensor, state: OptimizerState, view: MatrixView) -> Tensor:
        m = state.momentum = average(self.momentum, state.momentum, g)
        u = average(self.momentum, m, g) if self.nesterov else m
        coefficients = self.muon_a, self.muon_b, self.muon_c
        return orthogonalized(view.matrix(u), self.ns_steps, self.ns_dtype, coefficients)

    def _scale(self, view: MatrixView) -> float:
        if self.adjust_lr == "original":
            return math.sqrt(max(1, view.outputs / view.inputs))
        return 1.0 if self.rms_rate is None else self.rms_rate * math.sqrt(max(view.inputs, view.outputs))

    def _adam(self, g: Tensor, state: OptimizerState, t: Tensor) -> Tensor:
        state.m = average(self.adam_beta_1, state.m, g)
        state.v = average(self.adam_beta_2, state.v, ops.square(g))
        v = state.v / bias_correction(self.adam_beta_2, t)
        return state.m / bias_correction(self.adam_beta_1, t) / (ops.sqrt(v) + self.epsilon)


def orthogonalized(x: Tensor, steps: int, dtype: str, coefficients: tuple[float, float, float] = COEFFICIENTS) -> Tensor:
    """The singular vectors of a matrix, with singular values that are not far from 1.

    X = G / (||G|| + 1e-7), then `steps` times: A = X X^T; X = a X + (b A + c A A) X. The coefficients give
    up convergence for speed: five steps bring singular values from 0.005 to 1 of ||G|| into 0.68 to 1.16, more steps no
    closer.

    Args:
        x: The matrix, or several of one shape, (..., rows, columns).
        steps: The number of iterations.
        dtype: In what to multiply matrices: `"bfloat16"` has 2 to 3 digits.
        coefficients: a, b and c.
    """
    a, b, c = coefficients

    def product(one: Tensor, other: Tensor) -> Tensor:
        return ops.cast(ops.matmul(ops.cast(one, dtype), ops.cast(other, dtype)), x.dtype)

    tall = x.shape[-2] > x.shape[-1]
    result = (_transposed(x) if tall else x) / (matrix_norm(x) + 1e-7)
    for _ in range(steps):
        gram = product(result, _transposed(result))
        result = a * result + product(b * gram + c * product(gram, gram), result)
    return _transposed(result) if tall else result


def _transposed(x: Tensor) -> Tensor:
    return ops.transpose(x) if len(x.shape) == 2 else ops.swapaxes(x, -2, -1)

"""Scion: steps of a fixed length in a norm for each kind of layer."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from keras_lrsched._core import path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.roles import Role
from keras_lrsched._core.types import FindRoles, LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers import _norm_balls
from keras_lrsched.optimizers._matrices import HIDDEN, MatrixView, hidden_matrix, warn_of_guesses
from keras_lrsched.optimizers._newton_schulz import NEWTON_SCHULZ, QUINTIC, Table, orthogonalized_all
from keras_lrsched.optimizers._norm_balls import NormBall
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@register(
    "scion",
    title="steps of a fixed length in a norm for each kind of layer",
    paper="arXiv:2502.07529",
    code=("LIONS-EPFL/scion",),
    checked="trajectory",
    against="the authors' code without its bfloat16",
    deviations="the norms by role are those of the authors' examples; ScionLight is not offered",
    kind="optimizer",
    options={
        "learning_rate": 0.000244140625,
        "momentum": 0.1,
        "scale": 50.0,
    },
)
class Scion(Optimizer):
    """Momentum turned into a step of length 1 in a norm that suits the layer, for all variables.

        B = (1 - momentum) B + momentum g
        w = (1 - lr) w                                  if constrained
        w = w - lr (scale D(B) + weight_decay w)

    D of a matrix (inputs, outputs), with its singular vectors orthogonalized(B) by five Newton-Schulz iterations as in
    `Muon`:

        "spectral"       sqrt(outputs / inputs) orthogonalized(B)
        "spectral_conv"  sqrt(outputs / inputs) / taps orthogonalized(B), inputs and outputs without the taps, B with them
        "sign"           sign(B) / inputs
        "column"         B / RMS over outputs, of each input
        "row"            B / (sqrt(inputs) L2 norm over inputs), of each output
        "bias_rms"       B / RMS over the whole variable

    Norms come from the roles of variables in their layers, see `Role`: `"sign"` for output layers, as far as the graph
    of the model or the table `roles` shows them, `"column"` for embeddings, each row of which has an RMS of 1,
    `"spectral_conv"` for kernels of convolutions, also depthwise ones, each channel by itself, `"spectral"` for other
    matrices, such as the projections of attention with all heads together, each expert of a mixture, and factors of
    LoRA, `"bias_rms"` for vectors, scalars and all else. `norms` sets others. A scalar moves by its sign. What has more
    than two axes, and a layer that is not known, is taken as (..., outputs), with a warning.

    A constrained network stays in the ball of radius `scale` in these norms. The learning rate is then at most 1, and
    initial weights should lie in the ball: orthogonal ones times the factor of D for matrices, rows of an RMS of 1 for
    embeddings, zeros or random signs / inputs for the output layer, zeros for biases.

    State: one float32 number for each parameter.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-3`. The
            authors' examples have 2^-12, which is what the name `"scion"` stands for, with the next two.
        momentum: The weight of the new gradient, above 0 and at most 1, for no momentum. Defaults to `1`; 0.1 in the
            examples.
        scale: The radius of all variables, above 0. Defaults to `1`; 50 in the examples.
        scales: A dictionary from regular expressions, or words such as `"role:head"`, to the radius of single variables.
            Defaults to `None`, for none; 3000 for the output layer in the examples.
        constrained: Whether weights stay in the ball. Defaults to `True`.
        norms: A dictionary from regular expressions or words to norms: a name, or `{"norm": name, "normalized": bool}`,
            where `False` leaves `inputs` out of D (that is the default of `"column"`, which divides by `inputs` if it
            is `True`), and for spectral ones `"max": True` makes the factor at least 1. Defaults to `None`, as above.
        weight_decay: Beside the ball: a number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if a norm of matrices is for what
            is none, or a rule finds nothing.

    Reference:
        Pethick et al., Training Deep Learning Models with Norm-Constrained LMOs, arXiv:2502.07529. Trajectories agree
        with the authors' code, LIONS-EPFL/scion, exactly if its bfloat16 is removed.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((4, 2)))
    >>> optimizer = Scion(learning_rate=1.0, norms={"": "sign"})
    >>> optimizer.apply([keras.ops.array([[3.0, -0.1]] * 4)], [w])
    >>> w.numpy()[0]
    array([-0.25,  0.25], dtype=float32)
    """

    state_names = ("momentum",)

    def __init__(
        self,
        learning_rate: LearningRate = 1e-3,
        momentum: float = 1.0,
        scale: float = 1.0,
        scales: Mapping[str, float] | None = None,
        constrained: bool = True,
        norms: Mapping[str, Any] | None = None,
        weight_decay: WeightDecay = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.momentum = validation.positive_fraction("momentum", momentum)
        self.scale = validation.positive_float("scale", scale)
        self.scales = path_rules.numbers("scales", scales, validation.positive_float)
        self.constrained = constrained
        self.norms = path_rules.numbers("norms", norms, _norm_balls.checked)

    def resolve_paths(self, variables: Sequence[Variable], find_roles: FindRoles) -> None:
        super().resolve_paths(variables, find_roles)
        scales = path_rules.first_match("scales", self.scales, variables, find_roles)
        self._scales = [self.scales.get(rule, self.scale) for rule in scales]
        rules = path_rules.first_match("norms", self.norms, variables, find_roles)
        self._balls = [
            _ball(role, None if rule is None else self.norms[rule]) for role, rule in zip(find_roles(), rules, strict=True)
        ]
        spectral = [each.view if each.is_spectral else None for each in self._balls]
        warn_of_guesses(find_roles(), [None] * len(variables), spectral, "")

    def before_update(self, contexts: Sequence[UpdateContext]) -> dict[int, Tensor]:
        """The steps of all variables at a learning rate of 1, by their places."""
        for ctx in contexts:
            ctx.state.momentum = average(1 - self.momentum, ctx.state.momentum, ctx.gradient)
        return self.ball_steps({ctx.index: ctx.state.momentum for ctx in contexts})

    def ball_steps(self, values: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The step D of each of some values, by the places of their variables."""
        orthogonal = self._orthogonalized(values)
        return {i: self._scales[i] * self._balls[i].step(value, orthogonal.get(i)) for i, value in values.items()}

    def dual_norms(self, values: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The norm of each of some gradients that is dual to that of its variable."""
        orthogonal = self._orthogonalized(values, QUINTIC)
        return {i: self._balls[i].dual(value, orthogonal.get(i)) for i, value in values.items()}

    def norm_group(self, index: int) -> str:
        """The norm in which the steps of a variable have equal lengths, for `NoiseAdaptive`."""
        return self._balls[index].name

    def _orthogonalized(self, values: Mapping[int, Tensor], table: Table = NEWTON_SCHULZ) -> dict[int, Tensor]:
        views = {i: self._balls[i].view for i in values if self._balls[i].is_spectral}
        matrices = {i: view.matrix(values[i]) for i, view in views.items() if view is not None}
        return dict(zip(matrices, orthogonalized_all(list(matrices.values()), 5, table=table), strict=True))

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        decay = ctx.weight_decay + 1.0 if self.constrained else ctx.weight_decay
        return w - ctx.learning_rate * (ctx.shared[ctx.index] + decay * w)


def _ball(role: Role, norm: Any) -> NormBall:
    view = _matrix(role)
    taps = range(len(role.shape) - 2) if role.kind in CONVOLUTIONS else ()
    inputs, outputs = (role.size([axis for axis in axes if axis not in taps]) for axes in (role.inputs, role.outputs))
    name = _norm_by_role(role, view) if norm is None else norm
    return _norm_balls.ball(role.path, name, view, (inputs, outputs), role.size(taps))


CONVOLUTIONS = ("convolution_kernel", "depthwise_kernel")


def _matrix(role: Role) -> MatrixView | None:
    """The view of what multiplies inputs, output layers and embeddings included."""
    return hidden_matrix(role, None, (*HIDDEN, "embedding", "depthwise_kernel"), heads=True)


def _norm_by_role(role: Role, view: MatrixView | None) -> str:
    if view is None:
        return "bias_rms"
    if role.head:
        return "sign"
    if role.kind in CONVOLUTIONS:
        return "spectral_conv"
    return "column" if role.kind == "embedding" else "spectral"

"""Shampoo: the gradient multiplied by roots of its correlations along each axis, with the step length of another method."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.backends import cond
from keras_lrsched._core.registry import register
from keras_lrsched._core.roles import Role
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._kronecker import (
    Group,
    Kronecker,
    KroneckerOptions,
    along,
    contraction,
    eigenvectors,
    identity,
    multiplied_all,
    transposed,
)
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext

GRAFTING = ("sgd", "adam", "rmsprop", "adagrad", None)


@register(
    "shampoo",
    title="roots of the gradient's correlations along each axis",
    paper="arXiv:1802.09568",
    code=("facebookresearch/optimizers",),
    checked="trajectory",
    against="Meta's distributed_shampoo with factors in float64",
    deviations=(
        "axes of a variable are never merged, and an axis longer than max_preconditioner_dim has no factor, where Meta's "
        "code merges small axes and cuts long ones into blocks"
    ),
    kind="optimizer",
    options={"grafting": "adam", "epsilon": 1e-8, "beta_2": 0.999},
)
class Shampoo(Kronecker):
    """Momentum multiplied on each axis by the inverse root of the gradient's correlations there.

        A_i = beta_2 A_i + (1 - beta_2) (G times G, summed over all axes but i)           beta_2 = 1: the sum of all
        when they are due: P_i = (A_i / (1 - beta_2^t) + epsilon I)^(-1 / (2 axes))       beta_2 = 1: A_i itself
        m = beta_1 m + (1 - beta_1) G;  h = m / (1 - beta_1^t)
        u = h multiplied on each axis by P_i
        w = w - lr (u + weight_decay w)

    With `grafting`, u has the length of another method's step q, of each matrix by itself, which moves the variable
    alone before `start_preconditioning_step`:

        u = u ||q|| / (||u|| + 1e-16);   q = h, or h / (sqrt(v / (1 - grafting_beta_2^t)) + grafting_epsilon)

    where v is the mean of G^2 (`"adam"`), without the correction for its start (`"rmsprop"`), or their sum
    (`"adagrad"`).

    `beta_3` other than `beta_1` has h = (beta_3 m + (1 - beta_3) G) / (1 - beta_3 beta_1^(t-1)), m from before this
    update. `correction="kl"` (arXiv:2509.03378, as Meta's code has it) sums products of G multiplied by the roots P of
    the other axes from the update before, in place of G.

    Matrices are, by their roles (see `Role`), kernels that multiply inputs, factors of LoRA and embeddings: one axis
    for all inputs, one for all outputs, also in attention layers; each expert of a mixture has its own factors. Kernels
    of convolutions have a factor for each axis; `input_axes` makes them matrices. A vector has one factor, with the
    root -1/2, and so has a scalar, which moves by its sign. An axis longer than `max_preconditioner_dim` has none, and
    does not count. What `exclude_from_preconditioning` lists has u = h, or q.

    Meta's code merges axes by default: a matrix with less than 1024 entries is a vector there, with one factor of all
    entries. Here axes are never merged.

    `epsilon` is absolute, so that it depends on the scale of the loss; a root in float32 needs it at 1e-7 of the largest
    eigenvalue or more. Eigenvectors are computed in float64 (on JAX in float32).

    State: for a matrix m n + 2 (m^2 + n^2) float32 numbers, so 20 bytes for each parameter of a square one; one more for
    each parameter with `grafting` but `"sgd"`.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `1e-2`.
        beta_1: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.9`.
        beta_2: Decay rate of the factors, at least 0; 1 for sums. Defaults to `1`.
        epsilon: Added to eigenvalues, above 0. Defaults to `1e-12`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `None`.
        decoupled_weight_decay: Whether the decay is beside the step; else it is part of G. Defaults to `True`.
        grafting: `"sgd"`, `"adam"`, `"rmsprop"`, `"adagrad"`, or `None`, for no other length. Defaults to `None`.
        grafting_beta_2: Decay rate of v, at least 0 and below 1. Defaults to `0.999`.
        grafting_epsilon: Added to its root. Defaults to `1e-8`.
        precondition_frequency: The number of updates between roots. Defaults to `1`.
        start_preconditioning_step: The update with the first roots. Defaults to `None`, for `precondition_frequency`.
        max_preconditioner_dim: The longest axis with a factor. Defaults to `1024`.
        exponent: Of the inverse root on each axis, above 0. Defaults to `None`, for 1 / (2 axes).
        beta_3: As above. Defaults to `None`, for that of `beta_1`.
        correction: `"kl"` or `None`. Defaults to `None`.
        exclude_from_preconditioning: Regular expressions for variables without factors. Defaults to `None`, for none.
        input_axes: A dictionary from regular expressions to how many of the first axes of a variable are inputs.
            Defaults to `None`, as above.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if a variable has no more axes than
            in `input_axes`.

    Reference:
        Gupta et al., Shampoo: Preconditioned Stochastic Tensor Optimization, arXiv:1802.09568. Trajectories agree with
        facebookresearch/optimizers.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((2, 2)))
    >>> optimizer = Shampoo(learning_rate=0.1, beta_1=0.0)
    >>> optimizer.apply([keras.ops.array([[3.0, 1.0], [1.0, 3.0]])], [w])
    >>> w.numpy().round(3)  # 0.1 along both of its singular vectors
    array([[-0.1, -0. ],
           [-0. , -0.1]], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 1e-2,
        beta_1: float = 0.9,
        beta_2: float = 1.0,
        epsilon: float = 1e-12,
        weight_decay: WeightDecay = None,
        decoupled_weight_decay: bool = True,
        grafting: Literal["sgd", "adam", "rmsprop", "adagrad"] | None = None,
        grafting_beta_2: float = 0.999,
        grafting_epsilon: float = 1e-8,
        precondition_frequency: int = 1,
        start_preconditioning_step: int | None = None,
        max_preconditioner_dim: int = 1024,
        exponent: float | None = None,
        beta_3: float | None = None,
        correction: Literal["kl"] | None = None,
        **options: Unpack[KroneckerOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.fraction("beta_2", beta_2)
        self.epsilon = validation.positive_float("epsilon", epsilon)
        self.decoupled_weight_decay = decoupled_weight_decay
        self.grafting = validation.one_of("grafting", grafting, GRAFTING)
        self.grafting_beta_2 = validation.beta("grafting_beta_2", grafting_beta_2)
        self.grafting_epsilon = validation.non_negative_float("grafting_epsilon", grafting_epsilon)
        self.precondition_frequency = validation.positive_int("precondition_frequency", precondition_frequency)
        start = start_preconditioning_step
        self.start_preconditioning_step = (
            None if start is None else validation.positive_int("start_preconditioning_step", start)
        )
        self.max_preconditioner_dim = validation.positive_int("max_preconditioner_dim", max_preconditioner_dim)
        self.exponent = None if exponent is None else validation.positive_float("exponent", exponent)
        self.beta_3 = None if beta_3 is None else validation.fraction("beta_3", beta_3)
        self.correction = validation.one_of("correction", correction, ("kl", None))

    @property
    def largest_axis(self) -> int:
        return self.max_preconditioner_dim

    def has_factors(self, role: Role, is_vector: bool) -> bool:
        return True

    def make_state(self, variable: Variable) -> dict[str, Any]:
        has_second_moment = self.grafting not in ("sgd", None)
        state = self.add_own(variable, "m", "v") if has_second_moment else self.add_own(variable, "m")
        return state | self.add_for_axes(variable, "factor") | self.add_for_axes(variable, "root", initializer=identity)

    # The update

    def update_groups(self, groups: Sequence[Group]) -> dict[int, Tensor]:
        if not groups:
            return {}
        ctx = groups[0].contexts[0]
        gradients = [group.of_variables(map(self._gradient, group.contexts)) for group in groups]
        roots = self._roots(groups, gradients, ctx)
        moves = {}
        for group, g, of_axes in zip(groups, gradients, roots, strict=True):
            moves.update(group.back(self._move(group, g, of_axes, ctx)))
        return moves

    def couples_weight_decay(self) -> bool:
        return not self.decoupled_weight_decay

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        decay = ctx.weight_decay if self.decoupled_weight_decay else 0.0
        return w - ctx.learning_rate * (ctx.shared[ctx.index] + decay * w)

    def _gradient(self, ctx: UpdateContext) -> Tensor:
        return ctx.gradient if self.decoupled_weight_decay else ctx.gradient + ctx.weight_decay * ctx.value

    @property
    def _start(self) -> int:
        return self.start_preconditioning_step or self.precondition_frequency

    def _roots(self, groups: Sequence[Group], gradients: Sequence[Tensor], ctx: UpdateContext) -> list[dict[int, Tensor]]:
        """The roots for each axis of each group, computed from the factors if they are due; both are stored."""
        factors = [self._factors(group, g) for group, g in zip(groups, gradients, strict=True)]
        old = [group.read(f"root_{i}") for group, of_axes in zip(groups, factors, strict=True) for i in of_axes]
        if not old:
            return [{} for _ in groups]
        correction = 1.0 if self.beta_2 == 1 else bias_correction(self.beta_2, ctx.t)

        def new() -> list[Tensor]:
            return [self._inverse_root(a / correction, len(each)) for each in factors for a in each.values()]

        step = ctx.iterations + 1
        later = ops.logical_and(step > self._start, ops.equal(step % self.precondition_frequency, 0))
        each = iter(cond(ops.logical_or(ops.equal(step, self._start), later), new, lambda: old))
        roots = [{i: next(each) for i in of_axes} for of_axes in factors]
        for group, of_axes in zip(groups, roots, strict=True):
            for i, root in of_axes.items():
                group.write(f"root_{i}", root)
        return roots

    def _factors(self, group: Group, g: Tensor) -> dict[int, Tensor]:
        factors = {}
        for i in group.factors:
            others = {j: group.read(f"root_{j}") for j in group.factors if j != i} if self.correction else {}
            new, old = contraction(multiplied_all(g, others), i), group.read(f"factor_{i}")
            factors[i] = old + new if self.beta_2 == 1 else average(self.beta_2, old, new)
            group.write(f"factor_{i}", factors[i])
        return factors

    def _inverse_root(self, factor: Tensor, axes: int) -> Tensor:
        values, vectors = eigenvectors(factor)
        values = values + self.epsilon
        # Rounding may have made the smallest negative: then all are raised, so that it is epsilon.
        values = values + ops.maximum(self.epsilon - ops.min(values, axis=-1, keepdims=True), 0.0)
        values = ops.where(values < self.epsilon, self.epsilon, values)  # which a sum of large numbers may miss
        powers = values ** -(self.exponent or 1 / (2 * axes))
        return ops.matmul(along(vectors, powers, 1), transposed(vectors))

    def _move(self, group: Group, g: Tensor, roots: Mapping[int, Tensor], ctx: UpdateContext) -> Tensor:
        h = self._filtered(group, g, ctx)
        move = multiplied_all(h, roots)
        if self.grafting is None:
            return move
        other = self._grafted(group, g, h, ctx.t)
        move = move * (_norm(other) / (_norm(move) + 1e-16)) if roots else other
        return ops.where(ctx.iterations + 1 < self._start, other, move)

    def _filtered(self, group: Group, g: Tensor, ctx: UpdateContext) -> Tensor:
        old = group.read("m")
        m = average(self.beta_1, old, g)
        group.write("m", m)
        if self.beta_3 is None or self.beta_3 == self.beta_1:
            return m / bias_correction(self.beta_1, ctx.t)
        before = 1 - bias_correction(self.beta_1, ctx.t - 1) if self.beta_1 else ops.cast(ctx.t < 2, g.dtype)
        return average(self.beta_3, old, g) / (1 - self.beta_3 * before)

    def _grafted(self, group: Group, g: Tensor, h: Tensor, t: Tensor) -> Tensor:
        """The step of the other method."""
        if self.grafting == "sgd":
            return h
        old, square = group.read("v"), ops.square(g)
        v = old + square if self.grafting == "adagrad" else average(self.grafting_beta_2, old, square)
        group.write("v", v)
        if self.grafting == "adam":
            v = v / bias_correction(self.grafting_beta_2, t)
        return h / (ops.sqrt(v) + self.grafting_epsilon)


def _norm(x: Tensor) -> Tensor:
    """That of each tensor (number, size, ..., size)."""
    return ops.sqrt(ops.sum(ops.square(x), axis=tuple(range(1, len(x.shape))), keepdims=True))

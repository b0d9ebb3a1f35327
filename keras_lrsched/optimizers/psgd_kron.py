"""PSGD-Kron: momentum whitened by triangular factors of each axis, which gradient steps fit."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.backends import cond
from keras_lrsched._core.registry import register
from keras_lrsched._core.roles import Role
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._kronecker import (
    Group,
    Kronecker,
    KroneckerUnseededOptions,
    along,
    contraction,
    identity,
    multiplied,
    transposed,
)
from keras_lrsched.optimizers._low_rank import seed_for, standard_normal
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext

NOISE = math.sqrt(1.1920929e-07)
"""The length of the probe beside the momentum: the root of the precision of float32."""
BALANCED_EVERY = 100
DIAGONALS = (None, "one", "smart_one", "all")


@register(
    "psgd_kron",
    title="momentum whitened by triangular factors of each axis",
    paper="arXiv:2402.04553",
    code=("evanatyourservice/kron_torch",),
    checked="trajectory",
    against="the code of kron_torch in float64",
    deviations=(
        "the probe is added to a copy of the momentum unless `noise_in_step` is set; kernels of convolutions are matrices "
        "of all inputs and the outputs; scalars are whitened, where the code raises; factors are balanced at each 100th "
        "update of theirs, where the code draws by chance"
    ),
    kind="optimizer",
    options={"learning_rate": 3e-4},
)
class PSGDKron(Kronecker):
    """Momentum multiplied by Q^T Q on both sides, where each Q follows the gradient of a criterion for white steps.

        m = beta_1 m + (1 - beta_1) G;  H = m / (1 - beta_1^t)
        when they are due, with V of standard normal numbers:
            X = H + 3.5e-4 mean|H| V;  A = QL X QR^T;  B = QL^-T V QR^-1
            QL = QL - preconditioner_learning_rate triu(A A^T - B B^T) QL / bound(A A^T + B B^T);  QR with A^T A, B^T B
        u = QL^T QL H QR^T QR;  u = u min(1, 1.1 / RMS(u))
        w = w - lr (u + weight_decay w)

    bound(S) is a lower bound of the largest eigenvalue. The factors are due when `update_probability`, added up, comes
    to 1. By default it is 1 for 500 updates, and then falls as exp(-0.001 n) to 0.03.

    Matrices are, by their roles (see `Role`), kernels that multiply inputs, factors of LoRA and embeddings: all inputs
    against all outputs, also in attention layers and convolutions; each expert of a mixture has its own factors. What
    has more than two axes, and is none of these, has one factor each. Q is triangular; it is diagonal for a vector or a
    scalar, for an axis longer than `max_size_triangular`, and as `diagonal` says. What `exclude_from_preconditioning`
    lists moves by H, limited in the same way.

    State: for a matrix m n + m^2 + n^2 float32 numbers, so 12 bytes for each parameter of a square one; two for each
    parameter of a vector.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `3e-4`.
        beta_1: Decay rate of the momentum, at least 0 and below 1. Defaults to `0.9`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. It is for matrices; the code leaves vectors out.
            Defaults to `None`.
        preconditioner_learning_rate: That of the factors, above 0. Defaults to `0.1`.
        initial_scale: The product of the factors at first, above 0. Defaults to `1`.
        update_probability: How often factors are fitted: a number above 0 and at most 1; 0.5 is each second update.
            Defaults to `None`, for the schedule above.
        momentum_into_preconditioner: Whether factors see H; else G. Defaults to `True`.
        max_size_triangular: The longest axis with a triangular factor. Defaults to `8192`.
        diagonal: Which factors of matrices are diagonal: `"one"`, that of the longest axis, `"smart_one"`, if it is
            longer than the other, `"all"`, or `None`. Defaults to `None`.
        noise_in_step: Whether the probe is in the step, too, as in the code. Defaults to `False`.
        seed: An int, for V, as for stochastic rounding. Defaults to `0`.
        exclude_from_preconditioning: Regular expressions for variables without factors. Defaults to `None`, for none.
        input_axes: A dictionary from regular expressions to how many of the first axes of a variable are inputs.
            Defaults to `None`, as above.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if a variable has no more axes than
            in `input_axes`.

    Reference:
        Li, Stochastic Hessian Fittings with Lie Groups, arXiv:2402.04553. Trajectories agree with
        evanatyourservice/kron_torch, if it is given the same V.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((2,)))
    >>> optimizer = PSGDKron(learning_rate=0.1)
    >>> optimizer.apply([keras.ops.array([100.0, -100.0])], [w])
    >>> w.numpy().round(3)  # an RMS of 1.1 lr at most
    array([-0.11,  0.11], dtype=float32)
    """

    convolutions_are_matrices = True

    def __init__(
        self,
        learning_rate: LearningRate = 3e-4,
        beta_1: float = 0.9,
        weight_decay: WeightDecay = None,
        preconditioner_learning_rate: float = 0.1,
        initial_scale: float = 1.0,
        update_probability: float | None = None,
        momentum_into_preconditioner: bool = True,
        max_size_triangular: int = 8192,
        diagonal: Literal["one", "smart_one", "all"] | None = None,
        noise_in_step: bool = False,
        seed: int = 0,
        **options: Unpack[KroneckerUnseededOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay, seed=validation.non_negative_int("seed", seed), **options)
        self.beta_1 = validation.beta("beta_1", beta_1)
        rate = preconditioner_learning_rate
        self.preconditioner_learning_rate = validation.positive_float("preconditioner_learning_rate", rate)
        self.initial_scale = validation.positive_float("initial_scale", initial_scale)
        self.update_probability = (
            None if update_probability is None else validation.positive_fraction("update_probability", update_probability)
        )
        self.momentum_into_preconditioner = momentum_into_preconditioner
        self.max_size_triangular = validation.positive_int("max_size_triangular", max_size_triangular)
        self.diagonal = validation.one_of("diagonal", diagonal, DIAGONALS)
        self.noise_in_step = noise_in_step

    @property
    def largest_axis(self) -> int:
        return sys.maxsize  # those that are too long are diagonal

    def has_factors(self, role: Role, is_vector: bool) -> bool:
        return True

    def is_diagonal(self, sizes: Sequence[int], axis: int) -> bool:
        """Whether the factor of an axis is diagonal."""
        if len(sizes) < 2 or self.diagonal == "all" or sizes[axis] == 1 or sizes[axis] > self.max_size_triangular:
            return True
        order = sorted(sizes)
        is_longest = axis == max(range(len(sizes)), key=lambda i: (sizes[i], i))
        return is_longest and (self.diagonal == "one" or (self.diagonal == "smart_one" and order[-1] > order[-2]))

    def make_state(self, variable: Variable) -> dict[str, Any]:
        state, view = self.add_own(variable, "m"), self.view_of(variable)
        for i in view.factors:
            scale = self.initial_scale ** (1 / len(view.factors))
            is_diagonal = self.is_diagonal(view.sizes, i)
            shape = (view.sizes[i],) if is_diagonal else (view.sizes[i],) * 2
            start = keras.initializers.Constant(scale) if is_diagonal else _Scaled(scale)
            state[f"q_{i}"] = self.add_state(variable, f"q_{i}", view.with_stack(shape), initializer=start)
        return state

    def make_scalars(self) -> dict[str, Any]:
        return {"counter": self.add_scalar("counter"), "fits": self.add_scalar("fits")}

    # The update

    def update_groups(self, groups: Sequence[Group]) -> dict[int, Tensor]:
        if not groups:
            return {}
        ctx = groups[0].contexts[0]
        momenta = [self._momentum(group) for group in groups]
        probes = [self._probes(group, h) for group, h in zip(groups, momenta, strict=True)]
        factors = self._fitted(groups, probes, ctx)
        moves: dict[int, Tensor] = {}
        for group, h, (x, _), of_axes in zip(groups, momenta, probes, factors, strict=True):
            is_noisy = self.noise_in_step and self.momentum_into_preconditioner
            moves.update(group.back(_limited(_whitened(x if is_noisy else h, of_axes))))
        return moves

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        return w - ctx.learning_rate * (ctx.shared[ctx.index] + ctx.weight_decay * w)

    def _momentum(self, group: Group) -> Tensor:
        g = group.of_variables(ctx.gradient for ctx in group.contexts)
        m = average(self.beta_1, group.read("m"), g)
        group.write("m", m)
        return m / bias_correction(self.beta_1, group.contexts[0].t)

    def noise(self, shape: Sequence[int], ctx: UpdateContext, dtype: str) -> Tensor:
        """V for a variable in an update."""
        return standard_normal(shape, seed_for(self.seed, ctx.index, ctx.iterations), dtype)

    def _probes(self, group: Group, h: Tensor) -> tuple[Tensor, Tensor]:
        """X and V."""
        v = group.of_variables(self.noise(view.shape, ctx, h.dtype) for ctx, view in group.members)
        g = h if self.momentum_into_preconditioner else group.of_variables(ctx.gradient for ctx in group.contexts)
        return g + NOISE * ops.mean(ops.abs(g), axis=tuple(range(1, len(g.shape))), keepdims=True) * v, v

    def _fitted(
        self, groups: Sequence[Group], probes: Sequence[tuple[Tensor, Tensor]], ctx: UpdateContext
    ) -> list[dict[int, Tensor]]:
        """The factors of all groups, fitted once more if that is due; they are stored."""
        old = [{i: group.read(f"q_{i}") for i in group.factors} for group in groups]
        scalars = ctx.scalars
        if self.update_probability is None:
            probability = ops.clip(ops.exp(-0.001 * (scalars.fits - 500)), 0.03, 1.0)
        else:
            probability = self.update_probability
        counter = scalars.counter + 1
        is_due = counter >= 1 / probability
        is_balanced = ops.equal(scalars.fits % BALANCED_EVERY, BALANCED_EVERY - 1)
        scalars.counter = ops.where(is_due, 0.0, counter)
        scalars.fits = scalars.fits + ops.cast(is_due, "float32")
        flat = [q for each in old for q in each.values()]
        if not flat:
            return old

        def new() -> list[Tensor]:
            fitted = [self._fit(each, *pair) for each, pair in zip(old, probes, strict=True)]
            return [q for each in fitted for q in _balanced(each, is_balanced).values()]

        parts = iter(cond(is_due, new, lambda: flat))
        fitted = [{i: next(parts) for i in each} for each in old]
        for group, each in zip(groups, fitted, strict=True):
            for i, q in each.items():
                group.write(f"q_{i}", q)
        return fitted

    def _fit(self, factors: Mapping[int, Tensor], x: Tensor, v: Tensor) -> dict[int, Tensor]:
        a, b = x, v
        for i, q in factors.items():
            if len(q.shape) == 2:
                a, b = along(a, q, i), along(b, 1 / q, i)
            else:
                a, b = multiplied(a, transposed(q), i), _solved(b, q, i)
        rate = self.preconditioner_learning_rate
        return {i: q - rate * _direction(q, a, b, i) for i, q in factors.items()}


class _Scaled(keras.initializers.Initializer):
    """A multiple of the identity, or several of them."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Tensor:
        return self.scale * identity(shape, dtype)


def _whitened(h: Tensor, factors: Mapping[int, Tensor]) -> Tensor:
    for i, q in factors.items():
        h = along(h, ops.square(q), i) if len(q.shape) == 2 else multiplied(h, ops.matmul(transposed(q), q), i)
    return h


def _limited(u: Tensor) -> Tensor:
    """With a root mean square of at most 1.1."""
    rms = ops.sqrt(ops.mean(ops.square(u), axis=tuple(range(1, len(u.shape))), keepdims=True))
    return u * ops.minimum(1.0, 1.1 / (rms + 1e-12))


def _solved(x: Tensor, q: Tensor, axis: int) -> Tensor:
    """x multiplied on one axis by Q^-1, for an upper triangular Q."""
    rows = ops.moveaxis(x, axis + 1, 1)
    flat = ops.reshape(rows, (x.shape[0], x.shape[axis + 1], -1))
    solved = ops.solve_triangular(transposed(q), flat, lower=True)
    return ops.moveaxis(ops.reshape(solved, rows.shape), 1, axis + 1)


def _direction(q: Tensor, a: Tensor, b: Tensor, axis: int) -> Tensor:
    """The step of a factor at a learning rate of 1."""
    if len(q.shape) == 2:
        others = tuple(i + 1 for i in range(len(a.shape) - 1) if i != axis)
        one, other = (ops.sum(ops.square(x), axis=others) for x in (a, b))
        return (one - other) / ops.max(ops.abs(one + other), axis=-1, keepdims=True) * q
    one, other = contraction(a, axis), contraction(b, axis)
    return ops.matmul(ops.triu(one - other) / _bound(one + other), q)


def _bound(s: Tensor) -> Tensor:
    """A lower bound of the largest eigenvalue of symmetric matrices, (number, 1, 1)."""
    largest = ops.max(ops.abs(s), axis=(-2, -1), keepdims=True)
    scaled = s / ops.where(largest > 0, largest, 1.0)
    place = ops.argmax(ops.sum(ops.square(scaled), axis=-2), axis=-1)
    column = ops.take_along_axis(scaled, ops.reshape(place, (-1, 1, 1)), axis=-1)
    x = ops.matmul(scaled, column)
    x = x / ops.sqrt(ops.sum(ops.square(x), axis=-2, keepdims=True))
    return largest * ops.sqrt(ops.sum(ops.square(ops.matmul(scaled, x)), axis=-2, keepdims=True))


def _balanced(factors: Mapping[int, Tensor], condition: Tensor) -> dict[int, Tensor]:
    """The factors with equal largest entries and the same product, where the condition holds."""
    largest = {i: ops.max(ops.abs(q), axis=tuple(range(1, len(q.shape)))) for i, q in factors.items()}
    if len(largest) < 2:
        return dict(factors)
    mean = math.prod(largest.values(), start=1.0) ** (1 / len(largest))
    ratios = {i: ops.where(condition, mean / value, 1.0) for i, value in largest.items()}
    return {i: q * ops.reshape(ratios[i], (-1, *[1] * (len(q.shape) - 1))) for i, q in factors.items()}

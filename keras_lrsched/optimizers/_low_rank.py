"""Base of GaLore, APOLLO and Fira: Adam on the projection of a gradient on a few directions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import keras_private, path_rules, validation
from keras_lrsched._core.backends import cond
from keras_lrsched._core.types import FindRoles, LearningRate, Patterns, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._matrices import LowMatrix, matrix_of
from keras_lrsched.optimizers._numerics import average, bias_correction, norm
from keras_lrsched.optimizers._options import LowRankOptions
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer

EPSILON = 1e-8
GROWTH = 1.01
OVERSAMPLING, POWER_ITERATIONS = 8, 2


class LowRank(Optimizer):
    """An optimizer whose moments are those of the projection of each matrix.

        R = P^T G                                            G is (k, n) with k <= n, P is (k, rank)
        m = beta_1 m + (1 - beta_1) R;  v = beta_2 v + (1 - beta_2) R^2
        N = m / (sqrt(v) + epsilon)
        w = w - lr sqrt(1 - beta_2^t) / (1 - beta_1^t) direction(G, P, R, N)
        w = (1 - lr weight_decay) w

    P is new in each update whose number, from 0, is a multiple of `update_proj_gap`; the moments go on unchanged. The longer
    side of the variable is n; a square one has its inputs in k, as the authors' code for PyTorch's (out, in). All else is
    its own R, and moves by N.
    """

    matrix_numbers: tuple[str, ...] = ()
    """Names of the numbers that each matrix has beside its moments, at first zero."""

    def __init__(
        self,
        learning_rate: LearningRate,
        rank: int | None,
        update_proj_gap: int,
        proj: str,
        beta_1: float,
        beta_2: float,
        epsilon: float,
        weight_decay: WeightDecay,
        exclude_from_projection: Patterns,
        input_axes: Mapping[str, int] | None,
        seed: int,
        **options: Unpack[LowRankOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, seed=validation.non_negative_int("seed", seed), **options)
        self.rank = None if rank is None else validation.positive_int("rank", rank)
        self.update_proj_gap = validation.positive_int("update_proj_gap", update_proj_gap)
        self.proj = proj
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.exclude_from_projection = path_rules.patterns("exclude_from_projection", exclude_from_projection)
        self.input_axes = path_rules.numbers("input_axes", input_axes, validation.positive_int)

    def direction(self, g: Tensor, p: Tensor, r: Tensor, n: Tensor, state: OptimizerState) -> Tensor:
        """The step of a matrix at a learning rate of 1, from G, P, R and N."""
        raise NotImplementedError

    def resolve_paths(self, variables: Sequence[Variable], find_roles: FindRoles) -> None:
        super().resolve_paths(variables, find_roles)
        taken = path_rules.included("exclude_from_projection", self.exclude_from_projection, variables, find_roles)
        rules = path_rules.first_match("input_axes", self.input_axes, variables, find_roles)
        self._matrices = [
            matrix_of(variable, self.input_axes.get(rule), role) if is_taken else None
            for variable, rule, is_taken, role in zip(variables, rules, taken, find_roles(), strict=True)
        ]
        self._check_rank(variables)

    def _check_rank(self, variables: Sequence[Variable]) -> None:
        small = [
            f"{path_rules.path(variable)} of shape {tuple(variable.shape)}"
            for variable, matrix in zip(variables, self._matrices, strict=True)
            if matrix and 0 not in variable.shape and self._rank(matrix) > matrix.rows
        ]
        if small:
            raise ValueError(
                "`rank` must be at most the shorter side of each matrix that `exclude_from_projection` does not list. "
                f"Received: rank={self.rank}, for {', '.join(small)}"
            )

    def _rank(self, matrix: LowMatrix) -> int:
        return self.rank or math.ceil(matrix.rows / 4)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        matrix = self._matrices[keras_private.variable_index(self, variable)]
        if matrix is None:
            return {name: self.add_state(variable, name) for name in ("m", "v")}
        rank = self._rank(matrix)
        state = {name: self.add_state(variable, name, shape=(rank, matrix.columns)) for name in ("m", "v")}
        state |= {name: self.add_state(variable, name, shape=()) for name in self.matrix_numbers}
        if self.proj != "random":
            state["projection"] = self.add_state(variable, "projection", shape=(matrix.rows, rank))
        return state

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        matrix = self._matrices[ctx.index]
        if matrix is None:
            move = self._normalized(g, state)
        else:
            g = matrix.wide(g)
            p = self._projection(g, state, ctx)
            r = ops.transpose(p) @ g
            move = matrix.back(self.direction(g, p, r, self._normalized(r, state), state))
        rate = ctx.learning_rate * bias_correction(self.beta_2, ctx.t) ** 0.5 / bias_correction(self.beta_1, ctx.t)
        w = w - rate * move
        return w - ctx.learning_rate * ctx.weight_decay * w

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        return ctx.learning_rate * ctx.weight_decay * new

    def _normalized(self, r: Tensor, state: OptimizerState) -> Tensor:
        state.m = average(self.beta_1, state.m, r)
        state.v = average(self.beta_2, state.v, ops.square(r))
        return state.m / (ops.sqrt(state.v) + self.epsilon)

    def _projection(self, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        if self.proj == "random":
            return self.new_projection(g, ctx)
        old = state.projection
        is_due = ctx.iterations % self.update_proj_gap == 0
        is_missing = ops.logical_not(ops.any(ops.not_equal(old, 0)))  # of a variable without a gradient when it was due
        state.projection = cond(ops.logical_or(is_due, is_missing), lambda: self.new_projection(g, ctx), lambda: old)
        return state.projection

    def new_projection(self, g: Tensor, ctx: UpdateContext) -> Tensor:
        """P for a gradient (k, n); of random ones, that of the gap that `ctx` lies in."""
        rank = self._rank(self._matrices[ctx.index])
        if self.proj == "svd":
            return singular_vectors(g, rank)
        seed = seed_for(self.seed, ctx.index, ctx.iterations // self.update_proj_gap)
        if self.proj == "randomized_svd":
            return randomized_singular_vectors(g, rank, seed)
        return random_directions(g.shape[0], rank, seed, g.dtype)


def channel_scale(n: Tensor, r: Tensor) -> Tensor:
    """||N|| / ||R|| of each column, (1, n): by how much Adam scales the gradients of a channel."""
    return _column_norms(n) / (_column_norms(r) + EPSILON)


def tensor_scale(n: Tensor, r: Tensor) -> Tensor:
    """||N|| / ||R|| of the whole matrix."""
    return norm(n) / (norm(r) + EPSILON)


def _column_norms(x: Tensor) -> Tensor:
    return ops.sqrt(ops.sum(ops.square(x), axis=0, keepdims=True))


def limited(x: Tensor, state: OptimizerState) -> Tensor:
    """`x`, shortened if its norm is more than 1.01 times that of the last one, which is `state.length`.

        a = max(||x|| / (length + 1e-8), 1.01) / 1.01
        x = x / a;  length = ||x|| / a

    There is no limit after a length of 0, at first or from a gradient of 0: it would hold the next ones at about 1e-8.
    """
    length = norm(x)
    excess = ops.maximum(length / (state.length + 1e-8), GROWTH) / GROWTH
    excess = ops.where(state.length > 0, excess, 1.0)
    state.length = length / excess
    return x / excess


# The directions: matrices (k, rank) for a gradient (k, n) that is not higher than wide


def singular_vectors(g: Tensor, rank: int) -> Tensor:
    """Left singular vectors of the largest singular values."""
    return _with_fixed_signs(_left_singular_vectors(_tame(g))[:, :rank])


def randomized_singular_vectors(g: Tensor, rank: int, seed: Any) -> Tensor:
    """The same vectors from products and QR decompositions of `rank` + 8 columns (Halko et al., arXiv:0909.4061).

    The space that they span holds nearly as much of g; single vectors of near singular values are mixed.
    """
    g = _tame(g)
    columns = min(rank + OVERSAMPLING, g.shape[0])
    transposed = ops.transpose(g)
    q = _orthonormal(g @ standard_normal((g.shape[1], columns), seed, g.dtype))
    for _ in range(POWER_ITERATIONS):
        q = _orthonormal(g @ _orthonormal(transposed @ q))
    return _with_fixed_signs((q @ _left_singular_vectors(ops.transpose(q) @ g))[:, :rank])


def random_directions(rows: int, rank: int, seed: Any, dtype: str) -> Tensor:
    """Independent normal numbers of variance 1 / rank."""
    return standard_normal((rows, rank), seed, dtype) / rank**0.5


def standard_normal(shape: Sequence[int], seed: Any, dtype: str) -> Tensor:
    """Normal numbers, always the same for a seed, which is a tensor from `seed_for`."""
    return ops.cast(keras.random.normal(shape, dtype="float32", seed=_Fixed(seed)), dtype)


def seed_for(seed: Any, index: int, refresh: Tensor) -> Tensor:
    """A seed of its own for each variable and refresh.

    `seed` and `index` are numbers. They are mixed, because the backend for PyTorch adds up both parts of a seed.
    """
    mixed = int(np.random.SeedSequence((seed, index)).generate_state(1)[0]) >> 1
    dtype = "uint32" if keras.backend.backend() == "jax" else "int32"
    return ops.stack([ops.cast(mixed, dtype), ops.cast(refresh, dtype)])


class _Fixed(keras.random.SeedGenerator):
    """A seed that is a tensor, where Keras takes an int or a generator."""

    def __init__(self, value: Tensor) -> None:
        self._value = value

    def next(self, ordered: bool = True) -> Tensor:
        return self._value


def _left_singular_vectors(g: Tensor) -> Tensor:
    if keras.backend.backend() != "tensorflow":
        return ops.svd(g, full_matrices=False)[0]
    # XLA's SVD takes seconds for a hundred rows. float64 makes good for the squares of singular values.
    wide = ops.cast(g, "float64")
    vectors = ops.eigh(wide @ ops.transpose(wide))[1]
    return ops.cast(ops.flip(vectors, axis=1), g.dtype)


def _orthonormal(x: Tensor) -> Tensor:
    return ops.qr(x)[0]


def _with_fixed_signs(vectors: Tensor) -> Tensor:
    """The entry of the largest absolute value is positive: libraries differ in the signs of singular vectors."""
    is_positive = ops.max(vectors, axis=0) >= -ops.min(vectors, axis=0)
    return ops.where(is_positive, vectors, -vectors)


def _tame(g: Tensor) -> Tensor:
    """A multiple that cannot overflow; without numbers that are not finite, on which some libraries raise or hang."""
    g = ops.where(ops.isfinite(g), g, 0.0)
    largest = ops.max(ops.abs(g))
    return g / ops.where(largest > 0, largest, 1.0)

"""What GaLore, APOLLO and Fira share: Adam on the projection of a gradient on a few directions."""

import math

from keras import ops

from keras_lrsched._core import path_rules, validation
from keras_lrsched._core.cond import cond
from keras_lrsched.optimizers.base import Optimizer
from keras_lrsched.optimizers.maths import average, bias_correction, norm
from keras_lrsched.optimizers.matrices import matrix_of
from keras_lrsched.optimizers.projections import (
    random_directions,
    randomized_singular_vectors,
    seed_for,
    singular_vectors,
)

EPSILON = 1e-8


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
        learning_rate,
        rank,
        update_proj_gap,
        proj,
        beta_1,
        beta_2,
        epsilon,
        weight_decay,
        exclude_from_projection,
        input_axes,
        seed,
        **options,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, seed=validation.non_negative_int("seed", seed), **options)
        self.rank = None if rank is None else validation.positive_int("rank", rank)
        self.update_proj_gap = validation.positive_int("update_proj_gap", update_proj_gap)
        self.proj = proj
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.exclude_from_projection = path_rules.patterns("exclude_from_projection", exclude_from_projection)
        self.input_axes = path_rules.numbers("input_axes", input_axes, validation.positive_int)

    def direction(self, g, p, r, n, slots):
        """By what a matrix moves at a learning rate of 1, from G, P, R and N."""
        raise NotImplementedError

    def resolve_paths(self, variables, find_roles):
        super().resolve_paths(variables, find_roles)
        taken = path_rules.included("exclude_from_projection", self.exclude_from_projection, variables, find_roles)
        rules = path_rules.first_match("input_axes", self.input_axes, variables, find_roles)
        self._matrices = [
            matrix_of(variable, self.input_axes.get(rule), role) if is_taken else None
            for variable, rule, is_taken, role in zip(variables, rules, taken, find_roles(), strict=True)
        ]
        self._check_rank(variables)

    def _check_rank(self, variables):
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

    def _rank(self, matrix):
        return self.rank or math.ceil(matrix.rows / 4)

    def make_slots(self, variable):
        matrix = self._matrices[self._get_variable_index(variable)]
        if matrix is None:
            return {name: self.add_slot(variable, name) for name in ("m", "v")}
        rank = self._rank(matrix)
        slots = {name: self.add_slot(variable, name, shape=(rank, matrix.columns)) for name in ("m", "v")}
        slots |= {name: self.add_slot(variable, name, shape=()) for name in self.matrix_numbers}
        if self.proj != "random":
            slots["projection"] = self.add_slot(variable, "projection", shape=(matrix.rows, rank))
        return slots

    def step(self, w, g, slots, now):
        matrix = self._matrices[now.index]
        if matrix is None:
            move = self._normalized(g, slots)
        else:
            g = matrix.wide(g)
            p = self._projection(g, slots, now)
            r = ops.transpose(p) @ g
            move = matrix.back(self.direction(g, p, r, self._normalized(r, slots), slots))
        rate = now.learning_rate * bias_correction(self.beta_2, now.t) ** 0.5 / bias_correction(self.beta_1, now.t)
        w = w - rate * move
        return w - now.learning_rate * now.weight_decay * w

    def _normalized(self, r, slots):
        slots.m = average(self.beta_1, slots.m, r)
        slots.v = average(self.beta_2, slots.v, ops.square(r))
        return slots.m / (ops.sqrt(slots.v) + self.epsilon)

    def _projection(self, g, slots, now):
        if self.proj == "random":
            return self.new_projection(g, now)
        old = slots.projection
        is_due = now.iterations % self.update_proj_gap == 0
        is_missing = ops.logical_not(ops.any(ops.not_equal(old, 0)))  # of a variable without a gradient when it was due
        slots.projection = cond(ops.logical_or(is_due, is_missing), lambda: self.new_projection(g, now), lambda: old)
        return slots.projection

    def new_projection(self, g, now):
        """P for a gradient (k, n); of random ones, that of the gap that `now` lies in."""
        rank = self._rank(self._matrices[now.index])
        if self.proj == "svd":
            return singular_vectors(g, rank)
        seed = seed_for(self.seed, now.index, now.iterations // self.update_proj_gap)
        if self.proj == "randomized_svd":
            return randomized_singular_vectors(g, rank, seed)
        return random_directions(g.shape[0], rank, seed, g.dtype)


def channel_scale(n, r):
    """||N|| / ||R|| of each column, (1, n): by how much Adam scales the gradients of a channel."""
    return _norms(n) / (_norms(r) + EPSILON)


def tensor_scale(n, r):
    """The same of the whole matrix."""
    return norm(n) / (norm(r) + EPSILON)


def _norms(x):
    return ops.sqrt(ops.sum(ops.square(x), axis=0, keepdims=True))

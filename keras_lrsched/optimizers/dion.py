"""Dion: orthonormal steps of low rank, by a power iteration with error feedback."""

import math
from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._kronecker import orthonormal
from keras_lrsched.optimizers._low_rank import seed_for, standard_normal
from keras_lrsched.optimizers._matrix_optimizer import HiddenMatrixUnseededOptions, MatrixOptimizer
from keras_lrsched.optimizers._newton_schulz import transposed
from keras_lrsched.optimizers._update_context import UpdateContext


@register(
    "dion",
    title="orthonormal steps of low rank with error feedback",
    paper="arXiv:2504.05295",
    code=("microsoft/dion",),
    checked="trajectory",
    against="the authors' dion_simple.py, bfloat16 and float32 widened to float64",
    deviations="the first directions come from our own random numbers",
    kind="optimizer",
    options={"learning_rate": 0.01, "weight_decay": 0.01},
)
class Dion(MatrixOptimizer):
    """A step with equal singular values along a few directions of the momentum, for matrices; AdamW for all else.

        M = M + G
        P = qr(M^T Q),  R = M P                              G (inputs, outputs), Q (inputs, rank), P (outputs, rank)
        M = M - (1 - momentum) R P^T                          only what is taken fades: error feedback
        Q = R / (column norms + 1e-8)
        w = (1 - lr weight_decay) w - lr sqrt(outputs / inputs) Q P^T

    Q is of standard normal numbers at first. The step has the norm lr sqrt(outputs / inputs) sqrt(rank) however small M
    is; only an M of exactly 0 gives none.

    A variable is a matrix by its role, as for `Muon`: kernels of hidden layers, convolutions flattened to (inputs,
    outputs), all heads of attention together, each expert of a mixture by itself. AdamW, with `adam_lr_ratio` lr,
    updates vectors, scalars, embeddings, output layers, and what `exclude_layers` lists.

    State: one float32 number for each parameter, and inputs x rank for each matrix; two for each parameter under AdamW.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `0.01`.
        rank: The number of directions, at most the shorter side of each matrix; or a number above 0 and at most 1.0, a
            float, for that fraction of the shorter side, rounded up. Defaults to `0.25`.
        momentum: What is left of the directions that are taken, at least 0 and below 1. Defaults to `0.95`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `0.01`.
        adam_lr_ratio: The learning rate of AdamW, divided by that of Dion. Defaults to `1`.
        adam_beta_1, adam_beta_2, epsilon: As in AdamW. Default to `0.9`, `0.95` and `1e-8`.
        adam_weight_decay: The weight decay under AdamW. Defaults to `None`.
        seed: An int, for the first Q, as for stochastic rounding. Defaults to `0`.
        exclude_layers, exclude_embeddings, input_axes: As in `Muon`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if `rank` is larger than the
            shorter side of a matrix, or a variable has no more axes than in `input_axes`.

    Reference:
        Ahn et al., Dion: Distributed Orthonormalized Updates, arXiv:2504.05295. Trajectories agree with the authors'
        code, microsoft/dion, if it is given the same Q.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((3, 3)))
    >>> Dion(learning_rate=1.0, rank=1).apply([keras.ops.diag([4.0, 0.0, 0.0])], [w])
    >>> w.numpy().round(3)[0]
    array([-1.,  0.,  0.], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        rank: float = 0.25,
        momentum: float = 0.95,
        weight_decay: WeightDecay = 0.01,
        adam_lr_ratio: float = 1,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.95,
        epsilon: float = 1e-8,
        adam_weight_decay: WeightDecay = None,
        seed: int = 0,
        **options: Unpack[HiddenMatrixUnseededOptions],
    ) -> None:
        super().__init__(
            learning_rate,
            adam_beta_1,
            adam_beta_2,
            adam_weight_decay,
            epsilon,
            weight_decay,
            adam_lr_ratio,
            seed=validation.non_negative_int("seed", seed),
            **options,
        )
        is_fraction = isinstance(rank, float)
        self.rank = validation.positive_fraction("rank", rank) if is_fraction else validation.positive_int("rank", rank)
        self.momentum = validation.beta("momentum", momentum)

    def _rank(self, view: Any) -> int:
        return math.ceil(self.rank * min(view.inputs, view.outputs)) if isinstance(self.rank, float) else self.rank

    def make_matrix_state(self, variable: Variable, view: Any) -> dict[str, Any]:
        shape = (view.inputs, self._rank(view))
        if shape[1] > min(view.inputs, view.outputs):
            raise ValueError(
                "`rank` must be at most the shorter side of each matrix that `exclude_layers` does not list. "
                f"Received: rank={self.rank}, for {path_rules.path(variable)} of shape {tuple(variable.shape)}"
            )
        basis = self.add_state(variable, "basis", shape if view.stack is None else (view.stack, *shape))
        return {**super().make_matrix_state(variable, view), "basis": basis}

    def first_basis(self, shape: Sequence[int], ctx: UpdateContext) -> Tensor:
        """Q before the first update."""
        return standard_normal(shape, seed_for(self.seed, ctx.index, 0), ctx.gradient.dtype)

    def matrix_steps(self, contexts: Sequence[UpdateContext], views: Sequence[Any]) -> list[Tensor]:
        return [view.back(self._matrix_step(ctx, view)) for ctx, view in zip(contexts, views, strict=True)]

    def _matrix_step(self, ctx: UpdateContext, view: Any) -> Tensor:
        m = view.matrix(ctx.state.momentum + ctx.gradient)
        q = ctx.state.basis
        q = ops.where(ops.equal(ctx.iterations, 0), self.first_basis(q.shape, ctx), q)
        p = orthonormal(ops.matmul(transposed(m), q))
        r = ops.matmul(m, p)
        ctx.state.momentum = view.back(m - (1 - self.momentum) * ops.matmul(r, transposed(p)))
        q = ctx.state.basis = r / (ops.sqrt(ops.sum(ops.square(r), axis=-2, keepdims=True)) + 1e-8)
        return math.sqrt(view.outputs / view.inputs) * ops.matmul(q, transposed(p))

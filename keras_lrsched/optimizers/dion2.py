"""Dion2: Muon for a part of the rows of the momentum in each update."""

import math
from collections.abc import Sequence
from typing import Any, Unpack

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import FindRoles, LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._matrix_optimizer import HiddenMatrixOptions, MatrixOptimizer
from keras_lrsched.optimizers._newton_schulz import POLAR_EXPRESS, SAFETY, orthogonalized_all, transposed
from keras_lrsched.optimizers._update_context import UpdateContext


@register(
    "dion2",
    title="Muon for a part of the rows of the momentum in each update",
    paper="arXiv:2504.05295",
    code=("microsoft/dion",),
    checked="trajectory",
    against="the authors' dion2.py, bfloat16 and float32 widened to float64",
    deviations="the paper is that of Dion: dion2 is known to us by its code alone",
    kind="optimizer",
    options={"learning_rate": 0.01, "weight_decay": 0.01},
)
class Dion2(MatrixOptimizer):
    """A step for the slices of the momentum with the largest L1 norms, orthogonalized; for matrices, AdamW for all else.

        M = M + G
        K = the ceil(fraction n) slices of M with the largest L1 norms, along the shorter side n
        w = (1 - lr weight_decay) w, all of it;  the slices K of w: w_K = w_K - lr q orthogonalized(M_K)
        M_K = ef_decay M_K

    Slices are outputs if there are no more of them than inputs, else inputs. `orthogonalized` has the five polynomials
    of Polar Express, see `Muon`. q is sqrt(outputs / inputs) of the whole matrix, or 0.2 sqrt(max(outputs, inputs)). Of
    slices with equal norms, libraries choose different ones.

    A variable is a matrix by its role, as for `Muon`: kernels of hidden layers, convolutions flattened to (inputs,
    outputs), all heads of attention together, each expert of a mixture by itself. AdamW, with `adam_lr_ratio` lr,
    updates vectors, scalars, embeddings, output layers, and what `exclude_layers` lists.

    State: one float32 number for each parameter, two for each parameter under AdamW.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `0.01`.
        fraction: Of the slices, above 0 and at most 1. Defaults to `0.25`.
        ef_decay: What is left of the slices that are taken, at least 0 and below 1. Defaults to `0.95`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `0.01`.
        adjust_lr: The factor q: `"spectral_norm"` or `"match_rms_adamw"`. Defaults to `"spectral_norm"`.
        adam_lr_ratio: The learning rate of AdamW, divided by that of Dion2. Defaults to `1`.
        adam_beta_1, adam_beta_2, epsilon: As in AdamW. Default to `0.9`, `0.95` and `1e-8`.
        adam_weight_decay: The weight decay under AdamW. Defaults to `None`.
        exclude_layers, exclude_embeddings, input_axes: As in `Muon`.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range. When the optimizer is built, if a variable has no more axes than
            in `input_axes`.

    Reference:
        The authors' code, microsoft/dion, whose trajectories agree; Dion is Ahn et al., arXiv:2504.05295.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((4, 4)))
    >>> Dion2(learning_rate=1.0).apply([keras.ops.diag([4.0, 0.1, 2.0, 1.0])], [w])
    >>> w.numpy().diagonal().round() + 0  # one of four, by about 1
    array([-1.,  0.,  0.,  0.], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        fraction: float = 0.25,
        ef_decay: float = 0.95,
        weight_decay: WeightDecay = 0.01,
        adjust_lr: str = "spectral_norm",
        adam_lr_ratio: float = 1,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.95,
        epsilon: float = 1e-8,
        adam_weight_decay: WeightDecay = None,
        **options: Unpack[HiddenMatrixOptions],
    ) -> None:
        super().__init__(
            learning_rate,
            adam_beta_1,
            adam_beta_2,
            adam_weight_decay,
            epsilon,
            weight_decay,
            adam_lr_ratio,
            **options,
        )
        self.fraction = validation.positive_fraction("fraction", fraction)
        self.ef_decay = validation.beta("ef_decay", ef_decay)
        self.adjust_lr = validation.one_of("adjust_lr", adjust_lr, ("spectral_norm", "match_rms_adamw"))

    def resolve_paths(self, variables: Sequence[Variable], find_roles: FindRoles) -> None:
        super().resolve_paths(variables, find_roles)
        self._counts = [view and math.ceil(self.fraction * min(view.inputs, view.outputs)) for view in self._views]

    def matrix_steps(self, contexts: Sequence[UpdateContext], views: Sequence[Any]) -> list[Tensor]:
        chosen = [self._choose(ctx, view) for ctx, view in zip(contexts, views, strict=True)]
        settings = 5, "float32", POLAR_EXPRESS, *SAFETY["polar_express"]
        results = orthogonalized_all([slices for slices, _ in chosen], *settings)
        return [
            view.back(self._scale(view) * _with_rows_along(view, ops.matmul(transposed(places), o)))
            for view, (_, places), o in zip(views, chosen, results, strict=True)
        ]

    def _scale(self, view: Any) -> float:
        if self.adjust_lr == "spectral_norm":
            return math.sqrt(view.outputs / view.inputs)
        return 0.2 * math.sqrt(max(view.inputs, view.outputs))

    def _choose(self, ctx: UpdateContext, view: Any) -> tuple[Tensor, Tensor]:
        """The slices as rows, and their places as rows of 0 and one 1; the momentum is stored without a part of them."""
        m = _with_rows_along(view, view.matrix(ctx.state.momentum + ctx.gradient))
        size = m.shape[-2]
        norms = ops.sum(ops.abs(m), axis=-1)
        _, indices = ops.top_k(ops.where(ops.isnan(norms), math.inf, norms), self._counts[ctx.index])
        places = ops.cast(ops.one_hot(indices, size), m.dtype)
        slices = ops.take_along_axis(m, ops.expand_dims(indices, -1), axis=-2)
        is_chosen = ops.expand_dims(ops.max(places, axis=-2), -1) > 0
        ctx.state.momentum = view.back(_with_rows_along(view, ops.where(is_chosen, self.ef_decay * m, m)))
        return slices, places


def _with_rows_along(view: Any, x: Tensor) -> Tensor:
    """A matrix (inputs, outputs) with its slices as rows, and back."""
    return transposed(x) if view.outputs <= view.inputs else x

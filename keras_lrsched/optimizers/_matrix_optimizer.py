"""Base of methods for the matrices of hidden layers, which leave all else to AdamW: Muon, NorMuon, Dion, Dion2."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, Unpack

import numpy as np
from keras import ops

from keras_lrsched import kernels
from keras_lrsched._core import keras_private, path_rules, validation
from keras_lrsched._core.roles import Role
from keras_lrsched._core.types import FindRoles, LearningRate, Patterns, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._arguments import checked_rate
from keras_lrsched.optimizers._matrices import (
    HIDDEN,
    MatrixView,
    SplitView,
    by_head,
    hidden_matrix,
    in_blocks,
    warn_of_guesses,
)
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._options import LowRankOptions, Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext
from keras_lrsched.optimizers.adamw import adamw_parameters
from keras_lrsched.optimizers.fused_optimizer import column
from keras_lrsched.optimizers.optimizer import Optimizer

View: TypeAlias = MatrixView | SplitView


class HiddenMatrixUnseededOptions(LowRankOptions, total=False):
    """Arguments that a method with a `seed` of its own hands on to `MatrixOptimizer`, beside those of its AdamW."""

    exclude_layers: Patterns
    exclude_embeddings: bool
    input_axes: Mapping[str, int] | None


class HiddenMatrixOptions(HiddenMatrixUnseededOptions, total=False):
    """Arguments that a method for matrices hands on to `MatrixOptimizer`, beside those of its AdamW."""

    seed: int | None


class MatrixOptimizer(Optimizer):
    """An optimizer with a formula of its own for the matrices of hidden layers, and AdamW for all else.

    A subclass names the state of a matrix in `make_matrix_state`, and returns the steps of all matrices together from
    `matrix_steps`, so that it can multiply those of one shape at once.
    """

    per_head = False
    blocks: Mapping[str, Any] = {}

    def __init__(
        self,
        learning_rate: LearningRate,
        adam_beta_1: float,
        adam_beta_2: float,
        adam_weight_decay: WeightDecay,
        epsilon: float,
        weight_decay: WeightDecay,
        adam_lr_ratio: float,
        exclude_layers: Patterns = None,
        exclude_embeddings: bool = True,
        input_axes: Mapping[str, int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.adam_beta_1 = validation.beta("adam_beta_1", adam_beta_1)
        self.adam_beta_2 = validation.beta("adam_beta_2", adam_beta_2)
        self.adam_weight_decay = checked_rate("adam_weight_decay", adam_weight_decay)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.adam_lr_ratio = validation.positive_float("adam_lr_ratio", adam_lr_ratio)
        self.exclude_layers = path_rules.patterns("exclude_layers", exclude_layers)
        self.exclude_embeddings = exclude_embeddings
        self.input_axes = path_rules.numbers("input_axes", input_axes, validation.positive_int)

    # What a method defines

    def make_matrix_state(self, variable: Variable, view: Any) -> dict[str, Any]:
        """The state of a matrix, whose view is given."""
        return {"momentum": self.add_state(variable, "momentum")}

    def matrix_steps(self, contexts: Sequence[UpdateContext], views: Sequence[Any]) -> list[Tensor]:
        """The step of each matrix at a learning rate of 1, in the shape of its variable."""
        raise NotImplementedError

    # Which variables are matrices

    def resolve_paths(self, variables: Sequence[Variable], find_roles: FindRoles) -> None:
        super().resolve_paths(variables, find_roles)
        taken = path_rules.included("exclude_layers", self.exclude_layers, variables, find_roles)
        rules = path_rules.first_match("input_axes", self.input_axes, variables, find_roles)
        axes = [self.input_axes.get(rule) if is_taken else None for rule, is_taken in zip(rules, taken, strict=True)]
        kinds = HIDDEN if self.exclude_embeddings else (*HIDDEN, "embedding")
        views = [
            hidden_matrix(role, n, kinds) if is_taken else None
            for role, n, is_taken in zip(find_roles(), axes, taken, strict=True)
        ]
        warn_of_guesses(find_roles(), axes, views)
        self._views: list[View | None] = self._in_parts(variables, views, find_roles)

    def _in_parts(self, variables: Sequence[Variable], views: Any, find_roles: FindRoles) -> list[View | None]:
        """The views with matrices for each head or block, where there are such rules."""
        if not (self.per_head or self.blocks):
            return views
        rules = path_rules.first_match("blocks", self.blocks, variables, find_roles)
        parts = [
            view and (self._by_head(role, view) if rule is None else in_blocks(role, view, self.blocks[rule]))
            for role, view, rule in zip(find_roles(), views, rules, strict=True)
        ]
        if self.per_head and parts == views:
            raise ValueError(
                "`per_head`: none of the variables is the projection of an attention layer with an axis for its heads. "
                "Where such a projection has two axes, set `blocks` to the number of heads. Received: per_head=True"
            )
        return parts

    def _by_head(self, role: Role, view: MatrixView) -> MatrixView:
        return by_head(role, view) if self.per_head else view

    def matrix_shape(self, variable: Variable) -> tuple[int, int] | None:
        """The numbers of inputs and outputs of a variable, or of each of its matrices; `None` if AdamW updates it."""
        view = self._views[keras_private.variable_index(self, variable)]
        return None if view is None else (view.inputs, view.outputs)

    def make_state(self, variable: Variable) -> dict[str, Any]:
        view = self._views[keras_private.variable_index(self, variable)]
        if view is not None:
            return self.make_matrix_state(variable, view)
        return {name: self.add_state(variable, name) for name in ("m", "v")}

    # The update

    def decay_rate_of(self, variable: Variable, weight_decay: Any) -> Any:
        return self._current_adam_decay() if self.matrix_shape(variable) is None else weight_decay

    def _current_adam_decay(self) -> Any:
        return self._current_decay(self.adam_weight_decay)

    def _update_variables(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable], learning_rate: Any
    ) -> None:
        places = [keras_private.variable_index(self, variable) for variable in trainable_variables]
        others = [v for v, place in zip(trainable_variables, places, strict=True) if not self.has_matrix(place)]
        if not self._has_kernel(others):
            super()._update_variables(grads, trainable_variables, learning_rate)
            return
        triples = [*zip(grads, trainable_variables, places, strict=True)]
        self._update_others([each for each in triples if not self.has_matrix(each[2])], learning_rate)
        matrices = [each for each in triples if self.has_matrix(each[2])]
        super()._update_variables([g for g, _, _ in matrices], [v for _, v, _ in matrices], learning_rate)

    def _has_kernel(self, variables: Sequence[Variable]) -> bool:
        """Return whether these variables, which are no matrices, are updated by the compiled `AdamW`."""
        rules = self._step_rule() or self.adaptive_clipping or self.z_clipping or self.gradient_centralization
        is_plain = not (rules or self.corrected_weight_decay or self.master_weights or self.stochastic_rounding)
        is_plain = is_plain and self.nonfinite == "propagate" and not self._waiting_places
        return bool(variables) and is_plain and kernels.reason_against(variables) is None

    def _update_others(self, triples: Sequence[tuple[Tensor, Variable, int]], learning_rate: Any) -> None:
        """Update by AdamW, all variables in one call."""
        gradients, variables, places = zip(*triples, strict=True)
        t = ops.cast(self.iterations, "float32") + 1
        parameters = {"gradient_scale": 1.0, **adamw_parameters(self.adam_beta_1, self.adam_beta_2, self.epsilon, t)}
        state = [[self._states[place][name] for name in ("m", "v")] for place in places]
        decay = self._current_adam_decay()
        decays = [self._decay_multipliers[i] if self._decayed[i] and decay is not None else 0.0 for i in places]
        multipliers = [self._multipliers[i] for i in places]
        rates = [
            ops.cast(learning_rate, "float32") * self.adam_lr_ratio * column(multipliers),
            ops.cast(0.0 if decay is None else decay, "float32") * column(decays),
            column([0.0] * len(places)),
        ]
        seed = ops.cast(np.zeros(2), "uint32")
        kernels.update("adamw", variables, state, gradients, ops.stack(rates, axis=-1), parameters, seed, False, [])

    def before_update(self, contexts: Sequence[UpdateContext]) -> dict[int, Tensor]:
        """The steps of the matrices, by the places of their variables."""
        pairs = [(ctx, view) for ctx in contexts if (view := self._views[ctx.index]) is not None]
        steps = self.matrix_steps([ctx for ctx, _ in pairs], [view for _, view in pairs])
        return {ctx.index: step for (ctx, _), step in zip(pairs, steps, strict=True)}

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        direction = ctx.shared[ctx.index] if self.has_matrix(ctx.index) else self._adam(g, state, ctx.t)
        return w - self.own_learning_rate(ctx) * (direction + ctx.weight_decay * w)

    def has_matrix(self, index: int) -> bool:
        """Return whether the variable of this index is updated as a matrix, rather than by AdamW."""
        return self._views[index] is not None

    def own_learning_rate(self, ctx: UpdateContext) -> Tensor:
        return ctx.learning_rate if self.has_matrix(ctx.index) else self.adam_lr_ratio * ctx.learning_rate

    def _adam(self, g: Tensor, state: OptimizerState, t: Tensor) -> Tensor:
        state.m = average(self.adam_beta_1, state.m, g)
        state.v = average(self.adam_beta_2, state.v, ops.square(g))
        v = state.v / bias_correction(self.adam_beta_2, t)
        return state.m / bias_correction(self.adam_beta_1, t) / (ops.sqrt(v) + self.epsilon)

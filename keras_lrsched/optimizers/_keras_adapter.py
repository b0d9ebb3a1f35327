"""Differences to the base class of Keras, apart from the formulas."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import backends, keras_private, path_rules
from keras_lrsched._core.backends import after
from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._low_precision import bytes_of, wide, wide_dtype
from keras_lrsched.optimizers._numerics import average
from keras_lrsched.schedules.per_update import refuse_per_update


class KerasAdapter(keras_private.OptimizerHooks):
    """A Keras optimizer whose gradients and averages are float32, and whose schedules count updates.

    The weight decay belongs to the formula. Accumulated gradients reach each variable that had one in any micro-step, and
    several replicas clip the sum of their gradients.
    """

    _waiting_places: Any = frozenset()  # in the list of variables, under accumulation

    lazy_embeddings = False

    _decayed: list[bool]

    # State

    def add_state(
        self,
        variable: Variable,
        name: str,
        shape: Sequence[int] | None = None,
        dtype: str | None = None,
        initializer: str = "zeros",
    ) -> Variable:
        """State of one variable, by default of its shape, float32 and zero."""
        own_shape = shape is None or tuple(shape) == tuple(variable.shape)
        return self.add_variable(
            shape=variable.shape if own_shape else shape,
            dtype=dtype or wide_dtype(variable.dtype),
            initializer=initializer,
            layout=keras_private.layout(variable) if own_shape else None,
            name=f"{path_rules.path(variable).replace('/', '_').replace(':', '_')}_{name}",
        )

    def add_scalar(self, name: str, value: Tensor = 0.0, dtype: str = "float32", shape: Sequence[int] = ()) -> Variable:
        """A number that all variables share, or several."""
        initializer = keras.initializers.Constant(value)
        return self.add_variable(shape, initializer, dtype, aggregation="only_first_replica", name=name)

    def add_variable_from_reference(
        self, reference_variable: Variable, name: str | None = None, initializer: str = "zeros"
    ) -> Variable:
        """State in float32 for accumulated gradients and averages, where Keras takes the dtype of the variable."""
        return self.add_state(reference_variable, name or "var", initializer=initializer)

    def state_bytes(self) -> int:
        """Number of bytes of the state: all but the counter of updates and the learning rate."""
        if not self.built:
            raise ValueError("The optimizer has no state yet: call `build(variables)` first.")
        counter, rate = keras_private.iterations(self), keras_private.learning_rate_setting(self)
        return sum(bytes_of(v) for v in self.variables if v is not counter and v is not rate)

    def state_bytes_per_parameter(self) -> float:
        """Number of bytes of the state for each parameter that is trained."""
        return self.state_bytes() / sum(math.prod(v.shape) for v in keras_private.trained_by(self))

    def _widen_learning_rate(self, value: Tensor) -> None:
        """Replace the learning rate of Keras, which is in `floatx`: two or three digits, if that has 16 bits."""
        narrow = keras_private.learning_rate_setting(self)
        if wide_dtype(narrow.dtype) != narrow.dtype:
            keras_private.remove_optimizer_variables(self, [narrow])
            keras_private.set_learning_rate_setting(self, self.add_scalar("learning_rate", value))

    # Weight decay

    def exclude_from_weight_decay(
        self, var_list: Sequence[Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Exclude variables from weight decay before the optimizer is built, as in Keras; here they are saved."""
        if self.built:
            raise ValueError("`exclude_from_weight_decay()` must be called before the optimizer is built.")
        exact = [f"^{re.escape(path_rules.path(variable))}$" for variable in var_list or ()]
        for variable in var_list or ():
            self._given.setdefault(path_rules.path(variable), []).append(id(variable))
        self._not_decayed += path_rules.patterns("var_names", [*(var_names or ()), *exact])

    def apply_gradients(
        self,
        grads_and_vars: Iterable[tuple[Tensor, Variable]],
        decay_var_list: Sequence[Variable | str] | None = None,
    ) -> Any:
        """Apply gradients, as in Keras.

        Args:
            grads_and_vars: Pairs of a gradient and a variable.
            decay_var_list: The variables that decay, or regular expressions for their paths; all others do not, which is
                saved as `exclude_from_weight_decay`. To be given in the first update, and no other one later. Defaults to
                `None`, for what the optimizer excludes itself.
        """
        pairs = list(grads_and_vars)
        if decay_var_list is not None:
            self._set_decay_list([variable for _, variable in pairs], decay_var_list)
        return super().apply_gradients(pairs)

    def _set_decay_list(self, variables: Sequence[Variable], chosen: Sequence[Variable | str]) -> None:
        words = path_rules.patterns("decay_var_list", [each for each in chosen if isinstance(each, str)])
        by_rule = path_rules.first_match("decay_var_list", words, variables)
        given = {id(each) for each in chosen if not isinstance(each, str)}
        decays = [rule is not None or id(v) in given for rule, v in zip(by_rule, variables, strict=True)]
        if not self.built:
            self.exclude_from_weight_decay([v for v, decayed in zip(variables, decays, strict=True) if not decayed])
            return
        known = [self._decayed[keras_private.variable_index(self, v)] for v in variables]
        changed = [path_rules.path(v) for v, old, new in zip(variables, known, decays, strict=True) if old != new]
        if changed:
            raise ValueError(
                "`decay_var_list` must be that of the first update. Received: another one, which differs for "
                f"{', '.join(changed)}"
            )

    def _refuse_shared_paths(self, variables: Sequence[Variable]) -> None:
        """Raise an error where one variable was given, and another one has its path, by which it is saved."""
        for path, given in self._given.items():
            same = [variable for variable in variables if path_rules.path(variable) == path]
            if 0 < sum(id(variable) in given for variable in same) < len(same):
                shapes = ", ".join(str(tuple(variable.shape)) for variable in same)
                raise ValueError(
                    f"`exclude_from_weight_decay()` was given one of {len(same)} variables with the path {path!r}, of "
                    f"shapes {shapes}. Give their layers names of their own."
                )

    # The update

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable] | None = None) -> None:
        if not self.built and trainable_variables:
            with keras.name_scope(self.name, caller=self):
                self.build(list(trainable_variables))  # variables cannot be made where something is waited for
        with after(grads):  # so do the counter and all scalars, which may not depend on the batch
            super().apply(grads, trainable_variables)

    def stateless_apply(
        self, optimizer_variables: Sequence[Tensor], grads: Sequence[Tensor], trainable_variables: Sequence[Variable]
    ) -> Any:
        if not grads:  # of a model that is frozen as a whole, for which the optimizer is not built
            return trainable_variables, optimizer_variables
        return super().stateless_apply(optimizer_variables, grads, trainable_variables)

    @keras.optimizers.Optimizer.learning_rate.setter
    def learning_rate(self, value: Tensor) -> None:
        refuse_per_update("The optimizer", "learning_rate", value)
        keras.optimizers.Optimizer.learning_rate.fset(self, value)

    def _current_learning_rate(self) -> Any:
        rate = keras_private.learning_rate_setting(self)
        return rate(self.iterations) if isinstance(rate, LearningRateSchedule) else super()._current_learning_rate()

    def _current_weight_decay(self) -> Any:
        """`None` if there is none."""
        return self._current_decay(self.weight_decay)

    def _current_decay(self, decay: Any) -> Any:
        if isinstance(decay, LearningRateSchedule):
            return decay(self.iterations)
        return None if decay is None or decay == 0 else decay

    def _apply_gradients(self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable]) -> None:
        if self.gradient_accumulation_steps and backends.replicas() > 1:
            raise ValueError(
                "TensorFlow accumulates no gradients on several replicas: leave `gradient_accumulation_steps` out. "
                f"Received: gradient_accumulation_steps={self.gradient_accumulation_steps}, {backends.replicas()} replicas"
            )
        pairs = [(g, v) for g, v in zip(grads, trainable_variables, strict=True) if 0 not in v.shape]
        if not pairs:
            return
        waiting = self._waiting([v for _, v in pairs])
        self._waiting_places = frozenset(keras_private.variable_index(self, v) for v in waiting)
        pairs = [self._wide_gradient(g, v) for g, v in pairs]
        pairs += [(ops.zeros(v.shape, wide_dtype(v.dtype)), v) for v in waiting]
        super()._apply_gradients([g for g, _ in pairs], [v for _, v in pairs])

    def _waiting(self, variables: Sequence[Variable]) -> list[Variable]:
        """The others, under accumulation: they may have had gradients in earlier micro-steps."""
        if not self.gradient_accumulation_steps:
            return []
        known = {keras_private.variable_key(self, variable) for variable in variables}
        others = [v for v in keras_private.trained_by(self) if keras_private.variable_key(self, v) not in known]
        return [v for v in others if 0 not in v.shape and not keras_private.is_overwritten_with_gradient(self, v)]

    def _wide_gradient(self, gradient: Tensor, variable: Variable) -> tuple[Tensor, Variable]:
        """A dense gradient in float32, and what it belongs to: the variable, or some of its rows."""
        accumulated = self.gradient_accumulation_steps or backends.replicas() > 1
        if self.lazy_embeddings and backends.is_sparse(gradient) and not accumulated:
            gradient, variable = backends.used_rows(gradient, variable)
        return ops.cast(backends.dense(gradient, variable), wide_dtype(variable.dtype)), variable

    def _clip(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """Clip the sum over replicas, where Keras clips the gradients of each."""
        return super()._clip(backends.sum_over_replicas(self, grads))

    def assign(self, variable: Variable, value: Tensor) -> None:
        if backends.replicas() > 1:
            backends.assign_on_each_replica(variable, value)
        else:
            super().assign(variable, value)

    def _update_averages(self, trainable_variables: Sequence[Variable]) -> None:
        """Move the averages towards the variables, in float32."""
        if self.use_ema:
            momentum = self.ema_momentum * ops.cast(ops.not_equal(self.iterations, 0), "float32")
            for variable, mean in zip(trainable_variables, keras_private.moving_averages(self), strict=True):
                if mean is not None:
                    old, value = wide(mean), wide(variable)
                    new = average(ops.cast(momentum, mean.dtype), old, value)
                    mean.assign(ops.where(ops.equal(old, value), old, new))  # exact where a variable stays

    def _assign_averages(self, trainable_variables: Sequence[Variable]) -> None:
        """Assign the averages to the variables; those that gradients overwrite have none."""
        means = keras_private.moving_averages(self)
        if all(mean is not None for mean in means):
            super()._assign_averages(trainable_variables)
            return
        for variable, mean in zip(trainable_variables, means, strict=True):
            if mean is not None:
                variable.assign(mean)

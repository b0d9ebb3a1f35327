"""Optimizers."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras.src.utils import tracking


def trained_by(optimizer: keras.optimizers.Optimizer) -> list:
    """The variables that an optimizer was built for.

    Relies on `Optimizer._trainable_variables`. Seen in Keras 3.10 to 3.15.
    """
    return list(getattr(optimizer, "_trainable_variables", None) or [])


def set_optimizer_variables(optimizer: keras.optimizers.Optimizer, variables: Iterable) -> None:
    """Make these the variables that an optimizer has by itself, in this order.

    They lie in a new list each time, since TensorFlow saves no list that something was removed from. Relies on `_variables`,
    `_untrack_variable`, `_track_variable` and `_tracker.config` of `BaseOptimizer`, and `tracking.DotNotTrackScope`. Seen in
    Keras 3.10 to 3.15.
    """
    variables = list(variables)
    for each in list(optimizer._variables):
        optimizer._untrack_variable(each)
    with tracking.DotNotTrackScope():
        optimizer._variables = []
    condition, _ = optimizer._tracker.config["variables"]
    optimizer._tracker.config["variables"] = (condition, optimizer._variables)
    for each in variables:
        optimizer._track_variable(each)


def own_optimizer_variables(optimizer: keras.optimizers.Optimizer) -> list:
    """The variables that an optimizer has by itself, without those of one inside. Relies on `_variables`, as above."""
    return list(optimizer._variables)


def remove_optimizer_variables(optimizer: keras.optimizers.Optimizer, variables: Iterable) -> None:
    """Remove some of them. Relies on the same."""
    gone = {id(variable) for variable in variables}
    set_optimizer_variables(optimizer, [each for each in optimizer._variables if id(each) not in gone])


def build_optimizer_anew(optimizer: keras.optimizers.Optimizer, variables: Iterable) -> None:
    """Build an optimizer that has made no step yet for other variables. Its rate, and what else it had before, stay.

    Relies on `build` adding to `_variables` and doing nothing while `built` is set. Seen in Keras 3.10 to 3.15.
    """
    within = [each for each in vars(optimizer).values() if isinstance(each, keras.optimizers.Optimizer)]
    for each in [optimizer, *within]:
        unbuilt = type(each).from_config(each.get_config())
        set_optimizer_variables(each, each._variables[: len(unbuilt._variables)])
        each._trainable_variables = []
        each.built = False
    optimizer.build(variables)


def distribution_strategy(optimizer: keras.optimizers.Optimizer) -> Any:
    """The strategy of `tf.distribute` that an optimizer was made in.

    Relies on `TFOptimizer._distribution_strategy`. Seen in Keras 3.10 to 3.15.
    """
    return optimizer._distribution_strategy


def all_reduced(optimizer: keras.optimizers.Optimizer, grads: Sequence) -> list:
    """The sums of gradients over all replicas, in a list.

    Relies on `TFOptimizer._all_reduce_sum_gradients`, which takes and returns pairs. Seen in Keras 3.10 to 3.15.
    """
    return [gradient for gradient, _ in optimizer._all_reduce_sum_gradients([(each, None) for each in grads])]


def disable_all_reduce(optimizer: keras.optimizers.Optimizer) -> None:
    """Let an optimizer take the gradients of each replica as they are. Relies on the same name as `all_reduced`."""
    vars(optimizer)["_all_reduce_sum_gradients"] = list


def iterations(optimizer: keras.optimizers.Optimizer) -> Any:
    """The variable that counts the batches an optimizer has been given; it is the updates without accumulation.

    Relies on `Optimizer._iterations`. Seen in Keras 3.10 to 3.15.
    """
    return optimizer._iterations


def set_iterations(optimizer: keras.optimizers.Optimizer, variable: Any) -> None:
    """Let an optimizer count with a variable, which does not become its own. Relies on the same as `iterations`."""
    optimizer._iterations = variable


def learning_rate_setting(optimizer: keras.optimizers.Optimizer) -> Any:
    """The learning rate that an optimizer has: a variable, a schedule or a function; `None` if it has none.

    Relies on `Optimizer._learning_rate`. Seen in Keras 3.10 to 3.15.
    """
    return vars(optimizer).get("_learning_rate")


def set_learning_rate_setting(optimizer: keras.optimizers.Optimizer, value: Any) -> None:
    """Put a variable or schedule in its place. Relies on the same as `learning_rate_setting`."""
    optimizer._learning_rate = value


def learning_rate_place(optimizer: keras.optimizers.Optimizer) -> tuple[dict, str]:
    """The dictionary and the key where the same is held. Relies on the same as `learning_rate_setting`."""
    return vars(optimizer), "_learning_rate"


def current_learning_rate(optimizer: keras.optimizers.Optimizer) -> Any:
    """The learning rate of the next update, as a number or tensor.

    Relies on `Optimizer._get_current_learning_rate`. Seen in Keras 3.10 to 3.15.
    """
    return optimizer._get_current_learning_rate()


def track_optimizer_variable(optimizer: keras.optimizers.Optimizer, variable: Any) -> None:
    """Let a variable be one of an optimizer's own. Relies on `Optimizer._track_variable`. Seen in Keras 3.10 to 3.15."""
    optimizer._track_variable(variable)


def set_trained_by(optimizer: keras.optimizers.Optimizer, variables: Iterable) -> None:
    """Make an optimizer built for variables, without any state. Each `build` of Keras does the same.

    Relies on `Optimizer._trainable_variables` and `_trainable_variables_indices`. Seen in Keras 3.10 to 3.15.
    """
    vars(optimizer).update(_trainable_variables=list(variables), built=True)
    optimizer._trainable_variables_indices.update({variable_key(optimizer, v): i for i, v in enumerate(variables)})


def variable_key(optimizer: keras.optimizers.Optimizer, variable: Any) -> Any:
    """A key by which an optimizer finds a variable that it trains. Relies on `Optimizer._var_key`. Keras 3.10 to 3.15."""
    return optimizer._var_key(variable)


def variable_index(optimizer: keras.optimizers.Optimizer, variable: Any) -> int:
    """The place of a variable among those that an optimizer was built for.

    Relies on `Optimizer._get_variable_index`. Seen in Keras 3.10 to 3.15.
    """
    return optimizer._get_variable_index(variable)


def check_variables_are_known(optimizer: keras.optimizers.Optimizer, variables: Iterable) -> None:
    """Raise an error if an optimizer was built without one of some variables.

    Relies on `Optimizer._check_variables_are_known`. Seen in Keras 3.10 to 3.15.
    """
    optimizer._check_variables_are_known(variables)


def is_overwritten_with_gradient(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Return `True` for a variable that gets a new value in the place of a gradient, as scales of float8 do.

    Relies on `Optimizer._overwrite_variable_with_gradient`. Seen in Keras 3.10 to 3.15.
    """
    return optimizer._overwrite_variable_with_gradient(variable)


def accumulated_gradients(optimizer: keras.optimizers.Optimizer) -> Any:
    """A list of the variables with sums of gradients under gradient accumulation.

    Relies on `Optimizer._accumulated_gradients`. Seen in Keras 3.10 to 3.15.
    """
    return optimizer._accumulated_gradients


def moving_averages(optimizer: keras.optimizers.Optimizer) -> Any:
    """A list of the averages of variables under `use_ema`; `None` for those that gradients overwrite.

    Relies on `Optimizer._model_variables_moving_average`. Seen in Keras 3.10 to 3.15.
    """
    return optimizer._model_variables_moving_average


def adam_moments(optimizer: keras.optimizers.Optimizer) -> tuple:
    """Lists of the first and second moments of Keras' Adam.

    Relies on `Adam._momentums` and `_velocities`. Seen in Keras 3.10 to 3.15.
    """
    return optimizer._momentums, optimizer._velocities


def replace_update_step(optimizer: keras.optimizers.Optimizer, update_step: Callable, update_all: Callable) -> None:
    """Let an optimizer of Keras update each variable by a function; and all of them, where it does so on PyTorch.

    Relies on `TorchParallelOptimizer._parallel_update_step`. Seen in Keras 3.10 to 3.15.
    """
    vars(optimizer).update(update_step=update_step, _parallel_update_step=update_all)


class OptimizerHooks(keras.optimizers.Optimizer):
    """The steps of `Optimizer.apply`, under names of our own, which subclasses override.

    Relies on `Optimizer` and the optimizer class of each backend calling `_backend_apply_gradients`, `_clip_gradients`,
    `_backend_update_step`, `_get_current_learning_rate`, `_update_model_variables_moving_average`,
    `_overwrite_model_variables_with_average_value` and `_apply_weight_decay`. Seen in Keras 3.10 to 3.15.
    """

    def _backend_apply_gradients(self, grads: Sequence, trainable_variables: Sequence) -> None:
        self._apply_gradients(grads, trainable_variables)

    def _apply_gradients(self, grads: Sequence, trainable_variables: Sequence) -> None:
        """Accumulate gradients, and clip and apply them when an update is due."""
        super()._backend_apply_gradients(grads, trainable_variables)

    def _clip_gradients(self, grads: Sequence) -> Any:
        return self._clip(grads)

    def _clip(self, grads: Sequence) -> Any:
        """Return clipped gradients."""
        return super()._clip_gradients(grads)

    def _backend_update_step(self, grads: Sequence, trainable_variables: Sequence, learning_rate: Any) -> None:
        self._update_variables(grads, trainable_variables, learning_rate)

    def _update_variables(self, grads: Sequence, trainable_variables: Sequence, learning_rate: Any) -> None:
        """Update all variables."""
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _get_current_learning_rate(self) -> Any:
        return self._current_learning_rate()

    def _current_learning_rate(self) -> Any:
        """Return the learning rate of the next update."""
        return super()._get_current_learning_rate()

    def _update_model_variables_moving_average(self, trainable_variables: Sequence) -> None:
        self._update_averages(trainable_variables)

    def _update_averages(self, trainable_variables: Sequence) -> None:
        """Move the averages of `use_ema` towards the variables."""
        super()._update_model_variables_moving_average(trainable_variables)

    def _overwrite_model_variables_with_average_value(self, trainable_variables: Sequence) -> None:
        self._assign_averages(trainable_variables)

    def _assign_averages(self, trainable_variables: Sequence) -> None:
        """Assign the averages of `use_ema` to the variables."""
        super()._overwrite_model_variables_with_average_value(trainable_variables)

    def _apply_weight_decay(self, variables: Iterable) -> None:
        """Do nothing: weight decay belongs to the formula of each method."""


class LossScaleHooks(keras.optimizers.LossScaleOptimizer):
    """The steps of `LossScaleOptimizer` with finite gradients and with others, which subclasses define.

    Relies on `_common_apply`, the `cond` within it, and the methods `_stateful_handle_finite_grads`,
    `_stateful_handle_non_finite_grads`, `_stateless_handle_finite_grads` and `_stateless_handle_non_finite_grads` that it
    and `stateless_apply` call. Seen in Keras 3.10 to 3.15.
    """

    def _apply_finite(self, grads: Sequence, trainable_variables: Sequence | None) -> None:
        """Apply gradients, and raise the scale when it is due."""
        raise NotImplementedError

    def _skip_step(self) -> None:
        """Lower the scale."""
        raise NotImplementedError

    def _common_apply(self, grads: Sequence, trainable_variables: Sequence | None = None) -> None:
        if keras.backend.backend() != "jax":
            super()._common_apply(grads, trainable_variables)
        elif self.check_finite(grads):  # `cond` of JAX takes functions that assign nothing
            self._apply_finite(grads, trainable_variables)
        else:
            self._skip_step()

    def _stateful_handle_finite_grads(self, grads: Sequence, trainable_variables: Sequence | None) -> None:
        self._apply_finite(grads, trainable_variables)

    def _stateful_handle_non_finite_grads(self) -> None:
        self._skip_step()

    def _stateless_handle_finite_grads(
        self, optimizer_variables: Any, grads: Sequence, trainable_variables: Sequence
    ) -> Any:
        return self._stateless(lambda: self._apply_finite(grads, None), optimizer_variables, trainable_variables)

    def _stateless_handle_non_finite_grads(self, optimizer_variables: Any, trainable_variables: Sequence) -> Any:
        return self._stateless(self._skip_step, optimizer_variables, trainable_variables)

    def _stateless(self, change: Callable, state: Sequence, weights: Sequence) -> tuple:
        """The weights and the state after `change`, which assigns to variables, as values."""
        variables = [*self._trainable_variables, *self.variables]
        with keras.StatelessScope(state_mapping=list(zip(variables, [*weights, *state], strict=True))) as scope:
            change()
        values = [scope.get_current_value(variable) for variable in variables]
        return values[: len(weights)], values[len(weights) :]

"""The base of callbacks that compute with the gradients of each step, which Keras passes to no callback."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import backends, keras_private, training_loop
from keras_lrsched._core.training_loop import inner_optimizer, optimizer_value, step_hooks
from keras_lrsched.callbacks import _gradient_hook
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.optimizers import LocalUpdates


class GradientController(Controller):
    """Base of callbacks whose `before_apply` and `after_apply` are part of the compiled training step.

    While `fit` runs, they surround the optimizer's `apply`: at every batch, inside of a `LossScaleOptimizer`, which leaves
    out the batches whose gradients are not finite. What they keep from one batch to the next, or pass to other hooks, lies
    in variables that `begin` makes by `add_variable`. For the compiled step these belong to the optimizer; no file and no
    `Snapshot` holds them, the state of the callback does.

    Both may read and assign any variable, also `self.rate`, the learning rate that the update uses. All they do must be
    `keras.ops`: they are called once, when the step is traced, and then never again. A further `fit` of the model with equal
    callbacks uses the same compiled step, if they name in `step_settings` all that it depends on.

    On TensorFlow, the step waits for its batch. So Keras' optimizers, and the seeds of dropout, do not count the step
    without a batch that ends data of unknown length, which they do without such a callback.

    The training step may be the model's own, as long as it calls `apply` or `apply_gradients` of `model.optimizer`, also for
    a part of the weights.

    A subclass that overrides `begin`, `set_model`, `on_train_begin`, `on_train_batch_end`, `on_train_end`, `state` or
    `restore_state` calls `super()`.

    Args:
        monitor: As in `Controller`. Defaults to `()`.

    Attributes:
        rate: The variable of the learning rate, within `before_apply` and `after_apply`.

    Raises:
        ValueError: When `fit` begins, as `Controller`; if the model has several optimizers; if each replica makes its own
            update. After the first batch, if the training step has not called the optimizer.
    """

    step_settings: tuple[str, ...] | None = None
    """The names of the attributes that `before_apply` and `after_apply` read, but for variables. With `None` the step is
    compiled anew for each `fit`."""

    is_in_step = False
    """Whether the compiled step has called the hook, or is one that has."""

    counts_batches = True
    _trainer: Any = None

    def __init__(self, monitor: str | Sequence[str] = ()) -> None:
        super().__init__(monitor)
        self._variables: dict[str, keras.Variable] = {}

    def before_apply(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        """In the compiled step, before the optimizer gets the gradients of a batch.

        Args:
            gradients: Float32 tensors or wider: not clipped yet, without the factor of a loss scale. Under gradient
                accumulation, those of this batch; `of_update` returns what the update will use.
            variables: The `keras.Variable`s they belong to, in the same order; those without a gradient are left out.
        """

    def after_apply(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        """In the compiled step, after the optimizer has changed the variables, or has accumulated the gradients."""

    def begin(self) -> None:
        self.leave_step()
        self._refuse_several_optimizers()
        is_local = any(isinstance(each, LocalUpdates) for each in _gradient_hook.wrappers(self.model.optimizer))
        if is_local and backends.replicas_of(self.model) > 1:
            raise ValueError(
                f"{type(self).__name__} needs one gradient for all replicas. Received: a LocalUpdates optimizer"
            )
        self._trainer = self.model  # on JAX, each look at `self.model` takes all state out of the compiled step
        if training_loop.epoch_iterator() is not None:
            training_loop.build(self._trainer)  # so that the optimizer has its own variables before those of callbacks
        _gradient_hook.add(self._trainer, self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        step_hooks.make_step(self._trainer)  # now that all variables are there

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.is_in_step:
            self._refuse_a_step_without_it()
        super().on_train_batch_end(batch, logs)

    @property
    def step_key(self) -> tuple | None:
        """The settings that the compiled step depends on, beside the model; see `training_loop`."""
        if self.step_settings is None:
            return None
        return (type(self), *(getattr(self, name) for name in self.step_settings))

    @property
    def step_variables(self) -> dict[str, keras.Variable]:
        return self._variables

    def add_variable(
        self, name: str, shape: Sequence[int] = (), dtype: str = "float32", initializer: Any = "zeros"
    ) -> keras.Variable:
        """A variable of the compiled step, to be called in `begin`, after `super().begin()`."""
        variable = step_hooks.variables_to_reuse(self._trainer, self).get(name)
        if variable is not None and (tuple(variable.shape), variable.dtype) == (tuple(shape), dtype):
            keras_private.track_optimizer_variable(self.optimizer, variable)
            variable.assign(keras.initializers.get(initializer)(shape, dtype=dtype))
        else:
            name_there = f"{type(self).__name__}_{name}"
            with backends.strategy_scope(self.optimizer):
                variable = self.optimizer.add_variable(
                    shape, initializer, dtype, aggregation="only_first_replica", name=name_there
                )
            variable.of_callback = True
        self._variables[name] = variable
        return variable

    def build_optimizer(self) -> None:
        """Create the variables of the model and the optimizer, for a `begin` that needs them; before `super().begin()`."""
        training_loop.build(self.model)
        if not self.optimizer.built:
            raise ValueError(
                f"{type(self).__name__} needs the optimizer's variables: call `optimizer.build(variables)` first. "
                f"Received: model={self.model.name!r}, whose optimizer has none"
            )

    def read(self, variable: keras.Variable) -> Any:
        """The value of a variable of the compiled step, between two steps."""
        return optimizer_value(self._trainer, variable)

    def applied(self) -> int:
        """The number of batches that the optimizer was called with, over all `fit`s."""
        return int(self.read(keras_private.iterations(inner_optimizer(self._trainer.optimizer))))

    @property
    def accumulation_steps(self) -> int:
        """The number of batches in an update."""
        return inner_optimizer(self._trainer.optimizer).gradient_accumulation_steps or 1

    @property
    def rate(self) -> keras.Variable:
        return keras_private.learning_rate_setting(inner_optimizer(self._trainer.optimizer))

    def of_update(self, gradients: list[Any], variables: list[keras.Variable]) -> list[Any]:
        """The mean of the gradients accumulated so far and these: after the last batch of an update, what that uses."""
        optimizer = inner_optimizer(self._trainer.optimizer)
        steps = optimizer.gradient_accumulation_steps
        if not steps:
            return gradients
        places = [keras_private.variable_index(optimizer, each) for each in variables]
        sums = [keras_private.accumulated_gradients(optimizer)[place] for place in places]
        return [(g + ops.cast(s, g.dtype)) / steps for g, s in zip(gradients, sums, strict=True)]

    def state(self) -> dict[str, Any]:
        return {**super().state(), "variables": {name: self.read(each) for name, each in self._variables.items()}}

    def restore_state(self, state: dict[str, Any]) -> None:
        values = state["variables"]
        super().restore_state({name: value for name, value in state.items() if name != "variables"})
        for name, value in values.items():
            self._variables[name].assign(value)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        step_hooks.remove_left_hooks(model)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.leave_step()

    def leave_step(self) -> None:
        """Remove the hook from the training step."""
        if self._trainer is not None:
            _gradient_hook.remove(self._trainer, self, list(self._variables.values()))
            self._trainer, self._variables, self.is_in_step = None, {}, False

    def _refuse_a_step_without_it(self) -> None:
        scaled = isinstance(self._trainer.optimizer, keras.optimizers.LossScaleOptimizer)  # which may leave out a batch
        self.is_in_step = scaled or step_hooks.is_step_reused(self._trainer)
        if not self.is_in_step:
            raise ValueError(
                f"{type(self).__name__} works with the gradients that `model.optimizer` gets, but the training step of the "
                f"model calls neither `apply` nor `apply_gradients` of it. Received: model={type(self._trainer).__name__}"
            )

    def _refuse_several_optimizers(self) -> None:
        others = training_loop.other_optimizers(self.model)
        if others:
            raise ValueError(
                f"{type(self).__name__} works with the gradients of one optimizer. Received: model.optimizer and "
                f"{', '.join(others)}"
            )


def global_square(tensors: Any) -> Any:
    """The sum of the squares of all entries."""
    return sum(ops.sum(ops.square(each)) for each in tensors)

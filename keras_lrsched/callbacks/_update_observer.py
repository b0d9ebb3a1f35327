"""Learning rates and scheduled settings that each step used, observed once for all callbacks that record them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import backends, keras_private, training_loop
from keras_lrsched._core.training_loop import inner_optimizer, optimizer_value, step_hooks
from keras_lrsched.callbacks import _gradient_hook
from keras_lrsched.callbacks._settings import Setting, callbacks_in
from keras_lrsched.optimizers.optimizer import Optimizer
from keras_lrsched.schedules.schedule import compute

MAIN = "optimizer.learning_rate"
"""The learning rate of `model.optimizer`, among `UpdateObserver.targets`."""


class Update(NamedTuple):
    """A step of an optimizer, or of several that make one in the same batch."""

    step: int
    """The steps that were made before."""
    used: dict
    """By target, what `UpdateObserver.values` makes a value of; learning rates of optimizers without a step are absent."""


class UpdateObserver(keras.callbacks.Callback):
    """Observer of what the optimizers of a model used in each batch.

    It is placed before all other callbacks, so that none of them has changed anything since the step was run. A learning
    rate that is a variable is read after the step; one that follows a schedule is computed from the optimizer's counter as
    it is after the step; one that is a function is stored by the compiled step itself.

    An optimizer that is wrapped (`LossScaleOptimizer`, `Lookahead`) counts as the inner one. A step that is left out,
    because gradients are not finite, is no update. Under gradient accumulation each batch is a step, with the value that
    the optimizer has at that batch: the last batch of an update has what the update uses.

    Attributes:
        updates: The `Update`s of the last batch, or of the last `steps_per_execution` batches.

    Raises:
        ValueError: When `fit` begins, if a learning rate that is a function cannot be observed: of an optimizer other than
            `model.optimizer`, or if `steps_per_execution` is above 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[Update] = []
        self._sources: dict[str, _Source] = {}
        self._function_rate: _FunctionRate | None = None

    def __reduce__(self) -> tuple:
        return type(self), ()  # a copy of a recorder observes another `fit`

    @classmethod
    def of(cls, model: keras.Model) -> "UpdateObserver":
        """The observer of the `fit` that a callback is part of; to be called in its `set_model`."""
        present = [it for it in getattr(training_loop.callback_list(), "callbacks", ()) if isinstance(it, cls)]
        if present:
            return present[0]
        observer = cls()
        observer.set_model(model)
        training_loop.place_first(observer)
        return observer

    @property
    def targets(self) -> list[str]:
        """The paths of all learning rates and scheduled settings."""
        return list(self._sources)

    @property
    def learning_rates(self) -> list[str]:
        """The paths of the learning rates of optimizers that have made a step in this `fit`."""
        return [f"{path}.learning_rate" for path, it in self._optimizers.items() if id(it) in self._active]

    def values(self, target: str, used: list[float]) -> list[float]:
        """Floats, from entries of `Update.used` of the current epoch."""
        formula = self._sources[target].formula
        return list(used) if formula is None or not used else formula(np.array(used)).tolist()

    def last(self, target: str) -> float:
        """The value that the last batch used, or would have used if its step had not been skipped."""
        rows = max(len(self.updates), 1)
        return self.values(target, [self._used(target, rows - 1, rows)])[0]

    def counter(self) -> int:
        """The steps that `model.optimizer` has made, over all `fit`s."""
        optimizer = inner_optimizer(self._trainer.optimizer)
        return 0 if optimizer is None else int(optimizer_value(self._trainer, keras_private.iterations(optimizer)))

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._trainer: Any = model  # on JAX, each look at `self.model` takes all state out of the compiled step
        step_hooks.remove_left_hooks(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.updates = []
        self._sources = {}
        self._active: set[int] = set()
        functions = [path for path, it in optimizers_of(self._trainer).items() if _is_function(_rate(it))]
        if functions:
            _refuse_functions(self._trainer, functions)
            self._function_rate = _FunctionRate(self._trainer)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Find what may have been set since: optimizers, their learning rates, `ScheduleHyperparameter`s."""
        main = inner_optimizer(self._trainer.optimizer)
        self._optimizers = optimizers_of(self._trainer)
        self._counted = {id(it): it for it in (main, *self._optimizers.values()) if it is not None}
        self._sources = {f"{path}.learning_rate": self._source(it) for path, it in self._optimizers.items()}
        for callback in callbacks_in(self._trainer):
            self._counted[id(callback.counter)] = callback.counter
            formula = _per_update(callback.counter, callback.value)
            self._sources[self._target(callback)] = _Source(callback.counter, formula, at_batch=True)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Where Keras does not know the length of the data, this is called once more than `on_train_batch_end`.
        if not self._sources:
            self.on_epoch_begin(0)
        self._first_batch, self._before = batch, self._counters()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._batches = batch - self._first_batch + 1
        self._after = self._counters()
        self._made = {it: self._steps_made(it) for it in self._counted}
        self._active |= {it for it, made in self._made.items() if made}
        variables = {target: it.variable for target, it in self._sources.items() if it.variable is not None}
        self._numbers = {target: float(optimizer_value(self._trainer, each)) for target, each in variables.items()}
        leader = max(self._made, key=lambda it: self._made[it], default=-1)
        rows = self._made.get(leader, 0)
        present = [target for target, it in self._sources.items() if it.at_batch or self._made[id(it.optimizer)]]
        self.updates = [
            Update(self._after[leader] - rows + row, {target: self._used(target, row, rows) for target in present})
            for row in range(rows)
        ]

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._function_rate is not None:
            self._function_rate.leave_step()
            self._function_rate = None

    def state(self) -> dict[str, Any]:
        """Nothing: what a resumed run observes, it observes anew."""
        return {}

    def restore_state(self, state: dict[str, Any]) -> None:
        pass

    def _source(self, optimizer: keras.optimizers.Optimizer) -> "_Source":
        rate = _rate(optimizer)
        if isinstance(rate, LearningRateSchedule):
            if isinstance(optimizer, Optimizer):  # those of Keras count batches here
                return _Source(optimizer, _per_update(optimizer, lambda updates: compute(rate, updates, np)))
            return _Source(optimizer, lambda steps: compute(rate, steps, np))
        if _is_function(rate) and self._function_rate is not None:
            return _Source(optimizer, variable=self._function_rate.variable)
        return _Source(optimizer, variable=rate)

    def _target(self, callback: Any) -> str:
        """The path of the setting of a `ScheduleHyperparameter`, for a learning rate by the path of its optimizer here."""
        if callback.target.endswith(".learning_rate"):
            owner = Setting(self._trainer, callback.target).owner
            return next(f"{path}.learning_rate" for path, optimizer in self._optimizers.items() if optimizer is owner)
        return callback.target

    def _counters(self) -> dict[int, int]:
        return {key: int(optimizer_value(self._trainer, keras_private.iterations(it))) for key, it in self._counted.items()}

    def _steps_made(self, key: int) -> int:
        made = self._after[key] - self._before[key]
        return made if made >= 0 else self._batches  # a callback has set the counter back before the step

    def _used(self, target: str, row: int, rows: int) -> Any:
        """The value of a target in step number `row` of the `rows` that the most active optimizer made."""
        source = self._sources[target]
        if source.variable is not None:
            return self._numbers[target]
        made, after = self._made[id(source.optimizer)], self._after[id(source.optimizer)]
        if not made:
            return after
        place = -(-(row + 1) * made // rows) - 1
        if source.at_batch:
            place -= place % max(made // self._batches, 1)
        return after - made + place


@dataclass
class _Source:
    """The source of the values of a target: a variable, or a formula of the steps that an optimizer has made."""

    optimizer: Any
    formula: Callable | None = None
    variable: Any = None
    at_batch: bool = False
    """Whether the formula is of the steps before the batch, even if the optimizer makes several in a batch."""


class _FunctionRate:
    """Variable in which the compiled step stores the value of a learning rate that is a function."""

    def __init__(self, model: keras.Model) -> None:
        self._model, self._optimizer = model, inner_optimizer(model.optimizer)
        _gradient_hook.add(model, self)
        with backends.strategy_scope(self._optimizer):
            self.variable = self._optimizer.add_variable(
                (), "zeros", "float32", aggregation="only_first_replica", name="used_learning_rate"
            )
        self.variable.of_callback = True
        step_hooks.make_step(model)

    def before_apply(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        self.variable.assign(ops.cast(keras_private.current_learning_rate(self._optimizer), "float32"))

    def after_apply(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        pass

    def leave_step(self) -> None:
        _gradient_hook.remove(self._model, self, [self.variable])


def optimizers_of(model: keras.Model) -> dict[str, Any]:
    """The optimizers that update weights, by their paths: those inside of wrappers, and of a `MultiOptimizer` its parts."""
    found: dict[str, Any] = {}
    for path, holder in training_loop.optimizers_of(model).items():
        for end, each in _parts(inner_optimizer(holder)):
            if all(each is not it for it in found.values()):
                found[path + end] = each
    return found


def _parts(optimizer: keras.optimizers.Optimizer) -> list[tuple[str, Any]]:
    if not isinstance(optimizer, keras_private.existing(keras.optimizers, "MultiOptimizer")):
        return [("", optimizer)]
    parts = optimizer.optimizers
    names = [it.name for it in parts]
    unique = len(set(names)) == len(names)
    return [(f".optimizers.{it.name if unique else i}", inner_optimizer(it)) for i, it in enumerate(parts)]


def _rate(optimizer: keras.optimizers.Optimizer) -> Any:
    return keras_private.learning_rate_setting(optimizer)


def _is_function(rate: Any) -> bool:
    return callable(rate) and not isinstance(rate, (LearningRateSchedule, keras.Variable))


def _per_update(optimizer: keras.optimizers.Optimizer, formula: Callable) -> Callable:
    """A formula of the updates of an optimizer, as one of its steps, of which an update may take several."""
    batches = getattr(optimizer, "gradient_accumulation_steps", None) or 1
    return lambda steps: formula(steps // batches)


def _refuse_functions(model: keras.Model, paths: list[str]) -> None:
    others = [path for path in paths if path != "optimizer"]
    if others:
        raise ValueError(
            "A learning rate that is a function can be observed in `model.optimizer` only: give a float or a schedule. "
            f"Received: a function as the learning rate of {', '.join(others)}"
        )
    if model.steps_per_execution != 1:
        raise ValueError(
            "With `steps_per_execution` above 1, a learning rate that is a function cannot be observed: give a float or a "
            f"schedule. Received: steps_per_execution={model.steps_per_execution}"
        )

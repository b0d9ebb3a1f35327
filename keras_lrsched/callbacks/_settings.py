"""Numeric settings of a compiled model by dotted path, and their replacement within the training step."""

import difflib
import inspect
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import keras_private
from keras_lrsched._core.training_loop import step_hooks
from keras_lrsched.schedules._arrays import float_dtype


class Setting:
    """One number that training reads: where it is kept, and how to exchange it.

    Attributes:
        owner: The optimizer, layer, loss, ... that has it.
        value: A float or an int, a scalar `keras.Variable`, or `None` for a weight decay that is off.
        optimizer: The innermost optimizer on the way to it, or `None`.

    Raises:
        ValueError: If there is no such setting, or none that may change while a model is trained.
    """

    def __init__(self, model: keras.Model, path: str) -> None:
        *parents, self.name = path.split(".")
        self.path = path
        self.owner, self.optimizer = model, None
        for part in parents:
            self.owner = self._child(self.owner, part)
            if isinstance(self.owner, keras.optimizers.Optimizer):
                self.optimizer = self.owner
        self._places = [place for place in _places(self.owner, self.name) if place[1] in place[0]]
        if not self._places:
            names = [name for name in _names(self.owner) if _is_number(self.owner, name)]
            raise self._missing("numeric setting", self.name, names)
        holder, key = self._places[0]
        self.value = holder[key]
        self._check()

    def exchange(self, stand_in: Any) -> None:
        """Put anything in the place of the value, bypassing what the owner does when an attribute is set."""
        for holder, key in self._places:
            holder[key] = stand_in

    def write(self, number: float) -> None:
        """Set the value itself."""
        if isinstance(self.value, keras.Variable):
            self.value.assign(number)
        else:
            self.value = number
            self.exchange(number)

    def _child(self, owner: Any, part: Any) -> Any:
        if isinstance(owner, (list, tuple)):
            children = {getattr(item, "name", str(i)): item for i, item in enumerate(owner)}
            children |= {part: owner[int(part)]} if part.isdecimal() and int(part) < len(owner) else {}
        elif isinstance(owner, dict):
            children = owner
        else:
            children = {name: getattr(owner, name, None) for name in {part, *_names(owner)}}
        child = children.get(part)
        if child is None:
            raise self._missing("part", part, [name for name, item in children.items() if _has_settings(item)])
        while hasattr(child, "inner_optimizer"):
            child = child.inner_optimizer
        return child

    def _check(self) -> None:
        kind = type(self.owner).__name__
        if isinstance(self.value, LearningRateSchedule):
            raise ValueError(
                f"`{self.path}` already follows a schedule: give {kind} a float instead. Received: {self.value!r}"
            )
        if not _is_number(self.owner, self.name):
            raise ValueError(
                f"`{self.path}` is not a number that may change in training: construct {kind} with a float. "
                f"Received: {self.name}={self.value!r}"
            )
        if self._is_off():
            raise ValueError(
                f"`{self.path}` must not start at 0: {kind} is then built without what it needs for other values. "
                f"Construct it with any positive number. Received: {self.name}={self.value!r}"
            )

    def _is_off(self) -> bool:
        if isinstance(self.value, keras.Variable) or self.value != 0:
            return False
        if isinstance(self.owner, keras.optimizers.Optimizer):
            return self.name in getattr(self.owner, "state_settings", ("momentum",))
        return hasattr(self.owner, "seed") and not hasattr(self.owner, "seed_generator")

    def _missing(self, what: str, part: Any, names: Any) -> ValueError:
        close = difflib.get_close_matches(part, names, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        if isinstance(self.owner, str):
            hint = " Compile the model with an object, such as `keras.losses.CategoricalCrossentropy()`."
        has = ", ".join(sorted(set(names))) or "none"
        return ValueError(
            f"There is no {what} `{part}` in {type(self.owner).__name__}.{hint} It has: {has}. "
            f"Received: target={self.path!r}"
        )


def _names(owner: Any) -> list[str]:
    """The names of what an object has, as far as they are public."""
    names = [name for name in getattr(owner, "__dict__", ()) if not name.startswith("_")]
    if isinstance(owner, keras.Model):
        names += ["layers", "loss", "optimizer"]
    if isinstance(owner, keras.optimizers.Optimizer):
        names.append("learning_rate")
    return [*names, *keras_private.function_arguments(owner)]


def _places(owner: Any, name: str) -> list[tuple[dict, str]]:
    """The dictionaries that may hold a setting: two for a loss, of which one is for its configuration only."""
    attributes = getattr(owner, "__dict__", {})
    if isinstance(owner, keras.optimizers.Optimizer) and name == "learning_rate":
        return [keras_private.learning_rate_place(owner)]
    return [(keras_private.function_arguments(owner), name), (attributes, name)]


def _is_number(owner: Any, name: str) -> bool:
    """Whether it is a float, or may be one.

    An int may where the constructor's default is a float: `label_smoothing=0`, but not `units=8`. `None` may for a weight
    decay, which Keras looks up at each update.
    """
    value = next((holder[key] for holder, key in _places(owner, name) if key in holder), "absent")
    if value is None:
        return name == "weight_decay" and isinstance(owner, keras.optimizers.Optimizer)
    if isinstance(value, keras.Variable):
        return tuple(value.shape) == () and "float" in value.dtype and not value.trainable
    if isinstance(value, int) and not isinstance(value, bool):
        parameter = inspect.signature(type(owner)).parameters.get(name)
        return parameter is not None and isinstance(parameter.default, float)
    return isinstance(value, float)


def _has_settings(item: Any) -> bool:
    return hasattr(item, "get_config") or (isinstance(item, (list, tuple, dict)) and len(item) > 0)


def callbacks_in(model: keras.Model) -> list[Any]:
    """The `ScheduleHyperparameter` callbacks that are active in a model."""
    return [hook for hook in step_hooks.hooks(model) if hasattr(hook, "target")]


def is_in_state(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the training step gets the counter of an optimizer: on JAX, it gets all state as arguments."""
    state = [*model.optimizer.variables, *model.non_trainable_variables]
    return keras.backend.backend() != "jax" or any(each is keras_private.iterations(optimizer) for each in state)


def updates(model: keras.Model, optimizer: keras.optimizers.Optimizer, args: tuple) -> Any:
    """The number of updates of an optimizer so far, as a tensor. JAX passes all state as the first argument of a step."""
    if keras.backend.backend() != "jax":
        return ops.convert_to_tensor(optimizer.iterations)
    _, others, optimizer_variables, _ = args[0]
    values = [
        *zip(model.optimizer.variables, optimizer_variables, strict=True),
        *zip(model.non_trainable_variables, others, strict=True),
    ]
    with keras.StatelessScope(state_mapping=values):
        return ops.convert_to_tensor(optimizer.iterations)


class StandIn(keras.Variable):
    """A scalar variable for all that Keras and its backends do with one, whose value is any tensor it is given.

    A comparison with a Python number is decided when the step is traced, once for all steps, with the result for 0.5.
    """

    _tensor = None
    _was_read = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing has read what it was given in any step."""
        return self._tensor is not None and not self._was_read

    def __init__(self) -> None:
        super().__init__(0.5, dtype=float_dtype(), trainable=False, name="scheduled")

    def hold(self, tensor: Any) -> None:
        self._tensor = tensor

    @property
    def value(self) -> Any:
        if self._tensor is None:
            return super().value
        self._was_read = True
        return keras_private.autocast(self, self._tensor)

    def get_shape(self) -> Any:  # what TensorFlow asks of a tensor
        return self.value.shape

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: Any) -> Any:
        return self._compared("__eq__", other)

    def __ne__(self, other: Any) -> Any:
        return self._compared("__ne__", other)

    def __lt__(self, other: Any) -> Any:
        return self._compared("__lt__", other)

    def __le__(self, other: Any) -> Any:
        return self._compared("__le__", other)

    def __gt__(self, other: Any) -> Any:
        return self._compared("__gt__", other)

    def __ge__(self, other: Any) -> Any:
        return self._compared("__ge__", other)

    __hash__ = object.__hash__

    def _compared(self, comparison: str, other: Any) -> Any:
        if isinstance(other, (int, float)):
            return getattr(0.5, comparison)(float(other))
        return getattr(super(), comparison)(other)

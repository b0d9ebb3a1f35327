"""A numeric setting of a compiled model, found by a dotted path such as `"optimizer.weight_decay"`."""

import difflib
import inspect

import keras
from keras.optimizers.schedules import LearningRateSchedule


class Setting:
    """One number that training reads: where it is kept, and how to exchange it.

    Attributes:
        owner: The optimizer, layer, loss, ... that has it.
        value: A float or an int, a scalar `keras.Variable`, or `None` for a weight decay that is off.
        optimizer: The innermost optimizer on the way to it, or `None`.

    Raises:
        ValueError: If there is no such setting, or none that may change while a model is trained.
    """

    def __init__(self, model, path):
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

    def exchange(self, stand_in):
        """Puts anything in the place of the value, past what the owner does when an attribute is set."""
        for holder, key in self._places:
            holder[key] = stand_in

    def write(self, number):
        """Sets the value for good."""
        if isinstance(self.value, keras.Variable):
            self.value.assign(number)
        else:
            self.value = number
            self.exchange(number)

    def _child(self, owner, part):
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

    def _check(self):
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

    def _is_off(self):
        if isinstance(self.value, keras.Variable) or self.value != 0:
            return False
        if isinstance(self.owner, keras.optimizers.Optimizer):
            return self.name in getattr(self.owner, "slot_settings", ("momentum",))
        return hasattr(self.owner, "seed") and not hasattr(self.owner, "seed_generator")

    def _missing(self, what, part, names):
        close = difflib.get_close_matches(part, names, n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        if isinstance(self.owner, str):
            hint = " Compile the model with an object, such as `keras.losses.CategoricalCrossentropy()`."
        has = ", ".join(sorted(set(names))) or "none"
        return ValueError(
            f"There is no {what} `{part}` in {type(self.owner).__name__}.{hint} It has: {has}. "
            f"Received: target={self.path!r}"
        )


def _names(owner):
    """The names of what an object has, as far as they are public."""
    names = [name for name in getattr(owner, "__dict__", ()) if not name.startswith("_")]
    if isinstance(owner, keras.Model):
        names += ["layers", "loss", "optimizer"]
    if isinstance(owner, keras.optimizers.Optimizer):
        names.append("learning_rate")
    return [*names, *getattr(owner, "_fn_kwargs", ())]


def _places(owner, name):
    """The dictionaries that may hold a setting: two for a loss, of which one is for its configuration only."""
    attributes = getattr(owner, "__dict__", {})
    if isinstance(owner, keras.optimizers.Optimizer) and name == "learning_rate":
        return [(attributes, "_learning_rate")]
    return [(getattr(owner, "_fn_kwargs", {}), name), (attributes, name)]


def _is_number(owner, name):
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


def _has_settings(item):
    return hasattr(item, "get_config") or (isinstance(item, (list, tuple, dict)) and len(item) > 0)

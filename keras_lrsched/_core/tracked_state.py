"""All state that hangs on the objects of a run: variables, generators of random numbers, values that training changes.

Keras tracks the variables of a model and of its optimizer. Programs have more: further optimizers, states of recurrent
layers, counters, queues, generators, attributes of callbacks and of data sets. `TrackedState` finds them by walking over
attributes and containers, and over the names that functions of the user refer to.
"""

import collections
import collections.abc
import functools
import hashlib
import io
import pickle
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lrsched._core import keras_private, plain
from keras_lrsched._core.backends import foreign_state
from keras_lrsched._core.user_code import arguments, assigned_by_library, function_of, is_of_user, outer_names

LARGE = 2**20
"""Bytes from which on an array that a function refers to counts as data, and not as state."""

SMALL = 2**16
"""Bytes up to which the first value of an attribute is kept, to be put back."""


_TOO_LARGE = object()


@dataclass
class Item:
    """One piece of state, which is read and written as a plain value."""

    path: str
    kind: str
    """`"variables"`, `"generator"`, `"value"`, or `"object"`, of which only a digest is known."""
    read: Callable[[], Any]
    write: Callable[[Any], None]


class TrackedState:
    """The state that can be reached from some objects.

    Variables and generators are always part of the state. Of other values, those are that differ from what they were when
    this object was made: settings and data, which training leaves as they are, remain what the script gives.

    Args:
        roots: A dictionary from names to objects.
        known: Objects that are saved in another way. Defaults to `()`.
        variables: The variables that optimizers may train, in an order that the next process repeats. Defaults to `()`.

    Attributes:
        unknown: A dictionary from the path of what cannot be saved to what it is.
    """

    def __init__(self, roots: dict[str, Any], known: Iterable = (), variables: Sequence = ()) -> None:
        self._roots, self._known, self._variables = roots, list(known), list(variables)
        self._first: dict[str, tuple[str, Any]] = {}
        self.unknown: dict[str, str] = {}
        for item in self._items():
            if item.kind in ("value", "object"):
                value = item.read()
                kept = plain.copied(value) if plain.nbytes(value) <= SMALL else _TOO_LARGE
                self._first[item.path] = (plain.digest(value), kept)

    def state(self) -> dict:
        """The state, as a dictionary from paths to plain values."""
        state = {}
        for item in self._items():
            value = item.read()
            if item.kind in ("value", "object") and plain.digest(value) == self._first.get(item.path, ("", None))[0]:
                continue
            if item.kind == "object":
                self.unknown[item.path] = f"an object of the class {value[0]}"
            else:
                state[item.path] = plain.copied(value)
        return state

    def full_state(self) -> dict:
        """The state with all values, changed or not, but for large ones: to go back to in the same process."""
        values = {item.path: item.read() for item in self._items() if item.kind != "object"}
        return {
            path: plain.copied(value)
            for path, value in values.items()
            if plain.nbytes(value) <= SMALL or path not in self._first
        }

    def restore(self, state: dict) -> list:
        """Put back what `state` returned, maybe in another process. Return the paths for which there is no place."""
        items = {item.path: item for item in self._items()}
        for path, item in items.items():
            if item.kind == "object":
                continue
            if path in state:
                item.write(plain.copied(state[path]))
            elif item.kind == "value" and path in self._first:
                digest, first = self._first[path]
                if first is not _TOO_LARGE and plain.digest(item.read()) != digest:
                    item.write(plain.copied(first))
        return [path for path in state if path not in items and not self._make(path, state[path])]

    def paths(self) -> dict[str, list[str]]:
        """A dictionary from kinds to lists of paths."""
        paths: dict[str, list[str]] = {}
        for item in self._items():
            paths.setdefault(item.kind, []).append(item.path)
        return paths

    def _items(self) -> list[Item]:
        walk = _Walk(self._known, self._variables)
        for name, root in self._roots.items():
            walk.visit(name, root)
        self.unknown, self._owners = {**self.unknown, **walk.unknown}, walk.owners
        return walk.items

    def _make(self, path: str, value: Any) -> bool:
        """Set an attribute that the saved run had made, and that this one has not made yet."""
        owner, _, name = path.rpartition(".")
        if owner not in self._owners or not name.isidentifier() or hasattr(self._owners[owner], name):
            return False
        setattr(self._owners[owner], name, plain.copied(value))
        return True


class _Walk:
    """One pass over all that can be reached, in an order that the next process repeats."""

    def __init__(self, known: Iterable, variables: Sequence) -> None:
        self.items: list[Item] = []
        self.unknown: dict[str, str] = {}
        self.owners: dict[str, Any] = {}
        self._variables = variables
        self._seen: dict[int, Any] = {}  # by id, and kept alive so that no new object gets the same
        for each in known:
            self._is_new(each)

    def visit(self, path: str, value: Any, assign: Callable | None = None, of_user: bool = False) -> None:
        """Follow a value.

        Args:
            path: Where it was found.
            value: Any object.
            assign: Puts another value in its place, if that is possible.
            of_user: Whether it belongs to the program of the user, so that what is not understood is reported.
        """
        name = _name_of_operation(value)
        if plain.is_plain(value) or name is not None:
            self._plain(path, value if name is None else name, assign)
        elif not isinstance(value, (type, types.ModuleType)) and self._is_new(value):
            self._follow(path, value, assign, of_user)

    def _plain(self, path: str, value: Any, assign: Callable | None) -> None:
        mutable = isinstance(value, _MUTABLE)
        if (mutable and not self._is_new(value)) or not (mutable or assign):
            return

        def write(new: Any) -> None:
            if not plain.assigned_in_place(value, new) and assign:
                assign(_operation(new))

        self._add(path, "value", lambda: value, write)

    def _follow(self, path: str, value: Any, assign: Callable | None, of_user: bool) -> None:
        if isinstance(value, keras.Variable):
            self._is_new(keras_private.value_of(value))
            self._add(path, "variables", lambda: np.array(value.numpy()), value.assign)
        elif isinstance(value, keras.optimizers.Optimizer):
            for each in value.variables:
                self._is_new(each)
            read, write = _optimizer_state, _restore_optimizer
            self._add(
                path, "variables", lambda: read(value, self._variables), lambda new: write(path, value, self._variables, new)
            )
        elif (access := foreign_state.access_to_state(value, assign)) is not None:
            self._add(path, *access)
        elif foreign_state.is_dataset(value):
            self._dataset(path, value)
        elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            for index, each in enumerate(value):
                place = functools.partial(value.__setitem__, index) if assign and isinstance(value, list) else None
                self.visit(f"{path}[{index}]", each, place, of_user)
        elif isinstance(value, collections.abc.Mapping):
            for key, each in list(value.items()):
                place = functools.partial(value.__setitem__, key) if assign and isinstance(value, dict) else None
                self.visit(f"{path}[{key!r}]", each, place, of_user)
        elif callable(value) and function_of(value) is not None:
            self._function(path, value)
        elif isinstance(value, io.IOBase):
            if of_user:
                self.unknown[path] = "an open file"
        elif isinstance(value, collections.abc.Iterator) and not hasattr(value, "__len__"):
            if of_user:
                self.unknown[path] = "the position of an iterator"
        elif hasattr(value, "__dict__") and _is_followed(value):
            self._object(path, value)
        elif assign is not None and of_user:
            self._add(path, "object", lambda: (type(value).__name__, _pickled_digest(value)), None)

    def _object(self, path: str, value: Any) -> None:
        self.owners[path] = value
        of_user, is_callback = is_of_user(type(value)), isinstance(value, keras.callbacks.Callback)
        kind: Any = type(value)
        settings = assigned_by_library(kind)
        for name, each in list(vars(value).items()):
            if (
                name in keras_private.MANAGED_ATTRIBUTES
                or name.startswith("_self_")
                or (is_callback and name in _OF_CALLBACKS)
            ):
                continue
            if isinstance(each, str) and name in arguments(kind):
                # Often a path: a run goes on to write to the path in its script, not to that in a file.
                self._add(f"{path}.{name}", "object", lambda each=each: ("str", each), None)
                continue
            understood = of_user or plain.is_plain(each) or _name_of_operation(each) is not None
            can_assign = name not in settings and understood
            if can_assign or not plain.is_plain(each):
                self.visit(f"{path}.{name}", each, functools.partial(setattr, value, name) if can_assign else None, of_user)
        for base in type(value).__mro__:
            if is_of_user(base):
                for name, each in list(vars(base).items()):
                    self._function(f"{path}.{name}", each)

    def _dataset(self, path: str, value: Any) -> None:
        """Visit what functions of a `tf.data` pipeline refer to, and the variables that they use."""
        inputs, functions = keras_private.parts_of_dataset(value)
        for number, (function, _, variables) in enumerate(functions):
            self._function(f"{path}.function{number}", function)
            for index, variable in enumerate(variables):
                self.visit(f"{path}.function{number}[{index}]", variable)
        for index, each in enumerate(inputs):
            self.visit(f"{path}.input{index}", each)

    def _function(self, path: str, value: Any) -> None:
        """Visit what the names in a function of the user's refer to: closures and global names."""
        owner, function = getattr(value, "__self__", None), function_of(value)
        if owner is not None:
            self.visit(f"{path}.__self__", owner)
        if function is None or not is_of_user(function) or (value is not function and not self._is_new(function)):
            return
        used, assigned = outer_names(function.__code__)
        places = [
            (name, cell.__getattribute__, functools.partial(setattr, cell, "cell_contents"), "cell_contents")
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        ]
        names = function.__globals__
        places += [
            (name, names.__getitem__, functools.partial(names.__setitem__, name), name) for name in used if name in names
        ]
        for name, get, assign, key in places:
            try:
                referred = get(key)
            except ValueError:  # a closure whose name has no value yet
                continue
            if plain.is_plain(referred) and plain.nbytes(referred) >= LARGE:
                continue  # data
            self.visit(f"{path}<{name}>", referred, assign if name in assigned else None, of_user=True)

    def _is_new(self, value: Any) -> bool:
        if id(value) in self._seen:
            return False
        self._seen[id(value)] = value
        return True

    def _add(self, path: str, kind: str, read: Callable, write: Any) -> None:
        self.items.append(Item(path, kind, read, write))


_MUTABLE = (np.ndarray, list, dict, set, collections.deque)

_OF_CALLBACKS = ("model", "_model", "params")
"""Attributes that Keras gives to each callback."""

_FOLLOWED = (
    keras.Operation,
    keras.Metric,
    keras.Loss,
    keras.callbacks.Callback,
    keras.random.SeedGenerator,
    keras.utils.PyDataset,
)


def _name_of_operation(value: Any) -> Any:
    """A function of `keras.ops`, such as the comparison of `EarlyStopping`, as a plain value; `None` for anything else."""
    name = getattr(value, "__name__", None)
    return ("keras.ops", name) if isinstance(name, str) and value is getattr(keras.ops, name, None) else None


def _operation(value: Any) -> Any:
    """The function that `_name_of_operation` named; any other value as it is."""
    is_name = isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and value[0] == "keras.ops"
    return getattr(keras.ops, value[1]) if is_name and hasattr(keras.ops, str(value[1])) else value


def _is_followed(value: Any) -> bool:
    return is_of_user(type(value)) or isinstance(value, _FOLLOWED) or foreign_state.is_torch_data(value)


def _optimizer_state(optimizer: keras.optimizers.Optimizer, variables: Sequence) -> dict:
    places = {id(variable): place for place, variable in enumerate(variables)}
    trained = [places.get(id(variable), -1) for variable in keras_private.trained_by(optimizer)]
    values = [np.array(variable.numpy()) for variable in optimizer.variables if not getattr(variable, "of_callback", False)]
    return {"trained": trained, "values": values}


def _restore_optimizer(path: str, optimizer: keras.optimizers.Optimizer, variables: Sequence, state: dict) -> None:
    if state["trained"] and not optimizer.built:
        optimizer.build([variables[place] for place in state["trained"]])
    places = [variable for variable in optimizer.variables if not getattr(variable, "of_callback", False)]
    shapes = [tuple(variable.shape) for variable in places]
    if shapes != [value.shape for value in state["values"]]:
        raise ValueError(
            f"The optimizer `{path}` has other variables than the saved one. Received: {len(shapes)} variables, "
            f"{len(state['values'])} saved"
        )
    for variable, value in zip(places, state["values"], strict=True):
        variable.assign(value)


class _Hash:
    """A file that takes the digest of what is written, up to a size."""

    def __init__(self) -> None:
        self._hash, self._left = hashlib.blake2b(digest_size=16), 16 * LARGE

    def write(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise OverflowError
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _pickled_digest(value: Any) -> str | None:
    """A digest of an object of any kind, which is never written to a file; `None` where it has none."""
    hashed = _Hash()
    try:
        pickle.Pickler(hashed).dump(value)
    except Exception:
        return None
    return hashed.hexdigest()

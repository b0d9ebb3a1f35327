"""The registry: each method of the package by name, with its paper, how it was checked, and where it deviates.

A method joins by a decorator on its class or function. Command line, gallery, explorer, fidelity table and contract tests
are derived from the entries.

    @register("rex", title="REX", paper="arXiv:2107.04197", checked="numbers", against="three independent implementations")
    class REXDecay(ProfileDecay):
        ...

All arguments of the decorator are literals, so that `read` finds them without importing a module; it needs no framework.
"""

import ast
import difflib
import functools
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

Checked = Literal["trajectory", "vectors", "numbers", "read", "memory"]
CHECKED: dict[str, str] = {
    "trajectory": "trajectories compared with other code that was run",
    "vectors": "compared with vectors of values that other code made",
    "numbers": "compared with published numbers",
    "read": "compared with code or paper by reading",
    "memory": "from memory or secondary sources: neither code nor paper was at hand",
}
"""Kinds of check of a method, from the strongest evidence to the weakest."""

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One row of the registry.

    Args:
        name: The name by which `get` finds the method; `None` for what is built by its class alone.
        target: The class or function.
        title: A short description.
        paper: `"arXiv:..."` or the address of the publication; `None` for methods without one.
        code: Repositories or addresses of the official code, or of the code that it was compared with.
        checked: The strongest check, a key of `CHECKED`; `None` where there is nothing to compare with.
        against: What it was compared with.
        deviations: Where it differs from the paper or the official code, and what is not certain.
        kind: What the method sets or is, for instance `"learning rate"`, `"batch size"`.
        options: Arguments that the name stands for.
        choices: For the schedule explorer: the values of each option, and the first one that is shown.
    """

    name: str | None
    target: Any
    title: str
    paper: str | None = None
    code: tuple[str, ...] = ()
    checked: Checked | None = None
    against: str = ""
    deviations: str = ""
    kind: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)

    @property
    def room(self) -> str:
        return _room_of(self.target)


_entries: list[Entry] = []


def register(
    name: str | None = None,
    *,
    title: str,
    paper: str | None = None,
    code: tuple[str, ...] = (),
    checked: Checked | None = None,
    against: str = "",
    deviations: str = "",
    kind: str = "",
    options: Mapping[str, Any] | None = None,
    choices: Mapping[str, Any] | None = None,
) -> Callable[[T], T]:
    """Add a class or function to the registry, and a class to those that Keras can load.

    Several decorators on one class give it several names, each with its own `options`.

    Args:
        name: The name by which it is found; `None` for what is built by its class alone.
        title: A short description.
        paper: See `Entry`, as for the other arguments. Defaults to `None`.
        code: Defaults to `()`.
        checked: Defaults to `None`.
        against: Defaults to `""`.
        deviations: Defaults to `""`.
        kind: Defaults to `""`.
        options: Defaults to `None`: none.
        choices: Defaults to `None`: none.

    Raises:
        ValueError: If another method of the room has the name, or `checked` is not a key of `CHECKED`.
    """
    if checked is not None and checked not in CHECKED:
        raise ValueError(f"`checked` must be one of {', '.join(CHECKED)}. Received: checked={checked!r}")

    def add(target: T) -> T:
        provenance = (title, paper, code, checked, against, deviations, kind, options or {}, choices or {})
        entry = Entry(name, target, *provenance)
        if name is not None and any(each.name == name and _key(each) != _key(entry) for each in entries(entry.room)):
            raise ValueError(f"There is a {entry.room} entry of this name. Received: name={name!r}")
        # A module that is loaded again replaces its entries.
        _entries[:] = [each for each in _entries if (each.name, _key(each)) != (name, _key(entry))]
        _entries.append(entry)
        if isinstance(target, type) and hasattr(target, "get_config"):
            _register_with_keras(target)
        return target

    return add


def _register_with_keras(target: type) -> None:
    import keras  # here, since `read` has to do without

    if keras.saving.get_registered_name(target) == target.__name__:
        keras.saving.register_keras_serializable(package=target.__module__.partition(".")[0])(target)


def entries(room: str, kind: str | None = None) -> list[Entry]:
    """All entries of a room, or those of one kind, sorted by name and class."""
    chosen = (each for each in _entries if each.room == room and kind in (None, each.kind))
    return sorted(chosen, key=lambda each: (each.name is None, each.name or "", each.target.__name__))


def names(room: str, kind: str | None = None) -> list[str]:
    """The names in a room, sorted."""
    return [each.name for each in entries(room, kind) if each.name is not None]


def find(room: str, name: str, kind: str | None = None, what: str | None = None) -> Entry:
    """The entry of this name.

    Args:
        room: The room, for instance `"schedules"`.
        name: The name.
        kind: Only entries of this kind. Defaults to `None`: all.
        what: The word for an entry in the error message. Defaults to `None`: the room without its last `s`.

    Raises:
        ValueError: If there is none; the message lists the nearest names, or all.
    """
    for entry in entries(room, kind):
        if entry.name == name:
            return entry
    raise ValueError(f"Unknown {what or room.removesuffix('s')} {name!r}. {did_you_mean(name, names(room, kind))}")


def entry_of(target: type) -> Entry:
    """The entry of a class, or of the nearest class that it inherits from; the first name, if there are several.

    Raises:
        ValueError: If none of them is registered.
    """
    for each in target.__mro__:
        for entry in _entries:
            if entry.target is each:
                return entry
    raise ValueError(f"No class that it inherits from is registered. Received: {target!r}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names what is close, or everything."""
    known = list(known)
    close = difflib.get_close_matches(str(name).lower(), known, n=3)
    return f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(known)}."


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of `"name:option=value:option=value"`; values are JSON, or plain words.

    Raises:
        ValueError: If a part after the name is no option with a value.
    """
    name, *words = text.split(":")
    options = {}
    for word in words:
        option, _, value = word.partition("=")
        if not (option and value):
            raise ValueError(f"Options are given as name:option=value. Received: {text!r}")
        try:
            options[option] = json.loads(value)
        except json.JSONDecodeError:
            options[option] = value
    return name, options


def import_methods(package: str) -> dict[str, Any]:
    """Import all modules of a package whose names do not begin with an underscore; return what they registered, by name."""
    paths = importlib.import_module(package).__path__
    for module in pkgutil.iter_modules(paths):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")
    prefix = f"{package}."
    return {each.target.__name__: each.target for each in _entries if each.target.__module__.startswith(prefix)}


def public_names(namespace: Mapping[str, Any], modules: Iterable[str] = ()) -> list[str]:
    """The `__all__` of a room, from the `globals()` of its `__init__.py`: names without an underscore, but not of modules.

    Args:
        namespace: The globals.
        modules: Modules that are public, too. Defaults to `()`.
    """
    names = {name for name, value in namespace.items() if not name.startswith("_") and not isinstance(value, ModuleType)}
    return sorted({*names, *modules})


@functools.cache
def read(room: str) -> list[dict[str, Any]]:
    """The entries of a room from its source, without importing it: dictionaries with `target`, the name of the class.

    For commands that have to be quick: importing a framework takes seconds.
    """
    folder = Path(__file__).parent.parent / room
    rows = [row for path in sorted(folder.rglob("*.py")) for row in _rows(ast.parse(path.read_text(encoding="utf-8")))]
    return sorted(rows, key=lambda row: (row["name"] is None, row["name"] or "", row["target"]))


def _rows(module: ast.Module) -> Iterable[dict[str, Any]]:
    for node in module.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "register":
                given = {each.arg: ast.literal_eval(each.value) for each in call.keywords if each.arg}
                yield {"name": ast.literal_eval(call.args[0]) if call.args else None, "target": node.name, **given}


def _room_of(target: Any) -> str:
    """The room of a class of ours; for a user's own, that of the first class it inherits from that has one."""
    for each in getattr(target, "__mro__", (target,)):
        package, _, rest = each.__module__.partition(".")
        if package == "keras_lrsched":
            return rest.partition(".")[0]
    raise ValueError(f"Only methods that extend a class of keras_lrsched can be registered. Received: {target!r}")


def _key(entry: Entry) -> tuple[str, str]:
    return entry.target.__module__, entry.target.__qualname__

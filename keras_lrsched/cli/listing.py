"""`keras-lrsched list`: every method with its paper, or one with its options. Reads the source, imports no framework."""

import ast
import difflib
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_lrsched._core import registry
from keras_lrsched.cli.support import UsageError, show

ROOMS = {
    "schedules": "Schedules",
    "laws": "Laws",
    "transfer": "Transfer",
    "optimizers": "Optimizers",
    "callbacks": "Callbacks",
    "data": "Streams of batches",
    "precision": "Low-precision recipes",
    "study": "Workloads",
}
"""Rooms of the registry, with a heading."""


EXAMPLES = ("list", "list optimizers", "list rex")


def add(commands) -> None:
    command = commands.add_parser("list", help="every method with its paper, or the options of one", examples=EXAMPLES)
    command.add_argument(
        "name", nargs="?", metavar="NAME", help=f"a method, or one of {', '.join(ROOMS)} (default: everything)"
    )
    command.set_defaults(run=list_methods, needs_keras=False)


def list_methods(arguments) -> int:
    if arguments.name is None or arguments.name in ROOMS:
        for room in [arguments.name] if arguments.name else ROOMS:
            _show_room(room)
        return 0
    found = [(room, row) for room in ROOMS for row in registry.read(room) if arguments.name in (row["name"], row["target"])]
    if not found:
        known = {each for room in ROOMS for row in registry.read(room) for each in (row["name"], row["target"]) if each}
        by_lower = {each.lower(): each for each in sorted(known)}
        near = [by_lower[each] for each in difflib.get_close_matches(arguments.name.lower(), by_lower, n=3)]
        hint = f"Did you mean {' or '.join(near)}?" if near else "`keras-lrsched list` names all."
        raise UsageError(f"Unknown method {arguments.name!r}. {hint}")
    for room, row in found:
        _show_method(room, row)
    return 0


def _show_room(room: str) -> None:
    rows = registry.read(room)
    named = [row for row in rows if row["name"] is not None]
    unnamed = [row for row in rows if row["name"] is None]
    kinds = list(dict.fromkeys(row.get("kind", "") for row in named))
    for kind in sorted(kinds, key=lambda kind: (kind != "learning rate", kind)):
        heading = f"{ROOMS[room]}: {kind}" if kind else ROOMS[room]
        its = [row for row in named if row.get("kind", "") == kind]
        show(heading, ["name", "title", "class", "paper"], [[row["name"], *_about(row)] for row in its])
    if unnamed:
        heading = f"{ROOMS[room]} without a name" if named else ROOMS[room]
        show(heading, ["title", "class", "paper"], [_about(row) for row in unnamed])


def _about(row: dict[str, Any]) -> list[str]:
    return [row["title"], row["target"], row.get("paper") or "-"]


def _show_method(room: str, row: dict[str, Any]) -> None:
    node = _classes(room)[row["target"]]
    facts = [
        ["class", f"keras_lrsched.{room}.{row['target']}"],
        ["title", row["title"]],
        ["kind", row.get("kind")],
        ["paper", row.get("paper")],
        ["code", ", ".join(row.get("code", ()))],
        ["checked", registry.CHECKED.get(row.get("checked", ""))],
        ["against", row.get("against")],
        ["deviations", row.get("deviations")],
    ]
    show(row["name"] or row["target"], None, [[name, value] for name, value in facts if value])
    preset = row.get("options", {})
    options = [[name, repr(preset[name]) if name in preset else default] for name, default in _arguments(room, node).items()]
    if options:
        show("Options", ["option", "default"], options)
    print(f"{inspect.cleandoc(ast.get_docstring(node) or '').partition('Args:')[0].strip()}\n")


@functools.cache
def _statements(room: str) -> list[ast.stmt]:
    """The statements of all modules of a room."""
    folder = Path(registry.__file__).parent.parent / room
    return [each for path in sorted(folder.rglob("*.py")) for each in ast.parse(path.read_text(encoding="utf-8")).body]


def _classes(room: str) -> dict[str, ast.ClassDef | ast.FunctionDef]:
    """The classes and functions of a room by name."""
    return {node.name: node for node in _statements(room) if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def _shown(default: ast.expr | None, room: str) -> str:
    """A default as it is written; of a constant of a module, its value."""
    if default is None:
        return "required"
    if isinstance(default, ast.Name):
        for node in _statements(room):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == default.id:
                return ast.unparse(node.value)
    return ast.unparse(default)


def _arguments(room: str, node: ast.ClassDef | ast.FunctionDef) -> dict[str, str]:
    """Name and default of each argument, with those of the base class that a constructor hands on or inherits."""
    if isinstance(node, ast.FunctionDef):
        return dict(_of_function(node, room))
    constructor = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if constructor is None:
        found = dict(_fields(node, room))
    else:
        found = dict(_of_function(constructor, room))
        if constructor.args.kwarg is None:
            return found
    for base in node.bases:
        parent = _classes(room).get(ast.unparse(base).rpartition(".")[2])
        if parent is not None:
            found = found | {name: default for name, default in _arguments(room, parent).items() if name not in found}
    return found


def _fields(node: ast.ClassDef, room: str) -> Iterator[tuple[str, str]]:
    """Those of a dataclass; none of other classes."""
    if any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                yield each.target.id, _shown(each.value, room)


def _of_function(node: ast.FunctionDef, room: str) -> Iterator[tuple[str, str]]:
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(positional) - len(node.args.defaults)) + list(node.args.defaults)
    both = [*zip(positional, defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    for argument, default in both:
        if argument.arg != "self":
            yield argument.arg, _shown(default, room)

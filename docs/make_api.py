"""The list of public names: `__init__.pyi` beside the `__init__.py` of each room, from what the room exports.

A room derives its `__all__` from the registry, which type checkers cannot follow; they read these files. A room that defines
public functions in its `__init__.py` has none. `tests/api` compares them with the rooms and with the pages of the reference.

Run: make api
"""

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType

PACKAGE = "keras_lrsched"
ROOT = Path(__file__).parent.parent


def rooms() -> list[str]:
    """The packages that have an `__all__`, as dotted names."""
    found = sorted((ROOT / PACKAGE).rglob("__init__.py"))
    return [".".join(path.parent.relative_to(ROOT).parts) for path in found if "__all__" in path.read_text(encoding="utf-8")]


def path_of(room: str) -> Path:
    return ROOT.joinpath(*room.split("."), "__init__.pyi")


def stub(room: str) -> str | None:
    """The text of the `__init__.pyi` of a room: one line a name, in alphabetical order; `None` if it needs no such file."""
    module = importlib.import_module(room)
    lines = [_line(module, name) for name in sorted(module.__all__)]
    if None in lines:
        return None
    return "\n".join([f'"""Public names of {room}. Made by `make api`."""', "", *lines, ""])


def _line(module: ModuleType, name: str) -> str | None:
    """The import of a public name from where it is defined; `None` if that is the `__init__.py` of the room."""
    room, value = module.__name__, getattr(module, name)
    if isinstance(value, ModuleType):
        parent, _, last = value.__name__.rpartition(".")
        return f"from {_relative(parent, room)} import {last} as {name}"
    source = _source(value, name, room)
    return None if source == room else f"from {_relative(source, room)} import {name} as {name}"


def _relative(module: str, room: str) -> str:
    if module == room:
        return "."
    return module.removeprefix(room) if module.startswith(f"{room}.") else module


def _source(value: object, name: str, room: str) -> str:
    """The module that defines a name: that of a class or function, else the one which assigns to it."""
    of_value = getattr(value, "__module__", "") or ""
    if of_value.startswith(PACKAGE) and getattr(sys.modules.get(of_value), name, None) is value:
        return of_value
    loaded = sorted(module for module in sys.modules if module.startswith(PACKAGE))
    candidates = [each for each in loaded if vars(sys.modules[each]).get(name) is value and _assigns(each, name)]
    inside = [each for each in candidates if each.startswith(f"{room}.")]
    return (inside or candidates or [room])[0]


def _assigns(module: str, name: str) -> bool:
    file = getattr(sys.modules[module], "__file__", None)
    tree = ast.parse(Path(file).read_text(encoding="utf-8")) if file else ast.Module([], [])
    targets = [each for node in tree.body if isinstance(node, ast.Assign) for each in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return name in {target.id for target in targets if isinstance(target, ast.Name)}


def main() -> int:
    for room in rooms():
        text = stub(room)
        if text is None:
            path_of(room).unlink(missing_ok=True)
        else:
            path_of(room).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

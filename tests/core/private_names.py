"""Print where the package uses private names of Keras, TensorFlow, JAX and PyTorch.

    python -m tests.core.private_names

A use is an import of a private module; or an attribute or method whose name begins with an underscore and that a class of
one of these frameworks defines, read, assigned or overridden, also by a string as in `getattr(optimizer, "_iterations")`.
Whose name it is follows from the classes: `self._x` is a framework's if a base class from there has `_x`; `other._x` is,
if a class from there has it and none of ours has one of its own.
"""

import ast
import functools
import importlib
import inspect
import pathlib
import pkgutil
import re
import sys
import textwrap

import keras

import keras_lrsched

FRAMEWORKS = ("keras", "tensorflow", "jax", "jaxlib", "torch")
PRIVATE_MODULES = re.compile(
    r"keras\.src\b|tensorflow\.(python|compiler)\b|jax\._src\b|jax\.extend\b|__internal__|torch\._\w"
)
PACKAGE = pathlib.Path(keras_lrsched.__file__).parent
ALLOWED = ("_core/keras_private.py", "_core/keras_private/")


def uses(path):
    """The private names that a module uses: pairs of a line number and a name."""
    tree = ast.parse(path.read_text())
    module = _module_name(path)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and PRIVATE_MODULES.match(node.module or ""):
            found.append((node.lineno, node.module))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, each.name) for each in node.names if PRIVATE_MODULES.match(each.name)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if PRIVATE_MODULES.match(node.value) or _is_name_of_others(node.value):
                found.append((node.lineno, node.value))
        elif isinstance(node, ast.keyword) and _is_name_of_others(node.arg or ""):
            found.append((node.value.lineno, node.arg))
        elif isinstance(node, ast.Attribute) and node.attr == "__internal__":
            found.append((node.lineno, "__internal__"))
    _visit(tree, _classes_of(module), None, found)
    return sorted(found)


def all_uses():
    """A dictionary from the modules of the package, but for `keras_private`, to their private names."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if not path.relative_to(PACKAGE).as_posix().startswith(ALLOWED)]
    found = {path.relative_to(PACKAGE).as_posix(): uses(path) for path in paths}
    return {path: names for path, names in found.items() if names}


def _visit(node, classes, owner, found):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            kind = classes.get(child.name)
            found += [(line, name) for line, name in _defined_in(child) if kind and name in foreign_names(kind)]
            _visit(child, classes, kind, found)
            continue
        if isinstance(child, ast.Attribute) and _is_private(child.attr):
            own = isinstance(child.value, ast.Name) and child.value.id in ("self", "cls")
            if owner is not None and (own or _is_super(child.value)):
                is_foreign = any(child.attr in foreign_names(kind) for kind in (owner, *_subclasses(owner)))
                is_foreign = is_foreign and not _is_defined_by_us(owner, child.attr)
            else:
                is_foreign = _is_name_of_others(child.attr)
            if is_foreign:
                found.append((child.lineno, child.attr))
        _visit(child, classes, owner, found)


def _is_private(name):
    return bool(re.fullmatch(r"_[a-zA-Z]\w*", name)) and not name.endswith("__")


def _is_name_of_others(name):
    return _is_private(name) and name in _names_of_frameworks() and name not in _own_names()


def _is_super(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def _is_defined_by_us(kind, name):
    """Whether a name of an own class belongs to no base class from a framework."""
    return name in own_names(kind) and name not in foreign_names(kind)


@functools.cache
def foreign_names(kind):
    """The private names that classes of frameworks give to a class and its objects."""
    return frozenset(name for base in kind.__mro__ if _is_foreign(base) for name in _names_of(base))


@functools.cache
def own_names(kind):
    return frozenset(name for base in kind.__mro__ if not _is_foreign(base) for name in _names_of(base))


@functools.cache
def _names_of(kind):
    names = {name for name in vars(kind) if _is_private(name)}
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):
        return names
    return names | set(re.findall(r"\bself\.(_[a-zA-Z]\w*)(?:: [^=\n]+)? = ", textwrap.dedent(source)))


def _is_foreign(kind):
    return kind.__module__.partition(".")[0] in FRAMEWORKS


@functools.cache
def _own_classes():
    for info in pkgutil.walk_packages(keras_lrsched.__path__, "keras_lrsched."):
        if info.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(info.name)
        except ImportError:  # an optional package is missing
            continue
    modules = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "keras_lrsched"}
    return {
        name: {each.__name__: each for each in vars(module).values() if isinstance(each, type) and each.__module__ == name}
        for name, module in modules.items()
    }


def _classes_of(module):
    return _own_classes().get(module, {})


@functools.cache
def _subclasses(kind):
    classes = [each for classes in _own_classes().values() for each in classes.values()]
    return tuple(each for each in classes if kind in each.__mro__ and each is not kind)


@functools.cache
def _own_names():
    """Private names that classes of the package have for themselves, and private functions and constants of its modules."""
    found = set()
    for module, classes in _own_classes().items():
        for kind in classes.values():
            foreign = foreign_names(kind).union(*(foreign_names(each) for each in _subclasses(kind)))
            found |= _names_of(kind) - foreign
        found |= {name for name in vars(sys.modules[module]) if _is_private(name)}
    return found


@functools.cache
def _names_of_frameworks():
    """Private names in Keras' sources that classes define, and of the other frameworks what own classes inherit."""
    found = set()
    for path in (pathlib.Path(keras.__file__).parent / "src").rglob("*.py"):
        if not path.stem.endswith("_test"):
            found.update(re.findall(r"^    +def (_[a-zA-Z]\w*)\(|\bself\.(_[a-zA-Z]\w*) = ", path.read_text(), re.M))
    names = {name for pair in found for name in pair if name}
    return names.union(*(foreign_names(kind) for classes in _own_classes().values() for kind in classes.values()))


def _defined_in(node):
    """The private methods and attributes in the body of a class."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and _is_private(each.name):
            yield each.lineno, each.name
        elif isinstance(each, ast.Assign):
            yield from ((each.lineno, to.id) for to in each.targets if isinstance(to, ast.Name) and _is_private(to.id))


def _module_name(path):
    parts = ["keras_lrsched", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


if __name__ == "__main__":
    found = all_uses()
    for path, names in found.items():
        for line, name in names:
            print(f"keras_lrsched/{path}:{line}: {name}")
    pairs = [pair for names in found.values() for pair in names]
    print(f"{len(pairs)} uses of {len({name for _, name in pairs})} names in {len(found)} modules")

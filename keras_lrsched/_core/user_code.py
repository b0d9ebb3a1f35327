"""Code of the user's program: what is part of it, and the names that its functions refer to and assign."""

import dis
import functools
import inspect
import sys
import types
from collections.abc import Iterator
from types import CodeType
from typing import Any

import keras

from keras_lrsched._core import keras_private


def is_of_user(thing: Any) -> bool:
    """Return `True` if a class or function is part of the user's program, and of no installed package."""
    root = (getattr(thing, "__module__", None) or "builtins").partition(".")[0]
    if root in _NOT_OF_USER or root in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(thing.__module__), "__file__", None) or ""
    return "site-packages" not in file and "dist-packages" not in file


_NOT_OF_USER = ("keras_lrsched", "keras", "tensorflow", "jax", "torch", "numpy")


def function_of(value: Any) -> types.FunctionType | None:
    """The Python function in a function, method, property, partial application, or `tf.function`."""
    for name in ("python_function", "__func__", "func", "fget"):
        if not isinstance(value, types.FunctionType):
            value = getattr(value, name, value)
    return inspect.unwrap(value) if isinstance(value, types.FunctionType) else None


@functools.cache
def assigned_by_library(kind: Any) -> set[str]:
    """The names of the attributes that methods of installed classes assign: they are settings, or managed by these.

    Of a callback, only those that the base class of all callbacks assigns: others are what it has seen of the run.
    """
    bases = [keras.callbacks.Callback] if issubclass(kind, keras.callbacks.Callback) else kind.__mro__
    functions = [function_of(each) for base in bases if not is_of_user(base) for each in vars(base).values()]
    names = {name for it in functions if it for name in _instructions(it.__code__, "STORE_ATTR")}
    return names | keras_private.TRACKED_LISTS if issubclass(kind, keras.Layer) else names


@functools.cache
def arguments(kind: Any) -> frozenset:
    """The names of the arguments of a class; none where it has no signature."""
    try:
        return frozenset(inspect.signature(kind).parameters)
    except (TypeError, ValueError):
        return frozenset()


@functools.cache
def outer_names(code: CodeType) -> tuple:
    """The global names that a function uses, and the names outside of itself that it assigns."""
    return [*dict.fromkeys(_instructions(code, "LOAD_GLOBAL"))], {*_instructions(code, "STORE_GLOBAL", "STORE_DEREF")}


def _instructions(code: CodeType, *kinds: str) -> Iterator:
    """The names that instructions of these kinds have, functions within the function included."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in kinds:
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _instructions(constant, *kinds)

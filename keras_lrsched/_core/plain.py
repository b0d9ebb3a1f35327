"""Plain values: what a file of state can hold, and what reading it back runs no code for.

Numbers, strings, bytes, `None`, NumPy arrays without Python objects; lists, tuples, sets, deques and dictionaries of such.
"""

import collections
import hashlib
from collections.abc import Callable
from typing import Any

import ml_dtypes  # noqa: F401 - lets NumPy find bfloat16 and its like by name
import numpy as np

SCALARS = (type(None), bool, int, float, complex, str, bytes)
CONTAINERS = (list, tuple, set, frozenset, collections.deque)


def is_plain(value: Any, depth: int = 50) -> bool:
    """Return `True` if a value is plain. A structure that contains itself, or is deeper than `depth`, is not."""
    if type(value) in SCALARS:
        return True
    if isinstance(value, (np.ndarray, np.generic)):
        return is_simple_dtype(str(value.dtype))
    if depth == 0:
        return False
    if isinstance(value, dict):
        return all(is_plain(key, depth - 1) and is_plain(item, depth - 1) for key, item in value.items())
    return isinstance(value, CONTAINERS) and all(is_plain(item, depth - 1) for item in value)


def is_simple_dtype(name: str) -> bool:
    """Return `True` if a dtype is one of numbers or strings, and not a structure or Python's objects."""
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError):
        return False
    return str(dtype) == name and dtype.itemsize > 0 and not dtype.hasobject


def copied(value: Any) -> Any:
    """A copy that shares no array and no container with the value, in the builtin types."""
    if isinstance(value, np.ndarray):
        return np.array(value)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, collections.deque):
        return collections.deque(map(copied, value), value.maxlen)
    for kind in CONTAINERS:
        if isinstance(value, kind):
            return kind(map(copied, value))
    return value


def digest(value: Any) -> str:
    """A fingerprint of a plain value, which is another one for another value, dtype or type of container."""
    hashed = hashlib.blake2b(digest_size=16)
    _feed(hashed.update, value)
    return hashed.hexdigest()


def nbytes(value: Any) -> int:
    """The size of the arrays and strings in a plain value, and 8 bytes for anything else."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return sum(nbytes(key) + nbytes(item) for key, item in value.items())
    if isinstance(value, CONTAINERS):
        return sum(map(nbytes, value))
    return len(value) if isinstance(value, (str, bytes)) else 8


def assigned_in_place(old: Any, new: Any) -> bool:
    """Give a mutable value the content of another of its kind, so that all who hold it see it; whether that was possible."""
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        fits = old.shape == new.shape and old.dtype == new.dtype and old.flags.writeable
        if fits:
            old[...] = new
        return fits
    is_list = isinstance(old, list) and isinstance(new, list)
    if is_list or (isinstance(old, collections.deque) and isinstance(new, collections.deque)):
        if getattr(old, "maxlen", None) != getattr(new, "maxlen", None):
            return False
        old.clear()
        old.extend(copied(new))
        return True
    if (isinstance(old, set) and isinstance(new, set)) or (isinstance(old, dict) and isinstance(new, dict)):
        old.clear()
        old.update(copied(new))
        return True
    return False


def _feed(update: Callable, value: Any) -> None:
    if isinstance(value, np.ndarray):
        update(f"array {value.dtype} {value.shape}".encode())
        update(np.ascontiguousarray(value).view(np.uint8) if value.size else b"")
    elif isinstance(value, dict):
        update(f"dict {len(value)}".encode())
        for key, item in value.items():
            _feed(update, key)
            _feed(update, item)
    elif isinstance(value, (set, frozenset)):
        update(f"set {sorted(map(digest, value))}".encode())
    elif isinstance(value, CONTAINERS):
        update(f"{type(value).__name__} {len(value)}".encode())
        for item in value:
            _feed(update, item)
    elif isinstance(value, np.generic):
        update(f"scalar {value.dtype} ".encode())
        update(value.tobytes())
    else:
        update(f"{type(value).__name__} {value!r}".encode())

"""A file of plain values and NumPy arrays, written all or not at all; reading it runs no code that it might hold.

It is a line that names the format, a line of JSON, the bytes of the arrays one after the other, and the SHA-256 of all that.
The one written before is kept beside it, as `NAME.old`.
"""

import base64
import collections
import hashlib
import itertools
import json
import math
import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_lrsched._core import plain
from keras_lrsched._core.untrusted_file import refused

FORMAT = b"keras_lrsched state "
MAGIC = FORMAT + b"3\n"
CHECKSUM = 32
"""Bytes at the end of the file."""


def write(path: Path, state: Any) -> None:
    """Replace the file by one that holds `state`, a plain value (`plain.is_plain`).

    Whenever the process dies or the disk is full, the state that was written last can be read.

    Raises:
        OSError: If it cannot be written; what was there is as it was.
    """
    arrays: list[np.ndarray] = []
    tree = json.dumps(_pack(state, arrays)).encode()
    path, new, old = _copies(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with new.open("wb") as file:
            checksum = hashlib.sha256()
            for part in itertools.chain((MAGIC, tree, b"\n"), map(np.ndarray.tobytes, arrays)):
                checksum.update(part)
                file.write(part)
            file.write(checksum.digest())
            file.flush()
            os.fsync(file.fileno())
        _keep(path, old)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror}; the state that was saved before is kept", str(new)) from error
    os.replace(new, path)
    _sync_folder(path.parent)


def read(path: Path) -> Any:
    """The state that was written last; if the file is damaged, the one before, with a warning.

    Raises:
        ValueError: If the file is none of ours, is truncated or was changed, and so is the older one.
    """
    path, *others = _copies(path)
    try:
        return _read(path)
    except ValueError as error:
        for other in filter(Path.exists, others):
            try:
                state = _read(other)
            except ValueError:
                continue
            warnings.warn(f"{error}. Read instead: {str(other)!r}", stacklevel=3)
            return state
        raise


def _copies(path: Path) -> tuple:
    """The file; the next one, whose writer may have died before it had its name; the one before."""
    path = Path(path)
    return path, path.with_name(path.name + ".new"), path.with_name(path.name + ".old")


def _keep(path: Path, old: Path) -> None:
    """Give the file a second name, for it must never lack its first."""
    old.unlink(missing_ok=True)
    if not path.exists():
        return
    try:
        os.link(path, old)
    except OSError:  # this kind of disk has no second names
        shutil.copyfile(path, old)


def _read(path: Path) -> Any:
    content = path.read_bytes()
    if content.startswith(FORMAT) and not content.startswith(MAGIC):
        version = content[len(FORMAT) : len(FORMAT) + 8].partition(b"\n")[0].decode(errors="replace")
        raise ValueError(
            f"The file of training state has the format {version}, which this version of keras_lrsched does not read. "
            f"End the run with that version, or remove the file to train from the start. Received: path={str(path)!r}"
        )
    if not content.startswith(MAGIC):
        raise ValueError(f"Not a file of training state. Received: path={str(path)!r}")
    body, checksum = memoryview(content)[:-CHECKSUM], content[-CHECKSUM:]
    if hashlib.sha256(body).digest() != checksum:
        raise ValueError(
            "The file of training state is damaged: truncated, or changed after it was written. "
            f"Remove it to train from the start. Received: path={str(path)!r}"
        )
    with refused("training state", path):
        end = content.index(b"\n", len(MAGIC))
        unpacker = _Unpacker(body[end + 1 :])
        state = unpacker.value(json.loads(content[len(MAGIC) : end]))
        unpacker.finish()
        return state


def _pack(value: Any, arrays: list) -> Any:
    if isinstance(value, dict):
        if all(type(key) is str for key in value):
            return {"dict": {key: _pack(item, arrays) for key, item in value.items()}}
        return {"map": [[_pack(key, arrays), _pack(item, arrays)] for key, item in value.items()]}
    if isinstance(value, list):
        if all(type(item) in (int, float) for item in value):
            return {"numbers": value}
        return [_pack(item, arrays) for item in value]
    if isinstance(value, collections.deque):
        return {"deque": [_pack(item, arrays) for item in value], "maxlen": value.maxlen}
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            return {name: [_pack(item, arrays) for item in value]}
    if isinstance(value, (np.ndarray, np.generic)) and plain.is_plain(value):
        array = np.asarray(value)
        arrays.append(array)
        return {"scalar" if isinstance(value, np.generic) else "array": str(array.dtype), "shape": array.shape}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if not plain.is_plain(value):
        raise TypeError(f"A state is made of plain values and NumPy arrays. Received: {value!r} of {type(value)}")
    return value


_SEQUENCES = {"tuple": tuple, "set": set, "frozenset": frozenset}


class _Unpacker:
    """The inverse of `_pack`; each array takes the next of the bytes, so that none is larger than the file."""

    def __init__(self, content: bytes | memoryview) -> None:
        self._content, self._place = content, 0

    def value(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self.value(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        if "dict" in tree:
            return {key: self.value(item) for key, item in tree["dict"].items()}
        if "map" in tree:
            return {self.value(key): self.value(item) for key, item in tree["map"]}
        if "numbers" in tree:
            return tree["numbers"]
        if "deque" in tree:
            return collections.deque([self.value(item) for item in tree["deque"]], tree["maxlen"])
        for name, kind in _SEQUENCES.items():
            if name in tree:
                return kind(self.value(item) for item in tree[name])
        if "bytes" in tree:
            return base64.b64decode(tree["bytes"], validate=True)
        if "complex" in tree:
            return complex(*tree["complex"])
        return self._array(tree["array"], tree["shape"]) if "array" in tree else self._array(tree["scalar"], ())[()]

    def finish(self) -> None:
        if self._place != len(self._content):
            raise ValueError(f"{len(self._content) - self._place} bytes belong to no array")

    def _array(self, dtype: str, shape: Sequence[int]) -> np.ndarray:
        if not plain.is_simple_dtype(dtype) or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"an array of {dtype} and shape {shape}")
        array = np.frombuffer(self._content, dtype, math.prod(shape), self._place).reshape(shape).copy()
        self._place += array.nbytes
        return array


def _sync_folder(folder: Path) -> None:
    """Make the new name last, where the system lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""A file of plain values and NumPy arrays, written all or not at all; reading it runs no code that it might hold."""

import hashlib
import io
import json
import os
from pathlib import Path

import ml_dtypes  # noqa: F401 - lets NumPy know bfloat16 and its like by name
import numpy as np

MAGIC = b"keras_lrsched state 1\n"


def write(path, state):
    """Replaces the file by one that holds `state`: dictionaries, lists, numbers, strings, `None` and arrays.

    Whenever the process dies, the file is the old one or the new one.
    """
    arrays: list[np.ndarray] = []
    tree = json.dumps(_pack(state, arrays)).encode()
    content = io.BytesIO()
    named: dict = {f"a{i}": array for i, array in enumerate(arrays)}
    np.savez(content, tree=np.frombuffer(tree, "uint8"), **named)
    body = content.getvalue()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    _sync_folder(path.parent)


def read(path):
    """What `write` was given.

    Raises:
        ValueError: If the file is none of ours, is truncated or was changed.
    """
    content = Path(path).read_bytes()
    if not content.startswith(MAGIC):
        raise ValueError(f"Not a file of training state. Received: path={str(path)!r}")
    checksum, _, body = content[len(MAGIC) :].partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise ValueError(
            "The file of training state is damaged: truncated, or changed after it was written. "
            f"Remove it to train from the start. Received: path={str(path)!r}"
        )
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        tree = json.loads(arrays["tree"].tobytes().decode())
        return _unpack(tree, arrays)


def is_plain(value):
    """Whether `write` takes the value."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, (np.ndarray, np.generic)):
        return not value.dtype.hasobject
    return value is None or isinstance(value, (bool, int, float, str))


def _pack(value, arrays):
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"The keys of a state must be strings. Received: {list(value)}")
        return {"dict": {key: _pack(item, arrays) for key, item in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, arrays) for item in value]}
    if isinstance(value, list):
        if all(type(item) in (int, float) for item in value):
            return {"numbers": value}
        return [_pack(item, arrays) for item in value]
    if isinstance(value, (np.ndarray, np.generic)) and is_plain(value):
        array = np.asarray(value)
        arrays.append(np.frombuffer(array.tobytes(), "uint8"))
        kind = "scalar" if isinstance(value, np.generic) else "array"
        return {kind: len(arrays) - 1, "dtype": str(array.dtype), "shape": array.shape}
    if not is_plain(value):
        raise TypeError(f"A state is made of plain values and NumPy arrays. Received: {value!r} of {type(value)}")
    return value


def _unpack(tree, arrays):
    if isinstance(tree, list):
        return [_unpack(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "dict" in tree:
        return {key: _unpack(item, arrays) for key, item in tree["dict"].items()}
    if "tuple" in tree:
        return tuple(_unpack(item, arrays) for item in tree["tuple"])
    if "numbers" in tree:
        return tree["numbers"]
    number = tree.get("array", tree.get("scalar"))
    array = np.frombuffer(arrays[f"a{number}"].tobytes(), np.dtype(tree["dtype"])).reshape(tree["shape"]).copy()
    return array[()] if "scalar" in tree else array


def _sync_folder(folder):
    """Makes the new name last, where the system lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

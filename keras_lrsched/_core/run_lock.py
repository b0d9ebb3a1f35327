"""Which run a file of state belongs to: one process writes it, and within a process one model."""

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no such locks: there, two processes are not told apart
    fcntl = None  # type: ignore[assignment]


@dataclass
class Run:
    """A `fit` of a model in this process, with a path."""

    model: Any
    """A weak reference."""
    number: int
    """How many runs with this path the process has finished before."""
    finished: bool = False


_runs: dict[str, Run] = {}
_locks: dict[str, int] = {}


def previous_run(path):
    """The last run of this process with a path, or `None`."""
    return _runs.get(_key(path))


def begin(path, model, number):
    """Note that a run begins."""
    run = _runs[_key(path)] = Run(weakref.ref(model), number)
    return run


def forget(path=None):
    """Let the next run with a path, or with any, go on with what the file holds, as the first one of a new process does."""
    if path is None:
        _runs.clear()
    else:
        _runs.pop(_key(path), None)


def lock(path, owner=None):
    """Keep other processes from writing a file, until `unlock` or the end of this process.

    Args:
        path: The file.
        owner: An object with whose life the lock ends, too: the `CallbackList` of a `fit` that an exception ends.

    Raises:
        ValueError: If another process has locked it.
    """
    if fcntl is None or _key(path) in _locks:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(_lock_file(path), os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(
            "Another process is training with this file of state: give each run a path of its own. "
            f"Received: path={str(path)!r}"
        ) from error
    except OSError:  # a file system without locks
        os.close(descriptor)
        return
    _locks[_key(path)] = descriptor
    if owner is not None:
        weakref.finalize(owner, _unlock, path, descriptor)


def unlock(path):
    """Undo `lock`."""
    if _key(path) in _locks:
        _unlock(path, _locks[_key(path)])


def _unlock(path, descriptor):
    if _locks.get(_key(path)) == descriptor:
        del _locks[_key(path)]
        Path(_lock_file(path)).unlink(missing_ok=True)
        os.close(descriptor)


def _key(path):
    return os.path.realpath(path)


def _lock_file(path):
    return path.with_name(path.name + ".lock")

"""Runs of training: what belongs to one run of one model, and which run writes a file of state."""

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_lrsched._core import keras_private
from keras_lrsched._core.training_loop import inner_optimizer, optimizer_value

try:
    import fcntl
except ImportError:  # Windows has no such locks: there, two processes may write one file
    fcntl = None  # type: ignore[assignment]


class Run:
    """A model, compiled with an optimizer: the same model with another optimizer is another run.

    It keeps neither of them alive. A copy, also by pickling, is equal to no run.

    Args:
        model: A compiled model, or `None` for no run.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, model: Any = None) -> None:
        parts = () if model is None else (model, model.optimizer)
        self._parts = tuple(None if each is None else weakref.ref(each) for each in parts)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Run) and bool(self._parts) and self._parts == other._parts

    def __reduce__(self) -> tuple:
        return Run, ()


class RunIdentity:
    """A run as recorders count them: of one model with one optimizer, whose counter goes on from where a `fit` ended.

    So a loop of `fit(epochs=1)` is one run. Another model, or one that is compiled anew, begins another.
    """

    def __init__(self) -> None:
        self._run, self._steps = Run(), 0

    def goes_on(self, model: Any) -> bool:
        """Return `True` if a `fit` that begins goes on with the run of the one that ended last."""
        return self._run == Run(model) and self._steps == _steps(model)

    def end(self, model: Any) -> None:
        """To be called when a `fit` ends."""
        self._run, self._steps = Run(model), _steps(model)


def _steps(model: Any) -> int:
    optimizer = inner_optimizer(model.optimizer)
    return 0 if optimizer is None else int(optimizer_value(model, keras_private.iterations(optimizer)))


# Files of state


@dataclass
class FileRun:
    """A `fit` of a model in this process, with a path."""

    model: Any
    """A weak reference."""
    number: int
    """Number of runs with this path that the process has finished before."""
    finished: bool = False


_runs: dict[str, FileRun] = {}
_locks: dict[str, int] = {}


def previous_run(path: Path) -> Any:
    """The last run of this process with a path, or `None`."""
    return _runs.get(_key(path))


def begin(path: Path, model: Any, number: int) -> FileRun:
    """Note that a run begins."""
    run = _runs[_key(path)] = FileRun(weakref.ref(model), number)
    return run


def forget(path: Path | None = None) -> None:
    """Let the next run with a path, or with any, go on with what the file holds, as the first one of a new process does."""
    if path is None:
        _runs.clear()
    else:
        _runs.pop(_key(path), None)


def lock(path: Path, owner: Any = None) -> None:
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


def unlock(path: Path) -> None:
    """Undo `lock`."""
    if _key(path) in _locks:
        _unlock(path, _locks[_key(path)])


def _unlock(path: Path, descriptor: int) -> None:
    if _locks.get(_key(path)) == descriptor:
        del _locks[_key(path)]
        Path(_lock_file(path)).unlink(missing_ok=True)
        os.close(descriptor)


def _key(path: Path) -> str:
    return os.path.realpath(path)


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")

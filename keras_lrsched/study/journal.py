"""Journal of a study: each finished run is one line of a file, and its curves are in a file of their own.

A line is written at once and brought to the disk, after its curves, so a study that is killed loses only runs in flight.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_lrsched._core import runs
from keras_lrsched._core.npz import read_arrays
from keras_lrsched._core.untrusted_file import refused
from keras_lrsched.study.trial import Outcome, Trial

RUNS, CURVES, SETTINGS = "runs.jsonl", "curves", "study.json"
ARRAYS = ("loss", "learning_rate", "evaluated_at")
STATUSES = ("finished", "diverged", "failed")


class Journal:
    """Record of a study in a directory.

    `runs.jsonl` has a line for each run, with its trial, status, time, error, and last values; `curves/NAME.npz` has its
    arrays; `study.json` has the settings.

    Args:
        directory: Where the study is kept. It need not exist.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = Path(directory).expanduser()

    def open(self, settings: dict[str, Any]) -> None:
        """Make the directory ready for runs of a study with these settings, and drop a line that a killed program left.

        Raises:
            OSError: If it cannot be written to.
            ValueError: If it holds a study of other settings, the first difference of which is named, or something else.
        """
        try:
            (self.directory / CURVES).mkdir(parents=True, exist_ok=True)
            descriptor, probe = _new_file(self.directory / CURVES / "probe")
            os.close(descriptor)
            probe.unlink()
        except OSError as error:
            raise OSError(
                f"The directory of the study cannot be written to: {error.strerror}. "
                f"Received: directory={str(self.directory)!r}"
            ) from error
        known = self.settings()
        if known is not None:
            self._compare(known, settings)
        elif (self.directory / RUNS).exists():
            raise ValueError(f"The directory has runs but no {SETTINGS}. Received: directory={str(self.directory)!r}")
        else:
            _write(self.directory / SETTINGS, (json.dumps(settings, indent=1) + "\n").encode())
        self._drop_torn_line()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other programs from running the same study.

        Raises:
            ValueError: If one does.
        """
        path = self.directory / RUNS
        try:
            runs.lock(path)
        except ValueError as error:
            raise ValueError(
                f"Another program is running this study. Received: directory={str(self.directory)!r}"
            ) from error
        try:
            yield
        finally:
            runs.unlock(path)

    def settings(self) -> dict[str, Any] | None:
        """The settings of the study; `None` if there is none."""
        path = self.directory / SETTINGS
        if not path.exists():
            return None
        with refused("study", path):
            settings = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(settings, dict):
                raise ValueError(f"it is a {type(settings).__name__}")
            return settings

    def outcomes(self) -> list[Outcome]:
        """All runs that are whole, in the order in which they were finished.

        A last line without an end is left out, and so is a run whose curves are missing or damaged.

        Raises:
            ValueError: If the file holds something else.
        """
        path = self.directory / RUNS
        if not path.exists():
            return []
        found: dict[Trial, Outcome] = {}
        with refused("runs of a study", path):
            for line in path.read_bytes().split(b"\n")[:-1]:
                outcome = self._read(json.loads(line)) if line.strip() else None
                if outcome is not None:
                    found[outcome.trial] = outcome
        return list(found.values())

    def add(self, outcome: Outcome) -> None:
        """Append a run."""
        name = _name(outcome.trial)
        self._save_curves(name, outcome)
        last = {key: _as_json(values[-1]) for key, values in outcome.evaluations.items() if len(values)}
        line = {
            **dataclasses.asdict(outcome.trial),
            "status": outcome.status,
            "seconds": round(outcome.seconds, 4),
            **last,
            "error": outcome.error,
            "curves": f"{CURVES}/{name}.npz",
        }
        _append(self.directory / RUNS, (json.dumps(line) + "\n").encode())

    def _save_curves(self, name: str, outcome: Outcome) -> None:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {key: getattr(outcome, key) for key in ARRAYS}
        np.savez(buffer, **arrays | outcome.evaluations)
        _write(self.directory / CURVES / f"{name}.npz", buffer.getvalue())

    def _read(self, line: dict[str, Any]) -> Outcome | None:
        names = [field.name for field in dataclasses.fields(Trial)]
        trial = Trial(**{name: line[name] for name in names})
        status, error, seconds = line["status"], str(line["error"]), float(line["seconds"])
        if status not in STATUSES:
            raise ValueError(f"status={status!r}")
        evaluations = [key for key in line if key.startswith("val_")]
        try:
            arrays = read_arrays(self.directory / CURVES / f"{_name(trial)}.npz", ARRAYS, evaluations)
        except (OSError, ValueError):
            return None  # run again
        loss, rates, at = (arrays.pop(key) for key in ARRAYS)
        return Outcome(trial, status, loss, rates, at, arrays, seconds, error)

    def _compare(self, known: dict[str, Any], settings: dict[str, Any]) -> None:
        theirs, ours = _flat(known), _flat(json.loads(json.dumps(settings)))
        for name in (*ours, *theirs):
            if not _equal(theirs.get(name), ours.get(name)):
                raise ValueError(
                    "The directory holds a study of other settings: give another `directory`, or its settings. "
                    f"Received: {name}={ours.get(name)!r:.200}, there {name}={theirs.get(name)!r:.200}"
                )

    def _drop_torn_line(self) -> None:
        path = self.directory / RUNS
        content = path.read_bytes() if path.exists() else b""
        end = content.rfind(b"\n") + 1
        if end < len(content):
            with path.open("r+b") as file:
                file.truncate(end)


def _flat(settings: Any, name: str = "") -> dict[str, Any]:
    """Settings with one level of names, such as `schedules['rex']`."""
    if not isinstance(settings, dict):
        return {name: settings}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found.update(_flat(value, f"{name}[{key!r}]" if name else str(key)))
    return found


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) <= 1e-3 * max(abs(left), abs(right)) or (left != left and right != right)
    return left == right


def _as_json(value: Any) -> float | None:
    """A number as JSON has it, which knows no NaN."""
    return float(value) if math.isfinite(value) else None


def _name(trial: Trial) -> str:
    """The name of the file of a trial's curves."""
    text = f"{trial.optimizer}-{trial.schedule}-{trial.learning_rate:.4g}-{trial.budget}-{trial.seed}"
    unique = hashlib.sha256(repr(dataclasses.astuple(trial)).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9.=-]+', '_', text)[:80]}-{unique}"


def _new_file(path: Path) -> tuple[int, Path]:
    """An open file beside a path, which it is to replace."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    return os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644), new


def _write(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    descriptor, new = _new_file(path)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def _append(path: Path, line: bytes) -> None:
    """Append a line by one write, and bring it to the disk."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, "The line of a run could not be written", str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

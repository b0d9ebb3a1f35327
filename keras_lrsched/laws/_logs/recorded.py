"""Files that `LossRecorder` and `LossCurve.save` write."""

import csv
from pathlib import Path

import numpy as np

from keras_lrsched._core.run_file import SeveralRunsError, numbers_of_runs, one_run
from keras_lrsched.laws._logs.runs import telling

COLUMNS = ("loss", "step", "batch_size", "tokens")
RECORDED = [b"step", b"loss", b"learning_rate", b"batch_size", b"tokens"]


KNOWN = ("run", *COLUMNS, "learning_rate")


def is_recorded(path):
    """Return whether `LossRecorder` or `save` wrote a file."""
    if not isinstance(path, Path) or path.is_dir():
        return False
    if path.suffix == ".npz":
        return True
    with path.open("rb") as file:
        header = file.readline(200).strip().split(b",")
    return header == RECORDED or {*RECORDED[:3], b"run"} <= set(header) <= {*RECORDED, b"run"}


def read(path, run):
    text = path.read_text(encoding="utf-8-sig")
    whole = text[: text.rfind("\n") + 1]  # a line without its end was cut off
    reader = csv.DictReader(whole.splitlines())
    missing = {"step", "loss", "learning_rate"} - set(reader.fieldnames or ())
    if missing:
        raise ValueError(f"it has no column {', '.join(sorted(missing))}")
    rows = [(reader.line_num, row) for row in reader]
    if isinstance(run, dict):
        rows, run = _selected(rows, run), None
    tables = _tables(rows)
    if not tables:
        raise ValueError("it has no updates")
    try:
        return _columns(one_run(tables, run))
    except SeveralRunsError as error:
        apart = [] if "run" in rows[0][1] else telling([row for _, row in rows], lambda row: int(row["step"]))
        if run is not None or not apart:
            raise
        choice = {name: rows[0][1][name] for name in apart}
        raise SeveralRunsError(f"{error}. They are distinguished by {', '.join(apart)}, too, as run={choice}") from error


def _selected(rows, wanted):
    """The rows with certain values in certain columns."""
    missing = wanted.keys() - rows[0][1].keys() if rows else ()
    if missing:
        raise ValueError(f"it has no column {', '.join(sorted(missing))}")
    return [(line, row) for line, row in rows if all(row[name] == str(value) for name, value in wanted.items())]


def _tables(rows):
    """For each run its updates: a dictionary from step to numbers."""
    tables: dict = {}
    others: dict = {}
    line = 0
    numbers = numbers_of_runs(row for _, row in rows)
    for line, row in rows:
        try:
            number, step = next(numbers), int(row["step"])
            tables.setdefault(number, {})[step] = _numbers(row)
        except (TypeError, ValueError) as error:
            raise ValueError(f"line {line} is malformed, {error}") from error
        _refuse_mixture(others.setdefault((number, step), row), row)
    return tables


def _refuse_mixture(one, other):
    """An update that is there twice, in rows that differ in a column of another kind, belongs to two runs."""
    names = [name for name in other if name not in KNOWN and one[name] != other[name]]
    if names:
        choice = {name: other[name] for name in names}
        raise SeveralRunsError(f"it holds several runs, distinguished by {', '.join(names)}: choose one, as by run={choice}")


def _numbers(row):
    if None in row or None in row.values():
        raise ValueError("its fields are not those of the first line")
    given = [name for name in ("batch_size", "tokens") if row.get(name)]
    return {name: float(row[name]) for name in ("loss", "learning_rate", *given)}


def _columns(table):
    """The columns of a run's updates, without those that some update lacks."""
    missing = sorted(set(range(len(table))) - table.keys())
    if missing:
        raise ValueError(f"it lacks update {missing[0]} of the run")
    rows = [table[step] for step in range(len(table))]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0] if all(name in row for row in rows)}
    return {"rates": columns.pop("learning_rate"), **columns}

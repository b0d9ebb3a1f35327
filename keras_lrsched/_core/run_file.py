"""CSV files in which runs are recorded one after the other, each with a number of its own in the last column, `run`."""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_lrsched._core.untrusted_file import refused


class SeveralRunsError(ValueError):
    """A file holds several runs, and it is not clear which one is meant."""


class RunFile:
    """A CSV file that rows are appended to; each run has the next number that is free, from 0.

    A run that is resumed goes on under its own number: what it wrote after its state was saved is cut off.

    Args:
        path: The file; its folder is made.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path).expanduser()
        self.begin_run()

    def begin_run(self) -> None:
        """Begin a new run."""
        self._run: int | None = None
        self._rows, self._is_ready = 0, False

    def open(self, columns: Sequence[str]) -> None:
        """Check the header of the file, or write one: the names in `columns`, and `run`.

        Raises:
            ValueError: If there is a file with other columns.
        """
        self.columns = [*columns, "run"]
        if not self.path.exists() or not self.path.stat().st_size:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(_lines([self.columns]))
            return
        with refused("recorded runs", self.path), self.path.open(newline="") as file:
            present = next(csv.reader(file))
        if present != self.columns:
            raise ValueError(
                f"`path` must be a new file or one with the columns {', '.join(self.columns)}. "
                f"Received: path={str(self.path)!r} with the columns {', '.join(present):.200}"
            )

    def write(self, rows: Sequence) -> None:
        if not rows:
            return
        if not self._is_ready:
            self._find_place()
        with self.path.open("ab", buffering=0) as file:  # at once, also if another process appends to the file
            file.write(_lines([*row, self._run] for row in rows))
        self._rows += len(rows)

    def state(self) -> dict:
        return {"run": self._run, "rows": self._rows}

    def restore_state(self, state: dict) -> None:
        self._run, self._rows, self._is_ready = state["run"], state["rows"], False

    def _find_place(self) -> None:
        self.open(self.columns[:-1])
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # a line without its end was cut off
        rows = list(csv.reader(io.StringIO(whole.decode(), newline="")))[1:]
        if self._run is None:
            self._run = max((int(row[-1]) for row in rows), default=-1) + 1
        number, own, left = str(self._run), 0, []
        for row in rows:
            own += row[-1] == number
            if row[-1] != number or own <= self._rows:
                left.append(row)
        if len(left) < len(rows) or len(whole) < len(content):
            new = self.path.with_name(self.path.name + ".new")
            new.write_bytes(_lines([self.columns, *left]))
            os.replace(new, self.path)
        self._is_ready = True


def numbers_of_runs(rows: Iterable) -> Iterator:
    """The number of the run of each row, given as a dictionary of strings.

    In a file without a column `run`, a row with `step` 0 begins the next run.
    """
    number = -1
    for row in rows:
        if "run" in row:
            number = int(row["run"])
        elif number < 0 or row.get("step") == "0":
            number += 1
        yield number


def one_run(tables: dict[int, dict], run: int | Sequence[int] | None = None) -> Any:
    """The rows of one run, by step, with those of the runs that it goes on from.

    A run that begins at a step above 0 goes on from the earlier run that reaches this step.

    Args:
        tables: A dictionary from the number of a run to its rows, a dictionary from step to row.
        run: The number of a run, or a list of runs that go on from each other. Defaults to `None`: the only one.

    Raises:
        SeveralRunsError: If there is no such run, or several and none is chosen.
    """
    spans = {number: (min(table), max(table)) for number, table in tables.items()}
    rows: dict = {}
    for number in _chosen(spans, run):
        rows = {step: row for step, row in rows.items() if step < spans[number][0]} | tables[number]
    return rows


def _chosen(spans: dict[int, tuple[int, int]], run: int | Sequence[int] | None) -> Any:
    if isinstance(run, (list, tuple)):
        chosen = list(run)
    elif run is not None:
        chosen = [run]
    else:
        lines = {number: _line(number, spans) for number in spans}
        ends = [number for number in spans if not any(number in line[:-1] for line in lines.values())]
        if len(ends) != 1:
            raise SeveralRunsError(f"it holds several runs, of which one has to be chosen by `run`: {_named(ends, spans)}")
        return lines[ends[0]]
    if not chosen or any(number not in spans for number in chosen):
        raise SeveralRunsError(f"there is no run {run!r}, but {_named(spans, spans)}")
    return chosen if len(chosen) > 1 else _line(chosen[0], spans)


def _line(number: int, spans: dict[int, tuple[int, int]]) -> list:
    """A run after those that it goes on from."""
    first = spans[number][0]
    earlier = [it for it in spans if it < number and spans[it][0] < first <= spans[it][1] + 1]
    lines = {it: _line(it, spans) for it in earlier}
    ends = [it for it in earlier if not any(it in line[:-1] for line in lines.values())]
    if len(ends) > 1:
        choices = " or ".join(f"run={[it, number]}" for it in ends)
        raise SeveralRunsError(f"run {number} begins at step {first}, which several runs lead to: choose {choices}")
    return [*(lines[ends[0]] if ends else []), number]


def _named(numbers: Iterable[int], spans: dict[int, tuple[int, int]]) -> Any:
    return ", ".join(f"{it} (steps {spans[it][0]} to {spans[it][1]})" for it in numbers)


def _lines(rows: Iterable) -> Any:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()

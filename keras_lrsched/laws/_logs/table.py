"""Tables: Keras' CSVLogger, Lightning, Ultralytics, pandas, and the exports of W&B and TensorBoard."""

import csv
import io
import itertools

from keras_lrsched.laws._logs import names
from keras_lrsched.laws._logs.log import LogError, RunLog

OF_A_RUN = " - "
"""Stands between the name of a run and that of a metric in the tables that W&B exports from a chart."""


def begins(text):
    """Return whether a text begins with the header of a table: one of its cells is the usual name of a counter."""
    header_line = _header_line(_without_comments(text))
    cells = header_line.replace(";", ",").replace("\t", ",").split(",")
    return any(names.plain(cell.strip('"')) in (*names.STEPS, *names.EPOCHS) for cell in cells)


def read(text) -> RunLog:
    """The rows of a table: separated by commas, semicolons or tabs, blanks around cells, comments, headers that come again.

    A last line with fewer cells than the header was cut off and is left out.
    """
    lines = _without_comments(text)
    delimiter = max(",;\t", key=_header_line(lines).count)
    rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter, skipinitialspace=True))
    cells = [[cell.strip() for cell in row] for row in rows]
    numbered = [(line, row) for line, row in enumerate(cells, 1) if any(row)]
    if not numbered:
        raise LogError("The file is empty")
    header = numbered[0][1]
    if len(set(header)) < len(header):
        raise LogError(f"The first line of a table must have different names. It has: {', '.join(header)}")
    if len(numbered[-1][1]) < len(header) and not text.endswith("\n"):
        numbered.pop()
    parts: list[list[dict]] = []
    for line, row in numbered:
        if row == header:
            parts.append([])
        elif len(row) != len(header):
            raise LogError(f"Line {line} of the table has {len(row)} cells, and the first one {len(header)}")
        else:
            parts[-1].append(_row(header, row, delimiter))
    parts = [part for part in parts if part]
    return RunLog(named=_by_run(header, parts)) if any(OF_A_RUN in name for name in header) else RunLog(parts)


def _without_comments(text):
    """The lines, of which those that begin with # are empty."""
    return ["" if line.startswith("#") else line for line in text.splitlines()]


def _header_line(lines):
    return next((line for line in lines if line.strip()), "")


def _row(header, cells, delimiter):
    """A dictionary of the cells; a decimal comma becomes a point where cells are not separated by commas."""
    if delimiter == ";":
        cells = [cell.replace(",", ".") if _is_number(cell.replace(",", ".", 1)) else cell for cell in cells]
    return {name: cell for name, cell in zip(header, cells, strict=True) if name}


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _by_run(header, parts):
    """The rows of each run, for columns `RUN - METRIC` beside those that all have in common, as the step."""
    common = [name for name in header if OF_A_RUN not in name]
    runs: dict[str, dict[str, str]] = {}
    for name in header:
        run, mark, metric = name.rpartition(OF_A_RUN)
        if mark and not metric.endswith(("__MIN", "__MAX")):
            runs.setdefault(run, {})[name] = metric
    rows = list(itertools.chain.from_iterable(parts))
    return {
        run: [
            [
                {name: row[name] for name in common} | {metric: row[name] for name, metric in metrics.items()}
                for row in rows
                if any(row[name] for name in metrics)
            ]
        ]
        for run, metrics in runs.items()
    }

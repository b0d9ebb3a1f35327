"""One of the runs in a log, and the columns that distinguish them."""

from keras_lrsched.laws._logs import names
from keras_lrsched.laws._logs.log import LogError, Row, columns_of, number


def parts_of(log, run):
    """The parts of the log that `run` selects by a name or by columns, and `None`; else all parts and `run`."""
    parts, run = _named(log, run)
    if isinstance(run, dict):
        return selected(parts, run), None
    if isinstance(run, int) and "run" in columns_of([row for part in parts for row in part]):
        return selected(parts, {"run": run}), None
    return parts, run


def _named(log, run):
    if not log.named:
        if isinstance(run, str):
            raise LogError(f"The runs of this log have no names: pass run=None, a number, or a dictionary, not {run!r}")
        return log.parts, run
    if run is None and len(log.named) == 1:
        return next(iter(log.named.values())), None
    if run not in log.named:
        raise LogError(f"The log holds {len(log.named)} runs: pass run=..., one of {', '.join(map(repr, log.named))}")
    return log.named[run], None


def selected(parts, wanted):
    """The rows with certain values in certain columns.

    Raises:
        LogError: If there is no such column, or no such row.
    """
    rows = [row for part in parts for row in part]
    missing = wanted.keys() - set(columns_of(rows))
    if missing:
        raise LogError(f"The log has no column {', '.join(sorted(missing))}: it has {', '.join(columns_of(rows))}")
    found = [[row for row in part if all(_equal(row.get(name), value) for name, value in wanted.items())] for part in parts]
    if not any(found):
        values = {name: ", ".join(dict.fromkeys(str(row.get(name)) for row in rows)) for name in wanted}
        raise LogError(f"The log has no rows with run={wanted}: it has {values!s:.200}")
    return [part for part in found if part]


def _equal(cell, value):
    if str(cell) == str(value):
        return True
    try:
        return float(cell) == float(value)
    except (TypeError, ValueError):
        return False


def split(parts, count):
    """The runs one after the other: each begins where a part does, or where the count goes back.

    Args:
        parts: Lists of rows.
        count: A function from a row to its count, or `None`.
    """
    runs: list[list[Row]] = []
    for part in parts:
        runs.append([])
        last = None
        for row in part:
            now = count(row)
            if now is not None and last is not None and now < last:
                runs.append([])
            runs[-1].append(row)
            last = last if now is None else now
    return runs


def one_of(parts, run, count):
    """The rows of one run.

    Args:
        parts: Lists of rows.
        run: The number of a run, from 0; a list of runs, of which each goes on from the one before; or `None`: the only one.
        count: A function from a row to its count, or `None`.

    Raises:
        LogError: If there are several runs and none is chosen, or there is no such run.
    """
    runs = split(parts, count)
    if run is None:
        # rows of several runs may also follow one another with a count that never goes back
        mixed = _differing([row for part in parts for row in part], names.RUNS)
        if len(runs) > 1 or mixed:
            raise LogError(_several(runs, parts, count, mixed))
        return runs[0]
    chosen = list(run) if isinstance(run, (list, tuple)) else [run]
    if not chosen or any(isinstance(one, bool) or one not in range(len(runs)) for one in chosen):
        raise LogError(f"The log has no run {run!r}: {_spans(runs, count)}")
    rows: list[Row] = []
    for one in chosen:
        begin = next((now for row in runs[one] if (now := count(row)) is not None), 0)
        rows = [row for row in rows if (count(row) or 0) < begin] + runs[one]
    return rows


def _differing(rows, columns):
    """Those of the columns that have several values."""
    named = [name for name in columns_of(rows) if names.plain(name) in columns]
    return [name for name in named if len({str(row[name]) for row in rows if row.get(name) not in (None, "")}) > 1]


def _several(runs, parts, count, mixed):
    rows = [row for part in parts for row in part]
    columns = telling(rows, count) if len(runs) > 1 else mixed
    if not columns:
        return f"The log holds several runs, one after the other: pass run=..., the number of one. {_spans(runs, count)}"
    values = "; ".join(f"{name}: {', '.join(dict.fromkeys(str(row.get(name, '')) for row in rows)):.60}" for name in columns)
    example = {name: str(rows[0].get(name, "")) for name in columns}
    return f"The log holds several runs, distinguished by {', '.join(columns)}: pass run=..., as {example}. It has {values}"


def telling(rows, count):
    """The columns that distinguish runs: for each of their values the count of the rows increases.

    Of those that do together, as few as possible; none if no columns do.
    """
    measured = {*names.STEPS, *names.EPOCHS, *names.LOSSES, *names.RATES}
    columns = [name for name in columns_of(rows) if names.plain(name) not in measured and _is_label(rows, name)]
    if not columns or not _separate(rows, columns, count):
        return []
    for name in list(columns):
        fewer = [other for other in columns if other != name]
        if fewer and _separate(rows, fewer, count):
            columns = fewer
    return columns


def _is_label(rows, name):
    """Return whether a column has few different values, words or whole numbers, in all rows."""
    values = [row.get(name) for row in rows]
    if any(value in (None, "") for value in values) or not 1 < len(set(map(str, values))) <= len(rows) / 2:
        return False
    try:
        numbers = [number(value, name) for value in values]
    except LogError:
        return True
    return all(found is not None and found.is_integer() for found in numbers)


def _separate(rows, columns, count):
    last: dict = {}
    for row in rows:
        now = count(row)
        key = tuple(str(row[name]) for name in columns)
        if now is None or now <= last.get(key, now - 1):
            return False
        last[key] = now
    return True


def _spans(runs, count):
    """The runs, with the counts of each, as text."""
    spans = []
    for one, rows in enumerate(runs[:8]):
        counts = [now for row in rows if (now := count(row)) is not None]
        spans.append(f"{one} (from {counts[0]} to {counts[-1]})" if counts else f"{one}")
    return f"It has {len(runs)}: {', '.join(spans)}{', ...' if len(runs) > 8 else ''}"

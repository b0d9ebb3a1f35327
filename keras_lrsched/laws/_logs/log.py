"""RunLog: the rows of a log, whatever form it had."""

import math
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


class LogError(ValueError):
    """A log that cannot be read with the given arguments; the message ends with what to pass."""


@dataclass(frozen=True)
class RunLog:
    """The rows of a log; a row is a dictionary from the names of columns to what is given there.

    `parts` are lists of rows that follow one another, such as those behind each header of a table. A log in which runs have
    names has `named`, a dictionary from the name to the parts, instead.
    """

    parts: list[list[Row]] = field(default_factory=list)
    named: dict[str, list[list[Row]]] = field(default_factory=dict)
    first: int | None = None
    """The number that the form gives to the first update or epoch; `None` if that depends on the program."""
    window_mean: bool = False
    """Whether the loss of a row is the mean over all updates since the row before."""


def number(value, name):
    """A cell as a float; `None` if it is empty.

    Raises:
        LogError: If it is something else.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise LogError(f"The column {name!r} must hold numbers: it has {value!r:.50}") from None


def whole(value, name):
    """A cell as an integer; `None` if it is empty."""
    found = number(value, name)
    if found is None:
        return None
    if not math.isfinite(found) or found != int(found):
        raise LogError(f"The column {name!r} counts updates or epochs and must hold whole numbers: it has {value!r:.50}")
    return int(found)


def columns_of(rows):
    """The names of all columns, in order."""
    return list(dict.fromkeys(name for row in rows for name in row))

"""Tabulated: a schedule given by its values, such as one that was recorded, optimized or found by a search."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_lrsched._core.registry import register
from keras_lrsched._core.untrusted_file import refused
from keras_lrsched.schedules._arrays import to_float, to_int
from keras_lrsched.schedules.schedule import Schedule


@register(
    title="one value an update, from a list or a file",
    kind="combinator",
)
class Tabulated(Schedule):
    """One value an update; the last one stays: value(t) = values[min(t, len(values) - 1)].

    Args:
        values: A non-empty sequence of non-negative finite numbers, one an update. They are saved with the schedule.

    Raises:
        ValueError: If `values` is empty, not one-dimensional, or holds a negative or non-finite number.

    Example:

    >>> Tabulated([0.1, 0.3, 0.2]).values(5)
    array([0.1, 0.3, 0.2, 0.2, 0.2])
    """

    def __init__(self, values: Sequence[float] | np.ndarray) -> None:
        self._table = _checked(values)
        self.total_steps = len(self._table)

    def compute(self, step: Any, xp: Any) -> Any:
        index = xp.clip(step, 0, len(self._table) - 1)
        return xp.take(to_float(self._table, xp), to_int(index, xp))

    def save(self, path: str | os.PathLike) -> None:
        """Write the values into a JSON file, which `load` and `keras-lrsched compare --schedules file:PATH` read."""
        Path(path).expanduser().write_text(json.dumps({"values": self._table.tolist()}) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """The schedule in a file that `save` wrote.

        Raises:
            ValueError: If the file holds none.
        """
        with refused("schedule", path):
            return cls(json.loads(Path(path).expanduser().read_text())["values"])

    def arguments(self) -> dict[str, Any]:  # the attribute `values` is the method of every schedule
        return {"values": self._table.tolist()}


def _checked(values: Any) -> np.ndarray:
    try:
        table = np.array(values, "float64")
    except (OverflowError, TypeError, ValueError):
        table = np.array(np.nan)
    if table.ndim != 1 or not table.size or not np.all(np.isfinite(table)) or np.any(table < 0):
        raise ValueError(
            "`values` must be a non-empty, one-dimensional sequence of non-negative finite numbers. "
            f"Received: values={values!r:.200}"
        )
    return table

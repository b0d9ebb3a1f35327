"""Progress of a study on standard error: optimizer steps of finished runs, and the time that is left."""

import sys
from types import TracebackType
from typing import Any

from keras_lrsched.study.trial import Outcome


class Progress:
    """Bar that advances with each finished run, in optimizer steps.

    Args:
        expected: Steps of all runs, as far as they are known; a search may need more.
        verbose: 0 for none.
    """

    def __init__(self, expected: int, verbose: int = 1) -> None:
        self._expected, self._planned, self._done = expected, 0, 0
        self._bar: Any = _bar() if verbose else None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("study", total=self._expected, now="")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def plan(self, steps: int) -> None:
        """Count further steps that are to be made."""
        self._planned += steps
        self._expected = max(self._expected, self._planned)
        if self._bar is not None:
            self._bar.update(self._task, total=self._expected)

    def forget(self, steps: int) -> None:
        """Leave out steps that an earlier program has made, which take no time now."""
        self._expected = max(self._planned, self._expected - steps)
        if self._bar is not None:
            self._bar.update(self._task, total=self._expected)

    def add(self, outcome: Outcome) -> None:
        """Count a finished run."""
        if self._bar is not None:
            note = "" if outcome.status == "finished" else f" ({outcome.status})"
            self._bar.update(self._task, advance=outcome.trial.budget, now=f"{outcome.trial}{note}")


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    def whole() -> Column:
        return Column(no_wrap=True, min_width=8)

    now = TextColumn("{task.fields[now]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    columns = BarColumn(20), MofNCompleteColumn(table_column=whole()), TimeRemainingColumn(table_column=whole()), now
    return Bar(*columns, console=Console(stderr=True), expand=True, disable=sys.stderr is None)

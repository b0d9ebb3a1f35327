"""The table of a study: a row of verdicts for each pair of optimizer and schedule."""

import csv
import dataclasses
import html
import io
import math
from pathlib import Path
from typing import Any

from keras_lrsched.study.statistics import Interval, Pair


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: a pair at its best peak, and how it compares with the reference.

    Args:
        optimizer: Its label.
        schedule: Its label.
        learning_rate: The peak. NaN if no peak has an outcome of full budget for each seed.
        values: The final value of each seed, in the order of the seeds; infinite where a trial did not finish.
        mean: Over the seeds.
        deviation: The standard deviation over the seeds; NaN for one seed.
        group: 1 for what is not distinguishable from the best, 2 for what is not from the best of the others, and so on.
        difference: The mean difference from the reference; NaN for the reference.
        interval: That of `difference`, simultaneous for all rows.
        verdict: `"reference"`, `"better"`, `"worse"` or `"not distinguishable"`; without a peak `"incomplete"`, or `"none
            finished"` if each trial of the pair diverged or failed.
        seeds_needed: The number of seeds at which the difference would be distinguishable; NaN where it is.
        steps_to_target: The median over the seeds; infinite where it was not reached.
        seconds_to_target: The median over the seeds; infinite where it was not reached.
        basin: The learning rates between which the value is at most a tenth worse.
        sensitivity: The learning-rate sensitivity; NaN where it is unknown.
        trials: The number of trials of the pair, of any budget.
        unfinished: The number of those that diverged or failed.
        seconds: The mean duration of a trial at the peak.
    """

    optimizer: str
    schedule: str
    learning_rate: float
    values: tuple[float, ...]
    mean: float
    deviation: float
    group: int
    difference: float
    interval: Interval
    verdict: str
    seeds_needed: float
    steps_to_target: float
    seconds_to_target: float
    basin: Interval
    sensitivity: float
    trials: int
    unfinished: int
    seconds: float

    @property
    def pair(self) -> Pair:
        """Optimizer and schedule."""
        return self.optimizer, self.schedule


@dataclasses.dataclass(frozen=True)
class Table:
    """The table of a study: displayed as HTML in a notebook, as text by `print`.

    Args:
        rows: A list of `Row`s, best first.
        metric: The metric that `mean` is of.
        label: The origin of the peaks.
        reference: The setting that the differences are from.
        target: The value for `steps_to_target`.
        seeds: The number of seeds.
        level: The probability with which all verdicts are right.
    """

    rows: list[Row]
    metric: str
    label: str
    reference: str
    target: float
    seeds: int
    level: float

    @property
    def header(self) -> list[str]:
        """The columns of `cells`."""
        return [
            "group",
            "optimizer",
            "schedule",
            "peak",
            self.metric,
            "difference",
            "verdict",
            "seeds needed",
            "steps to target" if math.isnan(self.target) else f"steps to {self.target:.4g}",
            "basin",
            "sensitivity",
            "trials",
            "seconds",
        ]

    @property
    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [_cells(row) for row in self.rows]

    @property
    def caption(self) -> str:
        """The conditions in a sentence or two."""
        return (
            f"{self.label}; {self.seeds} seed{'s' * (self.seeds != 1)}. Mean ± standard deviation over seeds at the end; "
            f"difference from {self.reference}, paired by seed, with simultaneous intervals of {100 * self.level:.3g} %. "
            "Settings of one group are not distinguishable from its first."
        )

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.cells]
        text = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
        return "\n".join([f"{self.caption}", "", *text])

    def to_csv(self, path: str | Path) -> None:
        """Write the rows, unrounded, into a CSV file."""
        write_csv(Path(path).expanduser(), [flat(row) for row in self.rows])

    def __str__(self) -> str:
        lines = [self.header, *self.cells]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([*text, "", self.caption])

    def __len__(self) -> int:
        return len(self.rows)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.header)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>" for line in self.cells)
        caption = html.escape(self.caption)
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: Row) -> list[str]:
    mean = _number(row.mean) if math.isnan(row.deviation) else f"{_number(row.mean)} ± {row.deviation:.2g}"
    difference = (
        "" if math.isnan(row.difference) else f"{row.difference:+.2g} [{row.interval[0]:+.2g}, {row.interval[1]:+.2g}]"
    )
    unfinished = f" ({row.unfinished} unfinished)" if row.unfinished else ""
    return [
        str(row.group),
        row.optimizer,
        row.schedule,
        _number(row.learning_rate),
        mean,
        difference,
        row.verdict,
        _count(row.seeds_needed, "> 10000"),
        _count(row.steps_to_target, "not reached"),
        "" if math.isnan(row.basin[0]) else f"{row.basin[0]:.2g} to {row.basin[1]:.2g}",
        _number(row.sensitivity),
        f"{row.trials}{unfinished}",
        f"{row.seconds:.1f}",
    ]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"


def _count(value: float, infinite: str) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if math.isfinite(value) else infinite


def flat(row: Row) -> dict[str, Any]:
    """The fields of a row, with the ends of its intervals apart."""
    fields = dataclasses.asdict(row)
    fields["values"] = " ".join(map(repr, row.values))
    for name in ("interval", "basin"):
        fields[f"{name}_low"], fields[f"{name}_high"] = fields.pop(name)
    return fields


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows into a CSV file, whose columns are all names that occur."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")

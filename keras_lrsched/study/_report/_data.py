"""The content of a report, from which the page and the Markdown file are made."""

import dataclasses
import json
import math
from typing import Any

import numpy as np

from keras_lrsched.study import statistics
from keras_lrsched.study._report._numbers import json_number, json_numbers, plain, smoothed, spread, thinned
from keras_lrsched.study.results import Results
from keras_lrsched.study.statistics import Pair
from keras_lrsched.study.table import Row, Table
from keras_lrsched.study.trial import Outcome

TOLERANCE = 0.1
SHOWN = 6
"""The number of pairs that the charts show at first."""
POINTS = 200
COLORS, DASHES = 8, 4


@dataclasses.dataclass(frozen=True)
class Report:
    """The results with their table, which is computed once.

    Args:
        results: Those of the study.
        title: The heading.
    """

    results: Results
    title: str
    table: Table = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", self.results.table(tolerance=TOLERANCE))

    @property
    def metric(self) -> str:
        """The metric by which settings are compared."""
        return self.results.metric

    @property
    def answer(self) -> str:
        """The best setting, and what is not distinguishable from it."""
        best, *others = self.table.rows
        if not math.isfinite(best.mean):
            return f"No setting has finished with each of {_count(len(self.results.seeds), 'seed')}."
        kind = "lowest" if self.results.mode == "min" else "highest"
        value = spread(best.mean, best.deviation)
        text = f"{label(best.pair)} with a peak of {plain(best.learning_rate)} has the {kind} {self.metric}: {value}."
        equals = [label(row.pair) for row in others if row.group == 1]
        if equals:
            return f"{text} Not distinguishable from it: {_listed(equals, 5)}."
        return f"{text} Each of the others is worse." if others and all(row.verdict == "worse" for row in others) else text

    @property
    def conditions(self) -> str:
        """The conditions under which the answer was found."""
        results = self.results
        return (
            f"{_opened(results.label)}; {_count(len(results.pairs), 'pair')} of optimizer and schedule, "
            f"{_count(results.budget, 'optimizer step')}, {_count(len(results.seeds), 'seed')}; "
            f"{_count(len(results.outcomes), 'run')} in all."
        )

    @property
    def caption(self) -> str:
        """The conditions of the table of verdicts."""
        return _opened(self.table.caption)

    @property
    def warnings(self) -> list[str]:
        """Reasons for which the answer is to be taken with care."""
        found = []
        if not self.results.tuned:
            text = "The peaks were not tuned for each pair: the comparison is one at common peaks, and may favor pairs whose"
            found.append(f"{text} best peak is close to those.")
        if len(self.results.seeds) == 1:
            found.append("There is one seed: differences cannot be distinguished from chance.")
        unfinished = sum(outcome.status != "finished" for outcome in self.results.outcomes)
        if unfinished:
            total = len(self.results.outcomes)
            found.append(f"{unfinished} of {_count(total, 'run')} diverged or failed: they count as infinitely bad.")
        return found

    @property
    def columns(self) -> list[str]:
        """The header of `rows`; the first one names the pair."""
        left = [name for name in self.table.header if name not in ("optimizer", "schedule")]
        return ["optimizer, schedule", *left]

    @property
    def rows(self) -> list[list[str]]:
        """The cells of the table of verdicts."""
        rows = []
        for row, cells in zip(self.table.rows, self.table.cells, strict=True):
            named = dict(zip(self.table.header, cells, strict=True))
            rows.append([label(row.pair), *(named[name] for name in self.columns[1:])])
        return rows

    @property
    def problems(self) -> list[list[str]]:
        """The runs that did not finish: pair, reason, number and peaks."""
        wrong = [outcome for outcome in self.results.outcomes if outcome.status != "finished"]
        found: dict[tuple[str, str], list[Outcome]] = {}
        for outcome in wrong:
            found.setdefault((label(outcome.trial.pair), _reason(outcome)), []).append(outcome)
        return [[pair, reason, str(len(them)), _peaks(them)] for (pair, reason), them in found.items()]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """The settings of the study."""
        return [(str(name), _shortened(value)) for name, value in self.results.settings.items()]

    @property
    def budgets(self) -> list[int]:
        """The budgets of the trials, the one that shows most peaks first."""
        widest = self.results.widest_budget
        return [widest, *(budget for budget in reversed(self.results.budgets) if budget != widest)]

    @property
    def curve_names(self) -> list[str]:
        """The curves that can be drawn, that of the metric first."""
        names = {name for outcome in self.results.outcomes for name in outcome.evaluations}
        return list(dict.fromkeys([self.metric, *sorted(names), "loss", "learning_rate"]))

    @property
    def has_profile(self) -> bool:
        """Whether any run reached the target."""
        times = self.results.times_to_target() if math.isfinite(self.results.target) else {}
        return any(np.any(np.isfinite(each)) for each in times.values())

    @property
    def has_differences(self) -> bool:
        """Whether any other pair can be compared with the best."""
        return any(math.isfinite(row.difference) for row in self.table.rows)

    @property
    def differences(self) -> list[dict[str, Any]]:
        """The differences from the best, paired by seed; `"pair"` is the place in the table."""
        return [self._difference(row, place) for place, row in enumerate(self.table.rows)]

    def payload(self) -> dict[str, Any]:
        """Return what the script of the page draws; numbers that are not finite are `None`."""
        pairs = [row.pair for row in self.table.rows]
        return {
            "metric": self.metric,
            "mode": self.results.mode,
            "widest": self.results.widest_budget,
            "pairs": [self._pair(row, place) for place, row in enumerate(self.table.rows)],
            "rates": {str(budget): [self._rates(pair, budget) for pair in pairs] for budget in self.budgets},
            "curves": {name: [self._curve(pair, name) for pair in pairs] for name in self.curve_names},
            "differences": self.differences,
            "profile": self._profile(pairs) if self.has_profile else None,
        }

    def _pair(self, row: Row, place: int) -> dict[str, Any]:
        color, dash = self._style(row.pair)
        return {
            "label": label(row.pair),
            "optimizer": row.optimizer,
            "schedule": row.schedule,
            "peak": json_number(row.learning_rate),
            "basin": None if math.isnan(row.basin[0]) else json_numbers(np.array(row.basin)),
            "shown": place < SHOWN,
            "color": color,
            "dash": dash,
        }

    def _style(self, pair: Pair) -> tuple[int, int]:
        """Color and dashes: one stands for the optimizer and the other for the schedule, where there are not too many."""
        names = [list(dict.fromkeys(each[side] for each in self.results.pairs)) for side in (0, 1)]
        by_color = 0 if len(names[0]) > len(names[1]) else 1
        if len(names[by_color]) <= COLORS and len(names[1 - by_color]) <= DASHES:
            return names[by_color].index(pair[by_color]), names[1 - by_color].index(pair[1 - by_color])
        place = self.results.pairs.index(pair)
        return place % COLORS, place // COLORS % DASHES

    def _rates(self, pair: Pair, budget: int) -> list[dict[str, Any]]:
        by_rate = self.results.by_rate(pair, budget)
        return [
            {
                "rate": json_number(rate),
                "mean": json_number(float(np.mean(values))),
                "values": json_numbers(np.array(values)),
            }
            for rate, values in by_rate.items()
        ]

    def _curve(self, pair: Pair, name: str) -> dict[str, Any] | None:
        """Mean and range over the seeds that finished, at the best peak."""
        curves = [_points(outcome, name) for outcome in self.results.at_peak(pair) if outcome.status == "finished"]
        shortest = min((len(steps) for steps, _ in curves), default=0)
        if not shortest:
            return None
        kept = thinned(shortest, POINTS)
        steps, values = curves[0][0][kept], np.stack([each[kept] for _, each in curves])
        ends = {"mean": values.mean(axis=0), "low": values.min(axis=0), "high": values.max(axis=0)}
        return {"x": steps.tolist()} | {end: json_numbers(each) for end, each in ends.items()}

    def _difference(self, row: Row, place: int) -> dict[str, Any]:
        values, best = self.results.values(row.pair), self.results.values(self.table.rows[0].pair)
        each = statistics.paired_differences(values, best) if values and best and place else np.array([])
        return {
            "pair": place,
            "values": json_numbers(each),
            "mean": json_number(row.difference),
            "low": json_number(row.interval[0]),
            "high": json_number(row.interval[1]),
            "verdict": row.verdict,
        }

    def _profile(self, pairs: list[Pair]) -> dict[str, Any]:
        profile = self.results.profile()
        return {
            "multiples": json_numbers(profile.multiples),
            "shares": [json_numbers(profile.shares[pair]) for pair in pairs],
            "scores": [json_number(profile.scores[pair]) for pair in pairs],
        }


def label(pair: Pair) -> str:
    """Return the name of a pair."""
    return ", ".join(pair)


def _points(outcome: Outcome, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The curve of an outcome, by steps that are done; empty if it has none of this name."""
    if name in outcome.evaluations:
        values = np.asarray(outcome.evaluations[name], float)
        return np.asarray(outcome.evaluated_at)[: len(values)], values
    if name == "loss":
        return np.arange(1, len(outcome.loss) + 1), smoothed(outcome.loss)
    if name == "learning_rate":
        return np.arange(1, len(outcome.learning_rate) + 1), np.asarray(outcome.learning_rate, float)
    return np.array([], int), np.array([])


def _reason(outcome: Outcome) -> str:
    return outcome.error or outcome.status


def _peaks(outcomes: list[Outcome]) -> str:
    return ", ".join(plain(rate) for rate in sorted({outcome.trial.learning_rate for outcome in outcomes}))


def _shortened(value: Any, length: int = 400) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"


def _opened(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _listed(names: list[str], most: int) -> str:
    more = len(names) - most
    return "; ".join(names[:most]) + (f"; and {more} more" if more > 0 else "")

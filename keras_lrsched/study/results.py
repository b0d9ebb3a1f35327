"""Results of a study: the best setting, the table of verdicts, curves, profiles and files.

A *pair* is an optimizer with a schedule, a *setting* a pair with its peak. A pair is represented by the peak of its lowest
mean over seeds among the trials of full budget, if it has an outcome for each seed; a trial that diverged or failed counts
as infinitely bad. The seeds by which a peak is chosen are those by which pairs are compared, so means are a little too good,
alike for all pairs with the same number of trials.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched.study import profiles, statistics
from keras_lrsched.study.journal import Journal
from keras_lrsched.study.statistics import Interval, Mode, Pair, Unit
from keras_lrsched.study.table import Row, Table, flat, write_csv
from keras_lrsched.study.trial import Outcome, Trial


@dataclasses.dataclass(frozen=True)
class Profile:
    """A performance profile: how often each pair is at most so many times as slow as the fastest.

    Args:
        multiples: Of the time of the fastest.
        shares: From each pair to the share of seeds, for each of `multiples`.
        scores: From each pair to its score, the area under the profile.
        target: The value that is to be reached.
    """

    multiples: np.ndarray
    shares: dict[Pair, np.ndarray]
    scores: dict[Pair, float]
    target: float


class Results:
    """The outcomes of a study, and what follows from them.

    Nothing depends on the order in which trials finished.

    Args:
        outcomes: `Outcome`s of all trials.
        metric: The metric by which settings are compared. Defaults to `"val_loss"`.
        mode: `"min"` if lower values are better, `"max"` if higher ones are. Defaults to `"min"`.
        tuned: Whether the peak of each pair was searched. Defaults to `True`.
        settings: Those of the study; read are `"budget"` (steps of a full run; without it the largest of the trials),
            `"seeds"` (their number or a list; without it all that occur), `"optimizers"` and `"schedules"` (labels, in the
            order in which ties are listed), `"target"` (see `target`). Defaults to `None`.

    Raises:
        ValueError: If there are no outcomes, two of one trial, or the metric is not one of a finished trial.

    Example:

    >>> from keras_lrsched.study.trial import Outcome, Trial
    >>> def outcome(schedule, seed, value):
    ...     evaluations = {"val_loss": np.array([1.0, value])}
    ...     trial = Trial("adamw", schedule, 0.001, budget=2, seed=seed)
    ...     loss, rate, evaluated_at = np.array([2.0, 1.0]), np.full(2, 0.001), np.array([1, 2])
    ...     return Outcome(trial, "finished", loss, rate, evaluated_at, evaluations, seconds=1.0)
    >>> runs = [outcome("cosine", seed, 0.5 + 0.01 * seed) for seed in range(3)]
    >>> runs += [outcome("constant", seed, 0.7 + 0.01 * seed) for seed in range(3)]
    >>> results = Results(runs, tuned=False)
    >>> results.best().schedule, [row.verdict for row in results.table().rows]
    ('cosine', ['reference', 'worse'])
    """

    def __init__(
        self,
        outcomes: Iterable[Outcome],
        metric: str = "val_loss",
        mode: Mode = "min",
        tuned: bool = True,
        settings: Mapping[str, Any] | None = None,
    ):
        self.metric, self.mode, self.tuned = metric, validation.one_of("mode", mode, ("min", "max")), bool(tuned)
        self.settings = dict(settings or {})
        self.outcomes = self._in_order(outcomes)
        self._check(metric)
        self.budget = int(self.settings.get("budget") or max(outcome.trial.budget for outcome in self.outcomes))
        self.seeds = self._all_seeds()
        self.pairs = list(dict.fromkeys(outcome.trial.pair for outcome in self.outcomes))

    @classmethod
    def load(cls, directory: str | Path) -> "Results":
        """Read the results of a study, finished or not, from its directory.

        Args:
            directory: That of the study.

        Raises:
            OSError: If the directory holds no study, or cannot be read.
            ValueError: If its files hold something else.
        """
        journal = Journal(directory)
        settings = journal.settings()
        if settings is None:
            raise FileNotFoundError(f"The directory holds no study. Received: directory={str(directory)!r}")
        outcomes = journal.outcomes()
        if not outcomes:
            raise ValueError(f"No trial of the study has finished yet. Received: directory={str(directory)!r}")
        options = {name: settings[name] for name in ("metric", "mode", "tuned") if settings.get(name) is not None}
        return cls(outcomes, settings=settings, **options)

    @property
    def label(self) -> str:
        """The origin of the peaks: tuned for each pair, or common to all."""
        counts = sorted(set(self.trials_per_pair.values()))
        if self.tuned:
            number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            return f"tuned peaks, {number} trial{'s' * (counts[-1] != 1)} for each pair"
        grids = {tuple(sorted({outcome.trial.learning_rate for outcome in self.of_pair(pair)})) for pair in self.pairs}
        rates = sorted({rate for grid in grids for rate in grid})
        if len(rates) == 1:
            return f"untuned common peak {rates[0]:.4g}"
        kind = f"common grid of {len(rates)} peaks" if len(grids) == 1 else "peaks, not the same for all pairs"
        return f"untuned {kind}, {rates[0]:.4g} to {rates[-1]:.4g}"

    @property
    def trials_per_pair(self) -> dict[Pair, int]:
        """The number of trials of each pair, of any budget."""
        return {pair: len(self.of_pair(pair)) for pair in self.pairs}

    def of_pair(self, pair: Pair) -> list[Outcome]:
        """Return the outcomes of a pair, of any peak and budget.

        Raises:
            ValueError: If the study has no such pair.
        """
        if pair not in self._by_pair:
            raise ValueError(f"The study has no such pair; it has {sorted(self._by_pair)}. Received: {pair!r}")
        return self._by_pair[pair]

    def at_peak(self, pair: Pair) -> list[Outcome]:
        """Return the outcomes of a pair at its best peak, of full budget, one for each seed; none if it has no such peak."""
        self.of_pair(pair)
        return self._at_peaks[pair]

    def peak(self, pair: Pair) -> float:
        """Return the best peak of a pair; NaN if no peak has an outcome of full budget for each seed."""
        outcomes = self.at_peak(pair)
        return outcomes[0].trial.learning_rate if outcomes else math.nan

    def value(self, outcome: Outcome, metric: str | None = None) -> float:
        """Return the final value of an outcome, infinitely bad if it did not finish or is not finite.

        Args:
            outcome: One of `outcomes`.
            metric: Defaults to `None`: that of the results. Another one counts as one whose lower values are better.
        """
        value = outcome.final(metric or self.metric)
        return value if math.isfinite(value) else self._worst(metric)

    def values(self, pair: Pair) -> dict[int, float]:
        """Return the final values of a pair at its best peak, from each seed; empty if it has no such peak."""
        return {outcome.trial.seed: self.value(outcome) for outcome in self.at_peak(pair)}

    def ranked(self) -> list[Pair]:
        """Return the pairs in the order of the mean at their best peak, best first; those without one at the end."""
        sign = 1 if self.mode == "min" else -1

        def place(pair: Pair) -> tuple[bool, float]:
            values = list(self.values(pair).values())
            return not values, sign * float(np.mean(values)) if values else 0.0

        return sorted(self.pairs, key=place)

    def groups(self, level: float = 0.95) -> list[list[Pair]]:
        """Return the pairs in groups of equals, see `statistics.groups_of_equals`, without those that have no best peak."""
        values = {pair: self.values(pair) for pair in self.pairs}
        return statistics.groups_of_equals({pair: found for pair, found in values.items() if found}, self.mode, level)

    def best(self) -> Row:
        """Return the row of the pair with the best mean; `table` has what it is not distinguishable from.

        Raises:
            ValueError: If no pair has a peak with an outcome of full budget for each seed, or none of them finished.
        """
        row = self.table().rows[0]
        if not math.isfinite(row.mean):
            raise ValueError(
                f"No setting has finished with each of {len(self.seeds)} seeds at {self.budget} steps. "
                f"Received: {self._counts()}"
            )
        return row

    def table(self, reference: Pair | None = None, level: float = 0.95, tolerance: float = 0.1) -> Table:
        """Return the table of verdicts: a row for each pair at its best peak, best first.

        Args:
            reference: The pair to compare with. Defaults to `None`: the best.
            level: The probability with which all verdicts are right. Defaults to `0.95`.
            tolerance: How much worse a value of the basin may be, as a fraction. Defaults to `0.1`.

        Raises:
            ValueError: If the study has no such pair, or the pair has no peak with an outcome for each seed.
        """
        ranked, target = self.ranked(), self.target
        chosen: Pair = ranked[0] if reference is None else (reference[0], reference[1])
        compared = self.values(chosen)
        if reference is not None and not compared:
            raise ValueError(f"`reference` has no peak with an outcome for each seed. Received: reference={reference!r}")
        place = {pair: index for index, group in enumerate(self.groups(level), 1) for pair in group}
        sensitivities = self._known_sensitivity()
        rows = [
            Row(
                optimizer=pair[0],
                schedule=pair[1],
                learning_rate=self.peak(pair),
                **self._summary(pair),
                group=place.get(pair, len(set(place.values())) + 1),
                **self._comparison(pair, chosen, level),
                steps_to_target=self._median_time(pair, target, "steps"),
                seconds_to_target=self._median_time(pair, target, "seconds"),
                basin=self.basin(pair, tolerance),
                sensitivity=sensitivities.get(pair, math.nan),
            )
            for pair in ranked
        ]
        name = "the best" if reference is None else _named(chosen)
        return Table(rows, self.metric, self.label, name, target, len(self.seeds), level)

    @property
    def target(self) -> float:
        """The value that counts as reached: `settings["target"]`, or 2 % worse than the mean of the best pair.

        NaN if there is neither.
        """
        if self.settings.get("target") is not None:
            return float(self.settings["target"])
        values = list(self.values(self.ranked()[0]).values())
        mean = float(np.mean(values)) if values else math.nan
        if not math.isfinite(mean):
            return math.nan
        return mean + 0.02 * abs(mean) * (1 if self.mode == "min" else -1)

    def times_to_target(self, target: float | None = None, unit: Unit = "steps") -> dict[Pair, np.ndarray]:
        """Return when each pair, at its best peak, first reached a value, for each seed.

        Args:
            target: The value. Defaults to `None`: `Results.target`.
            unit: `"steps"`, or `"seconds"`: the same part of the trial's duration. Defaults to `"steps"`.

        Returns:
            From each pair to its times in the order of the seeds, infinite where the value was not reached.
        """
        validation.one_of("unit", unit, ("steps", "seconds"))
        target = self.target if target is None else validation.finite_float("target", target)
        return {pair: self._times(pair, target, unit) for pair in self.pairs}

    def profile(self, target: float | None = None, unit: Unit = "steps", r_max: float = 4.0, points: int = 100) -> Profile:
        """Return the performance profile over the seeds of this study; `score` has that over several studies.

        Args:
            target: As for `times_to_target`. Defaults to `None`.
            unit: As for `times_to_target`. Defaults to `"steps"`.
            r_max: The largest multiple of the fastest time. Defaults to `4.0`.
            points: The number of multiples. Defaults to `100`.
        """
        target = self.target if target is None else target
        times = np.stack(list(self.times_to_target(target, unit).values())) if math.isfinite(target) else self._never()
        multiples, shares = profiles.performance_profile(times, r_max, points)
        scores = map(float, profiles.score(times, r_max))
        return Profile(
            multiples, dict(zip(self.pairs, shares, strict=True)), dict(zip(self.pairs, scores, strict=True)), target
        )

    def by_rate(self, pair: Pair, budget: int | None = None, metric: str | None = None) -> dict[float, list[float]]:
        """Return the final values of a pair by learning rate, each in the order of its seeds.

        Args:
            pair: Optimizer and schedule.
            budget: Trials of this budget. Defaults to `None`: `widest_budget`.
            metric: Defaults to `None`: that of the results.

        Returns:
            From each learning rate, in increasing order, to values, infinitely bad where a trial did not finish.
        """
        budget = self.widest_budget if budget is None else budget
        found: dict[float, list[float]] = {}
        for outcome in self.of_pair(pair):
            if outcome.trial.budget == budget:
                found.setdefault(outcome.trial.learning_rate, []).append(self.value(outcome, metric))
        return dict(sorted(found.items()))

    @property
    def budgets(self) -> list[int]:
        """The budgets of the trials, in increasing order."""
        return sorted({outcome.trial.budget for outcome in self.outcomes})

    @property
    def widest_budget(self) -> int:
        """The budget at which most settings were tried, the largest one of several; a search tries most at a small one."""
        counts = {budget: {o.trial.setting for o in self.outcomes if o.trial.budget == budget} for budget in self.budgets}
        return max(counts, key=lambda budget: (len(counts[budget]), budget))

    def sensitivity(self) -> dict[Pair, float]:
        """Return the learning-rate sensitivity of each pair, see `statistics.learning_rate_sensitivity`.

        It is that of the validation loss, whatever the metric, over the learning rates that were tried at `widest_budget`.
        The initial loss is the mean training loss of the first step.

        Raises:
            ValueError: If the trials have no validation loss, or none began.
        """
        if not any("val_loss" in outcome.evaluations for outcome in self.outcomes):
            raise ValueError(f"The sensitivity needs `val_loss`. Received: the metrics {self._metrics()}")
        initial = self.initial_loss
        if not math.isfinite(initial):
            raise ValueError("The sensitivity needs the loss of a first step, and no trial began.")
        return {pair: self._sensitivity(pair, initial) for pair in self.pairs}

    @property
    def initial_loss(self) -> float:
        """The mean training loss of the first step over the seeds; NaN if no trial began."""
        first = {outcome.trial.seed: float(outcome.loss[0]) for outcome in self.outcomes if len(outcome.loss)}
        finite = [loss for loss in first.values() if math.isfinite(loss)]
        return float(np.mean(finite)) if finite else math.nan

    def basin(self, pair: Pair, tolerance: float = 0.1) -> Interval:
        """Return the learning rates between which a pair is nearly as good as at its best, at `widest_budget`.

        Args:
            pair: Optimizer and schedule.
            tolerance: How much worse a value may be, as a fraction of the best. Defaults to `0.1`.

        Returns:
            The lowest and the highest learning rate, see `statistics.basin`; NaN if none was tried at this budget or all
            diverged.
        """
        curve = self.by_rate(pair)
        if not curve:
            return math.nan, math.nan
        return statistics.basin(list(curve), [float(np.mean(values)) for values in curve.values()], tolerance, self.mode)

    def to_csv(self, directory: str | Path) -> list[Path]:
        """Write `table.csv`, `trials.csv` (a row each), `evaluations.csv` and `steps.csv` (training loss and learning rate).

        Args:
            directory: A folder, made if it is missing.

        Returns:
            The files.

        Raises:
            OSError: If it cannot be written to.
        """
        folder = Path(directory).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        contents: dict[str, Iterable[dict[str, Any]]] = {
            "table.csv": map(flat, self.table().rows),
            "trials.csv": self._trial_rows(),
            "evaluations.csv": (row for outcome in self.outcomes for row in _evaluation_rows(outcome)),
            "steps.csv": (row for outcome in self.outcomes for row in _step_rows(outcome)),
        }
        for name, rows in contents.items():
            write_csv(folder / name, list(rows))
        return [folder / name for name in contents]

    def plot(self) -> Any:
        """Return a Matplotlib figure: value against learning rate with basins, curves with bands, and final values.

        Raises:
            ImportError: If Matplotlib is missing.
        """
        from keras_lrsched.study.figure import draw

        return draw(self)

    def report(
        self, directory: str | Path, parts: Sequence[str] | None = None, mlflow: str | None = None, title: str = ""
    ) -> Path:
        """Write the report: Markdown, pictures, an HTML page, TensorBoard event files and CSV files.

        Args:
            directory: A folder, made if it is missing. It may be that of the study.
            parts: Which of `"csv"`, `"tensorboard"`, `"pictures"`, `"html"` and `"markdown"` are written. Defaults to
                `None`: all.
            mlflow: A tracking URI of MLflow, to which each run is logged. Defaults to `None`: none.
            title: Defaults to `""`: "Study" and the name of the directory.

        Returns:
            The folder.
        """
        from keras_lrsched.study import _report

        return _report.write(self, directory, _report.PARTS if parts is None else parts, mlflow, title)

    def __repr__(self) -> str:
        return f"<Results: {len(self.pairs)} pairs, {len(self.outcomes)} trials, {len(self.seeds)} seeds; {self.label}>"

    def _in_order(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """The outcomes in an order that does not depend on which finished first."""
        by_trial: dict[Trial, Outcome] = {}
        for outcome in outcomes:
            if outcome.trial in by_trial:
                raise ValueError(f"There are two outcomes of one trial. Received: {outcome.trial}")
            by_trial[outcome.trial] = outcome
        if not by_trial:
            raise ValueError("`outcomes` must hold at least one. Received: none")
        optimizers, schedules = (list(self.settings.get(name) or ()) for name in ("optimizers", "schedules"))

        def place(trial: Trial) -> tuple[int, int, Trial]:
            return _index(optimizers, trial.optimizer), _index(schedules, trial.schedule), trial

        return [by_trial[trial] for trial in sorted(by_trial, key=place)]

    def _check(self, metric: str) -> None:
        for outcome in self.outcomes:
            if outcome.status == "finished" and metric not in outcome.evaluations:
                raise ValueError(
                    f"`metric` must be one of {', '.join(sorted(outcome.evaluations))}. Received: metric={metric!r}"
                )

    def _metrics(self) -> list[str]:
        return sorted({name for outcome in self.outcomes for name in outcome.evaluations})

    def _all_seeds(self) -> list[int]:
        seeds = self.settings.get("seeds")
        if seeds is None:
            return sorted({o.trial.seed for o in self.outcomes if o.trial.budget == self.budget}) or [0]
        return list(range(seeds)) if isinstance(seeds, int) else sorted(seeds)

    @functools.cached_property
    def _by_pair(self) -> dict[Pair, list[Outcome]]:
        found: dict[Pair, list[Outcome]] = {pair: [] for pair in self.pairs}
        for outcome in self.outcomes:
            found[outcome.trial.pair].append(outcome)
        return found

    @functools.cached_property
    def _at_peaks(self) -> dict[Pair, list[Outcome]]:
        """The outcomes of each pair at its best peak; of two equally good ones, at the lower."""
        sign, found = 1 if self.mode == "min" else -1, {}
        for pair in self.pairs:
            means = {rate: sign * np.mean([self.value(o) for o in group]) for rate, group in self._complete(pair).items()}
            found[pair] = self._complete(pair)[min(means, key=lambda rate: (means[rate], rate))] if means else []
        return found

    def _complete(self, pair: Pair) -> dict[float, list[Outcome]]:
        """The outcomes of full budget at each peak that has one for each seed, in the order of the seeds."""
        found: dict[float, dict[int, Outcome]] = {}
        for outcome in self.of_pair(pair):
            if outcome.trial.budget == self.budget:
                found.setdefault(outcome.trial.learning_rate, {})[outcome.trial.seed] = outcome
        whole = {rate: by_seed for rate, by_seed in found.items() if by_seed.keys() >= set(self.seeds)}
        return {rate: [by_seed[seed] for seed in self.seeds] for rate, by_seed in whole.items()}

    def _worst(self, metric: str | None = None) -> float:
        return -math.inf if self.mode == "max" and metric in (None, self.metric) else math.inf

    def _counts(self) -> str:
        states = [outcome.status for outcome in self.outcomes]
        return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))

    def _summary(self, pair: Pair) -> dict[str, Any]:
        values, outcomes = list(self.values(pair).values()), self.of_pair(pair)
        finite = bool(values) and bool(np.all(np.isfinite(values)))
        return {
            "values": tuple(values),
            "mean": float(np.mean(values)) if values else math.nan,
            "deviation": float(np.std(values, ddof=1)) if finite and len(values) > 1 else math.nan,
            "trials": len(outcomes),
            "unfinished": sum(outcome.status != "finished" for outcome in outcomes),
            "seconds": float(np.mean([outcome.seconds for outcome in self.at_peak(pair) or outcomes])),
        }

    def _comparison(self, pair: Pair, reference: Pair, level: float) -> dict[str, Any]:
        values, compared = self.values(pair), self.values(reference)
        unknown = {"difference": math.nan, "interval": (math.nan, math.nan), "seeds_needed": math.nan}
        if not values or not compared:
            finished = any(outcome.status == "finished" for outcome in self.of_pair(pair))
            return unknown | {"verdict": "incomplete" if finished else "none finished"}
        if pair == reference:
            return unknown | {"verdict": "reference"}
        comparisons = max(1, sum(bool(self.values(other)) for other in self.pairs) - 1)
        differences = statistics.paired_differences(values, compared)
        verdict = statistics.verdict(differences, self.mode, level, comparisons)
        needed = statistics.seeds_needed(differences, level, comparisons=comparisons)
        return {
            "difference": float(np.mean(differences)),
            "interval": statistics.bootstrap_interval(differences, statistics.adjusted(level, comparisons)),
            "verdict": verdict,
            "seeds_needed": max(needed, len(differences) + 1.0) if verdict == "not distinguishable" else math.nan,
        }

    def _times(self, pair: Pair, target: float, unit: Unit) -> np.ndarray:
        outcomes = self.at_peak(pair)
        if not outcomes:
            return np.full(len(self.seeds), math.inf)
        steps = np.array([outcome.steps_to(target, self.metric, self.mode) for outcome in outcomes])
        if unit == "steps":
            return steps
        return steps * [outcome.seconds / max(1, len(outcome.loss)) for outcome in outcomes]

    def _median_time(self, pair: Pair, target: float, unit: Unit) -> float:
        return float(np.median(self._times(pair, target, unit)))

    def _never(self) -> np.ndarray:
        return np.full((len(self.pairs), len(self.seeds)), math.inf)

    def _known_sensitivity(self) -> dict[Pair, float]:
        known = any("val_loss" in outcome.evaluations for outcome in self.outcomes) and math.isfinite(self.initial_loss)
        return self.sensitivity() if known else {}

    def _sensitivity(self, pair: Pair, initial: float) -> float:
        curve = self.by_rate(pair, metric="val_loss")
        if not curve:
            return math.nan
        clipped = [float(np.mean(np.minimum(values, initial))) for values in curve.values()]
        return statistics.learning_rate_sensitivity(list(curve), clipped, initial)

    def _trial_rows(self) -> Iterable[dict[str, Any]]:
        target, metrics = self.target, self._metrics()
        for outcome in self.outcomes:
            finished = outcome.status == "finished"
            yield _identity(outcome.trial) | {
                "status": outcome.status,
                **{name: outcome.final(name) if finished else math.nan for name in metrics},
                "steps_to_target": outcome.steps_to(target, self.metric, self.mode),
                "seconds": round(outcome.seconds, 3),
                "error": outcome.error,
            }


def _named(pair: Pair) -> str:
    return ", ".join(pair)


def _index(labels: list[str], label: str) -> int:
    return labels.index(label) if label in labels else len(labels)


def _identity(trial: Trial) -> dict[str, Any]:
    """The columns that identify a trial; `learning_rate` is left for that of a step, as in other logs."""
    return {"peak" if name == "learning_rate" else name: value for name, value in dataclasses.asdict(trial).items()}


def _evaluation_rows(outcome: Outcome) -> Iterable[dict[str, Any]]:
    trial = _identity(outcome.trial)
    for index, step in enumerate(outcome.evaluated_at):
        yield trial | {"step": int(step)} | {name: float(values[index]) for name, values in outcome.evaluations.items()}


def _step_rows(outcome: Outcome) -> Iterable[dict[str, Any]]:
    trial = _identity(outcome.trial)
    for step, (loss, rate) in enumerate(zip(outcome.loss, outcome.learning_rate, strict=True)):
        yield trial | {"step": step, "loss": float(loss), "learning_rate": float(rate)}

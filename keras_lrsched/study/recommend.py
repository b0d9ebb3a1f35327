"""Recommendation of optimizer, schedule and learning rate from a small part of the compute of a study.

`Study.recommend` calls `recommend`. It spends its steps in this order:

1. A range test of each optimizer (`LearningRateFinder`) centers its learning rates.
2. Rounds of short runs under the schedule with the lowest `ConvexBound`, each round with longer runs than the one before:
   the peak of each optimizer is searched until the best one is inside, and the better half of the optimizers goes on.
3. In the last round, other schedules at the best peak, the most promising ones first.

A Gaussian process over log(rate), log(steps), optimizer and schedule predicts where the search of a round is to begin, and
the result of a whole run for each choice. Its mean is a law: `ConvexBound`, fitted to the evaluations of all runs of an
optimizer. It gives how the loss goes on in a longer run and how another schedule would end; the process learns the
differences from it.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched.callbacks import LearningRateFinder
from keras_lrsched.laws import ConvexBound
from keras_lrsched.study.search import HIGHEST, LOWEST, Mode, Pair, Run, score
from keras_lrsched.study.trial import Outcome, Trial

RANGE_SHARE, RANGE_STEPS, LEAST_RANGE_STEPS = 0.15, 100, 20
"""The part of all steps for range tests, the most and the fewest steps of one."""
LEAST_STEPS = 10
SHORTEST = 1 / 24
"""The part of the budget below which runs are too unlike a whole one."""
ROUNDS, FIRST_RATES, RATES, OTHER_SCHEDULES = 3, 4, 3, 2
"""The rounds at most; the runs of an optimizer in the first and in a later one; those under other schedules in the last."""
FIRST_SPACING, SPACING = 2.0, 1.0
"""Octaves between learning rates in the first and in a later round."""
BELOW = 3.0
"""The last good rate of a range test lies above the center of these by this factor."""
CLIP = 1.0
"""A run that is worse than the best one of its length by more than this, in log loss, counts as worse by this."""
TREND = -0.3
"""The change of log loss for each doubling of the steps that is expected where nothing is known."""
TREND_ERROR, LEAST_ERROR, GROWTH = 0.5, 0.03, 0.03
"""The error of a trend for each doubling: a part of the trend, and at least; what is added for each doubling before."""
DAMPING = 0.6
"""The part of a trend that is expected to go on, where there is no law."""
NEIGHBORS = (-1, 0, 1, 2)
"""The neighbors, in half octaves, over which the prediction of a peak is averaged: a good one lies where an error costs
little, above all an error to the side where runs diverge."""


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """A recommended choice, with its predicted result.

    Args:
        optimizer: The label of an optimizer of the study.
        schedule: The label of a schedule of the study.
        learning_rate: The peak of the schedule.
        loss: The predicted value of the metric at the end of a whole run.
        interval: The bounds between which it lies with a probability of `level`, as far as the model of the runs holds.
        level: This probability.
        spent: The optimizer steps that were trained, range tests included.
        allowed: The optimizer steps that could have been.
        seconds: The time of training and evaluation.
        reason: The recommendation in words: what was tried, and how far the next best choice is.
        outcomes: The outcomes of the short runs.
    """

    optimizer: str
    schedule: str
    learning_rate: float
    loss: float
    interval: tuple[float, float]
    level: float
    spent: int
    allowed: int
    seconds: float
    reason: str
    outcomes: list[Outcome] = dataclasses.field(repr=False, default_factory=list)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.optimizer}, {self.schedule}, peak {self.learning_rate:.3g}: {self.loss:.4g} ({low:.4g} to {high:.4g} "
            f"with a probability of {self.level:.0%}), from {self.spent} of {self.allowed} steps. {self.reason}"
        )


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """The learning rates and the smoothed losses of a range test."""

    learning_rates: np.ndarray
    losses: np.ndarray

    @property
    def last_good(self) -> float:
        """The rate with the least loss, above which it rises."""
        return float(self.learning_rates[np.argmin(self.losses)])

    @property
    def shows_limit(self) -> bool:
        """Whether the loss falls at first, and rises again before the end."""
        least = int(np.argmin(self.losses))
        return 0 < least < len(self.losses) - 1 and self.losses[least] < self.losses[0]


class Studied(Protocol):
    """The parts of a `Study` that `recommend` takes."""

    @property
    def problem(self) -> Any:
        """The `Problem`."""

    @property
    def optimizers(self) -> Mapping[str, Callable[[Any], Any]]:
        """From labels to functions of a learning rate."""

    @property
    def schedules(self) -> Mapping[str, Callable[[float, int], Any]]:
        """From labels to functions of peak and optimizer steps."""

    @property
    def budget(self) -> int:
        """Optimizer steps of a whole run."""

    @property
    def metric(self) -> str:
        """The metric to be optimized."""

    @property
    def mode(self) -> Mode:
        """Its direction."""

    def starts(self) -> Mapping[str, float]:
        """A learning rate for each optimizer, by its label."""

    def run_trials(self, trials: list[Trial]) -> Iterable[Outcome]:
        """The outcomes of trials: recorded ones, and new ones, which are recorded."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A question to `answer`: choices, and functions that train.

    Args:
        pairs: Pairs of labels: optimizer and schedule.
        budget: Optimizer steps of a whole run.
        run: A function from a list of trials to their outcomes.
        rates: A function from a schedule, a peak and a number of steps to the learning rates of all steps.
        starts: The usual learning rate of each optimizer.
        range_test: A function from an optimizer, the lowest and the highest rate and the number of steps to a `RangeTest`,
            or `None` if there is nothing to be seen. Defaults to `None`: no range tests.
        metric: The metric of which the last evaluation counts. Defaults to `"val_loss"`.
        mode: `"min"` or `"max"`. Defaults to `"min"`.
    """

    pairs: Sequence[Pair]
    budget: int
    run: Run
    rates: Callable[[str, float, int], np.ndarray]
    starts: Mapping[str, float]
    range_test: Callable[[str, float, float, int], RangeTest | None] | None = None
    metric: str = "val_loss"
    mode: Mode = "min"


def recommend(study: Studied, budget_fraction: float = 0.05, level: float = 0.8) -> Recommendation:
    """Recommend optimizer, schedule and learning rate for the model of a study.

    Args:
        study: A `Study`.
        budget_fraction: The steps to spend, as a part of those of one whole run of each pair of optimizer and schedule.
            Defaults to `0.05`.
        level: The probability of the interval. Defaults to `0.8`.

    Returns:
        A `Recommendation`.

    Raises:
        ValueError: If an argument is out of its range, the steps are too few for a single run, or none of the runs finished.
        ImportError: If scikit-learn is not installed.

    Example:

        study = Study(build_model, (x, y), (x_val, y_val), loss="mse", schedules=["cosine", "linear"], budget=2000)
        found = study.recommend(budget_fraction=0.3)
        print(found)
        found.optimizer, found.schedule, found.learning_rate
    """
    question = Question(
        pairs=[(optimizer, schedule) for optimizer in study.optimizers for schedule in study.schedules],
        budget=study.budget,
        run=study.run_trials,
        rates=lambda schedule, peak, steps: _values(study.schedules[schedule](peak, steps), steps),
        starts=study.starts(),
        range_test=lambda optimizer, low, high, steps: range_test(
            study.problem, study.optimizers[optimizer], low, high, steps
        ),
        metric=study.metric,
        mode=study.mode,
    )
    return answer(question, budget_fraction, level)


def range_test(problem: Any, optimizer: Callable[[Any], Any], lowest: float, highest: float, steps: int) -> RangeTest | None:
    """The range test of an optimizer on a problem, from its first seed; `None` if it fails, or ends at once."""
    finder = LearningRateFinder(lowest, highest, total_steps=steps, smoothing=0.8)
    try:
        model = problem.model(0)
        problem.compile(model, lambda: optimizer(lowest))
        batches = getattr(model.optimizer, "gradient_accumulation_steps", None) or 1
        problem.fit(model, 0, steps_per_epoch=steps * batches, epochs=1, callbacks=[finder])
    except Exception:  # a run tells more about an error than a test
        return None
    if len(finder.losses) < LEAST_RANGE_STEPS // 2:
        return None
    return RangeTest(np.array(finder.learning_rates), finder.smoothed)


def answer(question: Question, budget_fraction: float = 0.05, level: float = 0.8) -> Recommendation:
    """Answer a question by short runs.

    Args:
        question: The `Question`.
        budget_fraction: See `recommend`.
        level: See `recommend`.

    Returns:
        A `Recommendation`.

    Raises:
        ValueError: See `recommend`.
        ImportError: See `recommend`.

    Example:

    >>> def run(trials):
    ...     for trial in trials:
    ...         loss = np.array([1 + abs(np.log2(trial.learning_rate / 0.01))])
    ...         yield Outcome(trial, "finished", loss, loss, np.array([trial.budget]), {"val_loss": loss}, 0.0)
    >>> def rates(schedule, peak, steps):
    ...     return peak * np.linspace(1, 0, steps)
    >>> found = answer(Question([("sgd", "linear")], 1000, run, rates, starts={"sgd": 0.005}), budget_fraction=1.0)
    >>> found.spent <= 1000, 0.005 < found.learning_rate < 0.02
    (True, True)
    """
    fraction = validation.positive_float("budget_fraction", budget_fraction)
    level = validation.between("level", level, 0, 1)
    allowed = int(fraction * question.budget * len(question.pairs))
    if allowed < LEAST_STEPS:
        raise ValueError(
            f"`budget_fraction` must leave {LEAST_STEPS} steps or more. Received: budget_fraction={budget_fraction}, which "
            f"leaves {allowed} of {question.budget} for each of {len(question.pairs)} pairs"
        )
    session = _Session(question, allowed)
    session.test_ranges()
    session.make_rounds()
    return session.recommendation(level)


class _Session:
    """The runs of an answer, and what is left to spend."""

    def __init__(self, question: Question, allowed: int) -> None:
        self._question, self._allowed, self._left = question, allowed, allowed
        self._optimizers = list(dict.fromkeys(optimizer for optimizer, _ in question.pairs))
        self._centers = {name: math.log2(question.starts[name]) for name in self._optimizers}
        self._tested: dict[str, float] = {}
        self._outcomes: list[Outcome] = []
        self._bounds = _bounds(question)

    def test_ranges(self) -> None:
        """Center the learning rates of each optimizer below the last good one of its range test."""
        steps = min(RANGE_STEPS, int(RANGE_SHARE * self._allowed / len(self._optimizers)))
        if self._question.range_test is None or steps < LEAST_RANGE_STEPS:
            return
        for name in self._optimizers:
            start = self._question.starts[name]
            found = self._question.range_test(name, max(LOWEST, start / 300), min(HIGHEST, start * 300), steps)
            self._left -= steps
            if found is not None and found.shows_limit:
                self._tested[name] = found.last_good
                self._centers[name] = math.log2(found.last_good / BELOW)

    def make_rounds(self) -> None:
        """Rounds of runs, each of fewer optimizers and more steps."""
        live = self._optimizers
        count = self._count_of_rounds()
        for number in range(count):
            is_last = number == count - 1
            wanted = (FIRST_RATES if number == 0 else RATES) + (self._other_schedules if is_last else 0)
            share = self._left // (count - number) // len(live)
            runs = max(1, min(wanted, share // self._shortest))
            steps = min(self._question.budget, share // runs)
            if steps < 1:
                return
            searches = self._search_peaks(live, steps, share // steps, number == 0, is_last)
            if is_last:
                self._try_other_schedules(searches, steps, share // steps)
            live = sorted(live, key=lambda name: searches[name].least)[: -(-len(live) // 2)]

    @property
    def _shortest(self) -> int:
        return min(self._question.budget, max(2 * LEAST_STEPS, int(SHORTEST * self._question.budget)))

    @property
    def _other_schedules(self) -> int:
        return min(OTHER_SCHEDULES, len(self._bounds) - 1)

    def _count_of_rounds(self) -> int:
        first = len(self._optimizers) * FIRST_RATES * self._shortest
        return next((count for count in range(ROUNDS, 1, -1) if self._left // count >= first), 1)

    def _search_peaks(
        self, live: Sequence[str], steps: int, runs: int, is_first: bool, is_last: bool
    ) -> dict[str, "_PeakSearch"]:
        """The searches of all optimizers of a round, in step with each other, so that workers run them together."""
        spare = min(self._other_schedules, max(0, runs - FIRST_RATES)) if is_last else 0
        spacing = FIRST_SPACING if is_first else SPACING
        centers = {name: self._centers[name] if is_first else self._predicted_peak(name, steps) for name in live}
        searches = {name: _PeakSearch(centers[name], spacing, runs - spare) for name in live}
        while wave := {name: each.next for name, each in searches.items() if each.next is not None}:
            rates = {name: self._rate(searches[name].octave(k)) for name, k in wave.items()}
            found = self._scores([Trial(name, self._first_schedule(name), rates[name], steps, 0) for name in wave])
            for (name, k), value in zip(wave.items(), found, strict=True):
                searches[name].scores[k] = value
        return searches

    def _try_other_schedules(self, searches: Mapping[str, "_PeakSearch"], steps: int, runs: int) -> None:
        """Runs at the best peak of each optimizer under other schedules, the most promising ones first."""
        trials = []
        for name, search in searches.items():
            others = [each for each in self._schedules_of(name) if each != self._first_schedule(name)]
            if others and math.isfinite(search.least):
                peak = self._rate(search.octave(search.best))
                mean, _ = self._model().predict([(name, schedule, peak) for schedule in others])
                chosen = np.argsort(mean, kind="stable")[: runs - len(search.scores)]
                trials += [Trial(name, others[number], peak, steps, 0) for number in chosen]
        self._scores(trials)

    def _predicted_peak(self, optimizer: str, steps: int) -> float:
        """The logarithm of the peak with the best prediction for runs of a number of steps."""
        pair = optimizer, self._first_schedule(optimizer)
        choices = [each for each in self._choices() if each[:2] == pair]
        if not choices:
            return self._centers[optimizer]
        mean, _ = self._model().predict(choices, steps)
        return math.log2(choices[int(np.argmin(mean))][2])

    def recommendation(self, level: float) -> Recommendation:
        """The choice with the least predicted loss."""
        if not self._has_finished():
            errors = [each.error for each in self._outcomes if each.error]
            raise ValueError(
                f"None of the {len(self._outcomes)} short runs finished, so there is nothing to recommend"
                + (f". The first error: {errors[0]}" if errors else "")
            )
        model, choices = self._model(), self._choices()
        mean, deviation = model.predict(choices)
        best = int(np.argmin(_averaged(mean, choices)))
        error = math.hypot(deviation[best], model.trend_error(choices[best]))
        reach = error * float(scipy.stats.norm.ppf(0.5 + level / 2))
        low, high = sorted(model.value(mean[best] + each) for each in (-reach, reach))
        return Recommendation(
            *choices[best],
            loss=model.value(mean[best]),
            interval=(low, high),
            level=level,
            spent=self._allowed - self._left,
            allowed=self._allowed,
            seconds=sum(each.seconds for each in self._outcomes),
            reason=self._reason(model, choices, mean, best),
            outcomes=self._outcomes,
        )

    def _model(self) -> "_Model":
        return _Model(self._question, self._outcomes, self._bounds)

    def _scores(self, trials: Sequence[Trial]) -> list[float]:
        """Make runs, less is better; infinite for those that cannot be paid any more, or whose rate is out of all bounds."""
        made = {each.trial: each for each in self._outcomes}
        new = []
        for trial in trials:
            if trial not in made and trial.budget <= self._left and LOWEST <= trial.learning_rate <= HIGHEST:
                new.append(trial)
                self._left -= trial.budget
        found = {each.trial: each for each in self._question.run(list(new))} if new else {}
        self._outcomes += [found[trial] for trial in new]
        sign, known = -1.0 if self._question.mode == "max" else 1.0, made | found
        return [score(known[trial], self._question.metric, sign) if trial in known else math.inf for trial in trials]

    def _has_finished(self) -> bool:
        return any(math.isfinite(each.final(self._question.metric)) for each in self._outcomes)

    def _choices(self) -> list[tuple[str, str, float]]:
        """Peaks between those that were tried, in half octaves: beyond them, a prediction is a guess."""
        return [
            (optimizer, schedule, self._rate(octave))
            for optimizer, schedule in self._question.pairs
            for octave in self._tried_octaves(optimizer)
        ]

    def _tried_octaves(self, optimizer: str) -> np.ndarray:
        tried = [o.trial.learning_rate for o in self._outcomes if o.trial.optimizer == optimizer and o.status == "finished"]
        if not tried:
            return np.array([])
        low, high = math.log2(min(tried)), math.log2(max(tried))
        return np.linspace(low, high, 1 + round(2 * (high - low)))

    def _rate(self, octave: float) -> float:
        return float(f"{2.0**octave:.4g}")

    def _first_schedule(self, optimizer: str) -> str:
        return min(self._schedules_of(optimizer), key=lambda schedule: self._bounds[schedule])

    def _schedules_of(self, optimizer: str) -> list[str]:
        return [schedule for name, schedule in self._question.pairs if name == optimizer]

    def _reason(self, model: "_Model", choices: list[tuple[str, str, float]], mean: np.ndarray, best: int) -> str:
        optimizer = choices[best][0]
        lengths = sorted({each.trial.budget for each in self._outcomes})
        parts = [
            f"{len(self._outcomes)} runs of {lengths[0]} to {lengths[-1]} steps"
            if len(lengths) > 1
            else f"{len(self._outcomes)} runs of {lengths[0]} steps"
        ]
        if optimizer in self._tested:
            parts.append(f"a range test in which the loss rose above {self._tested[optimizer]:.2g}")
        parts.append(
            "ConvexBound for the rest of the run" if optimizer in model.laws else "the trend of the best runs (no law fits)"
        )
        return f"From {', '.join(parts)}.{self._runners_up(model, choices, mean, best)}"

    def _runners_up(self, model: "_Model", choices: list[tuple[str, str, float]], mean: np.ndarray, best: int) -> str:
        text, chosen = "", choices[best]
        for place, what in enumerate(("optimizer", "schedule")):
            others = [i for i, each in enumerate(choices) if each[place] != chosen[place]]
            others = [i for i in others if choices[i][1 - place] == chosen[1 - place]]
            if others:
                next_best = min(others, key=lambda i: mean[i])
                text += f" Next best {what}: {choices[next_best][place]}, {model.value(mean[next_best]):.4g}."
        return text


class _Model:
    """A law for each optimizer, and a Gaussian process of what the runs differ from it."""

    def __init__(self, question: Question, outcomes: Sequence[Outcome], bounds: Mapping[str, float]) -> None:
        self._question, self._bounds = question, bounds
        self._outcomes = list(outcomes)
        finals = np.array([each.final(question.metric) for each in outcomes])
        self._is_log = question.mode == "min" and bool(np.nanmin(finals) > 0)
        self._y = self._clipped(self._transformed(finals))
        self._optimizers = list(dict.fromkeys(optimizer for optimizer, _ in question.pairs))
        self._schedules = list(dict.fromkeys(schedule for _, schedule in question.pairs))
        self._scale = 1.0 if self._is_log else float(np.std(self._y)) + 1e-12
        self._cache: dict[tuple[str, str, int], float] = {}
        self.laws = self._fitted_laws()
        settings = [(each.trial.setting, each.trial.budget) for each in outcomes]
        means = self._means(settings)
        self._level = float(np.median(self._y - means))
        self._process = _gaussian_process(len(self._optimizers), len(self._schedules))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a scale at the edge of its range is fine
            self._process.fit(self._features(settings), self._y - means - self._level)

    def predict(self, choices: Sequence[tuple[str, str, float]], steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations of runs of a number of steps, or of whole runs; transformed."""
        settings = [(choice, steps or self._question.budget) for choice in choices]
        mean, deviation = self._process.predict(self._features(settings), return_std=True)
        return mean + self._means(settings) + self._level, deviation

    def value(self, transformed: float) -> float:
        """The metric."""
        sign = -1.0 if self._question.mode == "max" else 1.0
        return math.exp(transformed) if self._is_log else sign * float(transformed)

    def trend_error(self, choice: tuple[str, str, float]) -> float:
        """The standard deviation of the error of the trend from the longest run of an optimizer to a whole one."""
        lengths = {o.trial.budget for o in self._outcomes if o.trial.optimizer == choice[0]}
        share = TREND_ERROR if len(lengths) > 1 else 1.0  # one length shows no trend
        error = max(LEAST_ERROR * self._scale, share * -self._slope(choice[0]))
        octaves = math.log2(self._question.budget / max(lengths))
        return octaves * (error + GROWTH * self._scale * octaves)

    def _transformed(self, finals: np.ndarray) -> np.ndarray:
        if self._is_log:
            return np.asarray(np.log(finals))
        return -finals if self._question.mode == "max" else finals

    def _clipped(self, y: np.ndarray) -> np.ndarray:
        lengths = np.array([each.trial.budget for each in self._outcomes])
        worst = CLIP if self._is_log else max(float(np.nanstd(y)) * 2, 1e-12)
        best = np.array([np.min(y[(lengths == steps) & np.isfinite(y)], initial=np.inf) for steps in lengths])
        best = np.where(np.isfinite(best), best, np.nanmin(y))
        return np.minimum(np.where(np.isfinite(y), y, np.inf), best + worst)

    def _fitted_laws(self) -> dict[str, ConvexBound]:
        return _fit_bounds([each for each in self._outcomes if self._is_good(each)], self._question) if self._is_log else {}

    def _is_good(self, outcome: Outcome) -> bool:
        """Whether an outcome is not far behind the best one of its optimizer and length: a law is about runs that learn."""
        rivals = [
            y
            for y, each in zip(self._y, self._outcomes, strict=True)
            if (each.trial.optimizer, each.trial.budget) == (outcome.trial.optimizer, outcome.trial.budget)
        ]
        final = outcome.final(self._question.metric)
        return math.isfinite(final) and math.log(final) < min(rivals) + CLIP / 2

    def _slope(self, optimizer: str) -> float:
        """The change of the best result of an optimizer for each doubling of the steps, at most 0."""
        mine = [(o.trial.budget, y) for o, y in zip(self._outcomes, self._y, strict=True) if o.trial.optimizer == optimizer]
        lengths = np.array(sorted({steps for steps, _ in mine}))
        if len(lengths) < 2:
            return TREND * self._scale
        best = [min(y for steps, y in mine if steps == length) for length in lengths]
        return min(0.0, float(np.polyfit(np.log2(lengths), best, 1)[0]))

    def _means(self, settings: Sequence[tuple[tuple[str, str, float], int]]) -> np.ndarray:
        return np.array([self._mean(optimizer, schedule, steps) for (optimizer, schedule, _), steps in settings])

    def _mean(self, optimizer: str, schedule: str, steps: int) -> float:
        key = optimizer, schedule, steps
        if key not in self._cache:
            octaves = math.log2(steps / self._question.budget)
            trend = DAMPING * self._slope(optimizer) * octaves
            ratio = 0.05 * math.log(self._bounds[schedule] / min(self._bounds.values()))
            self._cache[key] = self._by_law(*key) if optimizer in self.laws else trend + ratio
        return self._cache[key]

    def _by_law(self, optimizer: str, schedule: str, steps: int) -> float:
        """The log loss of the law, relative to a whole run of the first schedule, at the best peak so far.

        The peaks themselves are compared by the runs alone: a law that was fitted to short runs is too sure of low ones.
        """
        peak, whole = self._best_peak(optimizer), self._question.budget
        first = min(self._bounds, key=lambda name: self._bounds[name])
        here, there = (
            self.laws[optimizer].final_loss(self._question.rates(name, peak, length))
            for name, length in ((schedule, steps), (first, whole))
        )
        return math.log(here / there)

    def _best_peak(self, optimizer: str) -> float:
        """The peak of the best one among the longest runs of an optimizer."""
        mine = [i for i, each in enumerate(self._outcomes) if each.trial.optimizer == optimizer]
        best = min(mine, key=lambda i: (-self._outcomes[i].trial.budget, self._y[i]))
        return self._outcomes[best].trial.learning_rate

    def _features(self, settings: Sequence[tuple[tuple[str, str, float], int]]) -> np.ndarray:
        rows = []
        for (optimizer, schedule, peak), steps in settings:
            columns = [optimizer == each for each in self._optimizers] + [schedule == each for each in self._schedules]
            octaves = math.log2(steps / self._question.budget)
            rows.append([math.log2(peak), octaves, *map(float, columns)])
        return np.array(rows)


def _averaged(mean: np.ndarray, choices: Sequence[tuple[str, str, float]]) -> np.ndarray:
    """Means over the neighbors of each choice in its own pair."""
    pairs = [choice[:2] for choice in choices]
    averaged = np.empty(len(mean))
    for pair in set(pairs):
        own = np.flatnonzero([each == pair for each in pairs])
        places = np.clip(np.arange(len(own))[:, None] + NEIGHBORS, 0, len(own) - 1)
        averaged[own] = mean[own][places].mean(axis=1)
    return averaged


@dataclasses.dataclass
class _PeakSearch:
    """The search of the peak of an optimizer: from a center to either side, until the best one is inside.

    Args:
        center: The logarithm of a learning rate, in octaves.
        spacing: Octaves between rates.
        runs: How many may be made.
    """

    center: float
    spacing: float
    runs: int
    scores: dict[int, float] = dataclasses.field(default_factory=dict)

    def octave(self, k: int) -> float:
        return self.center + self.spacing * k

    @property
    def best(self) -> int:
        return min(self.scores, key=lambda k: (self.scores[k], k))

    @property
    def least(self) -> float:
        return self.scores[self.best]

    @property
    def next(self) -> int | None:
        """The place to try next; `None` if there is none."""
        if len(self.scores) >= self.runs:
            return None
        if not self.scores:
            return 0
        if not math.isfinite(self.least):
            return min(self.scores) - 1
        return next((k for k in (self.best + 1, self.best - 1) if k not in self.scores), None)


def _gaussian_process(optimizers: int, schedules: int) -> Any:
    """Matern 5/2 with a length for each column: octaves of rate, octaves of steps, optimizers, schedules."""
    gaussian_process, kernels = _scikit_learn()
    lengths = [2.0, 3.0, *[2.0] * optimizers, *[4.0] * schedules]
    bounds = [(1.5, 4.0), (1.5, 6.0), *[(0.7, 5.0)] * optimizers, *[(2.0, 20.0)] * schedules]
    kernel = kernels.ConstantKernel(0.05, (1e-3, 1.0)) * kernels.Matern(lengths, bounds, nu=2.5)
    kernel += kernels.WhiteKernel(1e-3, (1e-5, 3e-2))
    return gaussian_process.GaussianProcessRegressor(kernel, alpha=1e-8, random_state=0)


def _scikit_learn() -> tuple[Any, Any]:
    try:
        from sklearn import gaussian_process
        from sklearn.gaussian_process import kernels
    except ImportError as error:
        raise ImportError("A recommendation needs scikit-learn: pip install 'keras-lrsched[study]'") from error
    return gaussian_process, kernels


def _bounds(question: Question) -> dict[str, float]:
    """The bound of each schedule at its own best peak."""
    law = ConvexBound()
    schedules = dict.fromkeys(schedule for _, schedule in question.pairs)
    return {name: law.optimal_rate(question.rates(name, 1.0, question.budget)).bound for name in schedules}


def _fit_bounds(outcomes: Sequence[Outcome], question: Question, skip: float = 0.3) -> dict[str, ConvexBound]:
    """The law of each optimizer that describes the evaluations of its runs best; none where no law does.

    loss = minimum + D^2 a + G^2 b with a, b from the rates: non-negative least squares of the relative errors. All
    optimizers have the same minimum, so a long run of one shows where the others end.
    """
    optimizers = list(dict.fromkeys(each.trial.optimizer for each in outcomes))
    rows, losses = [], []
    for outcome in outcomes:
        at = outcome.evaluated_at - 1
        late = at >= skip * outcome.trial.budget
        rates = question.rates(outcome.trial.schedule, outcome.trial.learning_rate, outcome.trial.budget)
        parts = np.zeros((int(late.sum()), 1 + 2 * len(optimizers)))
        place = 1 + 2 * optimizers.index(outcome.trial.optimizer)
        parts[:, 0], parts[:, place : place + 2] = 1.0, _parts(rates, at[late])
        rows.append(parts)
        losses.append(outcome.evaluations[question.metric][late])
    measured = np.concatenate(losses) if losses else np.array([])
    if len(measured) < 4 or not np.all(np.isfinite(measured) & (measured > 0)):
        return {}
    design = np.concatenate(rows)
    scale = design.max(axis=0)
    found = scipy.optimize.nnls(design / scale / measured[:, None], np.ones(len(measured)))[0] / scale
    squares = found[1:].reshape(-1, 2)
    return {
        name: ConvexBound(math.sqrt(each[0]), math.sqrt(each[1]), found[0])
        for name, each in zip(optimizers, squares, strict=True)
        if np.all(each > 0)
    }


def _parts(rates: np.ndarray, at: np.ndarray) -> np.ndarray:
    """a and b at steps of a run."""
    tiny = 1e-9  # of which the square does not count
    distance, noise = ConvexBound(1.0, tiny), ConvexBound(tiny, 1.0)
    return np.stack([distance.loss_at(rates, at), noise.loss_at(rates, at)], axis=1)


def _values(schedule: Any, steps: int) -> np.ndarray:
    from keras_lrsched.schedules.schedule import compute

    return np.asarray(compute(schedule, np.arange(steps), np), "float64")

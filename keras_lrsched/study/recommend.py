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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched.callbacks import LearningRateFinder
from keras_lrsched.laws import ConvexBound
from keras_lrsched.study._choices import PROBE, controllers
from keras_lrsched.study.forecast import Forecast, averaged
from keras_lrsched.study.question import Question, RangeTest
from keras_lrsched.study.search import HIGHEST, LOWEST, Mode, score
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
        ValueError: If an argument is out of its range, the steps are too few for a single run, none of the runs finished, or
            the study has callbacks in the place of schedules.
        ImportError: If scikit-learn is not installed.

    Example:

        study = Study(build_model, (x, y), (x_val, y_val), loss="mse", schedules=["cosine", "linear"], budget=2000)
        found = study.recommend(budget_fraction=0.3)
        print(found)
        found.optimizer, found.schedule, found.learning_rate
    """
    own = [label for label, make in study.schedules.items() if controllers(make(PROBE, study.budget))]
    if own:
        raise ValueError(
            "`recommend` predicts the end of a run from its learning rates, which those of callbacks are not before it is "
            f"made: leave them out of `schedules`. Received: {own}"
        )
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
        best = int(np.argmin(averaged(mean, choices)))
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

    def _model(self) -> Forecast:
        return Forecast(self._question, self._outcomes, self._bounds)

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

    def _reason(self, model: Forecast, choices: list[tuple[str, str, float]], mean: np.ndarray, best: int) -> str:
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

    def _runners_up(self, model: Forecast, choices: list[tuple[str, str, float]], mean: np.ndarray, best: int) -> str:
        text, chosen = "", choices[best]
        for place, what in enumerate(("optimizer", "schedule")):
            others = [i for i, each in enumerate(choices) if each[place] != chosen[place]]
            others = [i for i in others if choices[i][1 - place] == chosen[1 - place]]
            if others:
                next_best = min(others, key=lambda i: mean[i])
                text += f" Next best {what}: {choices[next_best][place]}, {model.value(mean[next_best]):.4g}."
        return text


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


def _bounds(question: Question) -> dict[str, float]:
    """The bound of each schedule at its own best peak."""
    law = ConvexBound()
    schedules = dict.fromkeys(schedule for _, schedule in question.pairs)
    return {name: law.optimal_rate(question.rates(name, 1.0, question.budget)).bound for name in schedules}


def _values(schedule: Any, steps: int) -> np.ndarray:
    from keras_lrsched.schedules.schedule import compute

    return np.asarray(compute(schedule, np.arange(steps), np), "float64")

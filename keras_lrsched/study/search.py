"""Search: the peak learning rate of each pair of optimizer and schedule, on a grid that grows, by successive halving.

`tune` plans trials and does not run them: `run` takes a list of `Trial`s and returns their `Outcome`s. What is planned is a
function of the losses alone. So the result is the same for any number of workers and any order in which trials finish, and a
study that was interrupted goes on where `run` returns the outcomes that it has recorded.

Optuna does not carry this search (its documentation, version 4):

- `GridSampler` takes its whole grid at construction, so it cannot grow; with several workers "different workers will
  occasionally suggest the same configuration", so pairs would not have equal numbers of trials.
- `SuccessiveHalvingPruner` is asynchronous. A trial is promoted or pruned by comparison with those that have reached its
  rung so far, which depends on the number of workers and on their speed. It also judges a trial in the middle of a run,
  where the learning rate of a decaying schedule is still high; here a short run has the whole schedule in fewer steps.
- In its FAQ, "when optimizing a study in distributed or parallel mode, there is inherent non-determinism".
- A trial has one set of parameters and no notion of a seed that it shares with others, so pairing would be ours in any case;
  its storage would then be a second record beside the journal.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from keras_lrsched._core import validation
from keras_lrsched.study.trial import Outcome, Trial

Pair: TypeAlias = tuple[str, str]
"""The labels of an optimizer and a schedule."""
Run: TypeAlias = Callable[[list[Trial]], Iterable[Outcome]]
Mode: TypeAlias = Literal["min", "max"]
Status: TypeAlias = Literal["inside", "limit", "unfinished"]

LOWEST, HIGHEST = 1e-7, 1e2
"""No grid grows beyond these learning rates."""


@dataclasses.dataclass(frozen=True)
class Round:
    """One round of successive halving.

    Args:
        part: The part of the budget that its trials train for, in (0, 1].
        seeds: The number of seeds; `None` stands for all.
        rates: The learning rates that it begins with, for each pair.
    """

    part: float
    seeds: int | None
    rates: int

    def __post_init__(self) -> None:
        validation.positive_fraction("part", self.part)
        validation.positive_int("rates", self.rates)
        if self.seeds is not None:
            validation.positive_int("seeds", self.seeds)


ROUNDS = (Round(0.25, 1, 5), Round(0.5, 2, 3), Round(1.0, None, 3))


@dataclasses.dataclass(frozen=True)
class Peak:
    """The tuned peak of a pair.

    Args:
        learning_rate: The learning rate with the best mean over the seeds of the last round; NaN if none finished.
        value: This mean of the metric; NaN if none finished.
        status: `"inside"` if the next lower and the next higher rate of the grid were tried, too; `"limit"` if the grid ends
            there; `"unfinished"` if no rate finished with all seeds.
    """

    learning_rate: float
    value: float
    status: Status


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The result of a search.

    Args:
        peaks: From each pair to its `Peak`.
        outcomes: All outcomes, in the order in which their trials were planned.
        trials_per_pair: The number of trials, the same for each pair.
        steps_per_pair: The optimizer steps of these trials.
    """

    peaks: dict[Pair, Peak]
    outcomes: list[Outcome]
    trials_per_pair: int
    steps_per_pair: int


def tune(
    pairs: Sequence[Pair],
    run: Run,
    *,
    budget: int,
    seeds: int,
    starts: float | Mapping[str, float],
    metric: str = "val_loss",
    mode: Mode = "min",
    rounds: Sequence[Round] = ROUNDS,
) -> Tuning:
    """Search the peak learning rate of each pair.

    The rates of an optimizer are start * 2^k. The first round tries five rates around the start, for a quarter of the budget
    and one seed; the second the best one with its neighbors, for half of the budget and two seeds; the last the best one
    with its neighbors, for the whole budget and all seeds. In each round the grid of a pair grows by one rate after another
    until the best one has both neighbors, and each other pair tries one more rate for each of these, too: that next to the
    best of those at the ends of its grid. So all pairs have equal chances to be lucky. The grid of a
    pair of which every trial diverges goes down in growing steps until one finishes.

    A rate has the mean of the metric over its seeds, and the worst possible value if one of them diverged or failed. The
    grid of a pair whose trials all failed with an error does not grow.

    Args:
        pairs: Pairs of labels: optimizer and schedule.
        run: A function from a list of trials to their outcomes, in any order.
        budget: Optimizer steps of a whole run.
        seeds: The number of seeds of the last round.
        starts: The learning rate in the middle of the first grid, or one for each optimizer.
        metric: The metric of which the last evaluation counts. Defaults to `"val_loss"`.
        mode: `"min"` or `"max"`. Defaults to `"min"`.
        rounds: The rounds. Defaults to `ROUNDS`.

    Returns:
        A `Tuning`.

    Raises:
        ValueError: If an argument is out of its range, or `run` does not return exactly one outcome for each trial.

    Example:

    >>> import numpy as np
    >>> def run(trials):
    ...     for trial in trials:
    ...         loss = np.array([1 + np.log2(trial.learning_rate / 0.032) ** 2])
    ...         yield Outcome(trial, "finished", loss, loss, np.array([trial.budget]), {"val_loss": loss}, 0.0)
    >>> tuning = tune([("sgd", "cosine")], run, budget=100, seeds=3, starts=0.001)
    >>> tuning.peaks["sgd", "cosine"], tuning.trials_per_pair
    (Peak(learning_rate=0.032, value=1.0, status='inside'), 24)
    """
    budget = validation.positive_int("budget", budget)
    seeds = validation.positive_int("seeds", seeds)
    validation.one_of("mode", mode, ("min", "max"))
    grids = {pair: _Grid(_start(starts, pair[0])) for pair in _distinct(pairs)}
    search = _Search(run, grids, metric, -1.0 if mode == "max" else 1.0)
    chosen = {pair: grid.around_start(_first(rounds).rates) for pair, grid in grids.items()}
    tried: dict[Pair, _Tried] = {}
    for each in rounds:
        if tried:
            chosen = {pair: found.best_ones(each.rates) for pair, found in tried.items()}
        tried = search.round(chosen, steps_of(each, budget), min(seeds, each.seeds or seeds))
    return search.result(tried)


def steps_of(each: Round, budget: int) -> int:
    """The optimizer steps of the trials of a round."""
    return max(1, round(each.part * budget))


def least_trials(seeds: int, rounds: Sequence[Round] = ROUNDS) -> int:
    """The number of trials of each pair if no grid has to grow."""
    return sum(each.rates * min(seeds, each.seeds or seeds) for each in rounds)


def score(outcome: Outcome, metric: str = "val_loss", sign: float = 1.0) -> float:
    """The value of an outcome, less is better: sign times the metric; infinite if the trial did not finish with a number."""
    value = sign * outcome.final(metric)
    return value if math.isfinite(value) else math.inf


class _Grid:
    """The learning rates start * 2^k between the limits."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.low = math.ceil(math.log2(LOWEST / start) - 1e-9)
        self.high = math.floor(math.log2(HIGHEST / start) + 1e-9)

    def rate(self, k: int) -> float:
        return math.ldexp(self.start, k)

    def has(self, k: int) -> bool:
        return self.low <= k <= self.high

    def around_start(self, count: int) -> list[int]:
        first = max(self.low, min(-(count // 2), self.high - count + 1))
        return [k for k in range(first, first + count) if self.has(k)]


class _Tried:
    """The scores of the learning rates that a pair has tried in a round."""

    def __init__(self, grid: _Grid) -> None:
        self.grid = grid
        self.scores: dict[int, float] = {}
        self.all_failed = True

    def add(self, k: int, outcomes: Sequence[Outcome], metric: str, sign: float) -> None:
        scores = [score(outcome, metric, sign) for outcome in outcomes]
        self.scores[k] = math.fsum(scores) / len(scores) if all(map(math.isfinite, scores)) else math.inf
        self.all_failed &= all(outcome.status == "failed" for outcome in outcomes)

    @property
    def best(self) -> int | None:
        """The best rate, the one nearest to the start of several; `None` if none is finite."""
        k = min(self.scores, key=lambda k: (self.scores[k], abs(k), k))
        return k if math.isfinite(self.scores[k]) else None

    @property
    def wanted(self) -> int | None:
        """The rate that has to be tried before the best one is known to be inside; `None` if there is none."""
        if self.all_failed:
            return None
        if self.best is None:
            lowest, jump = min(self.scores), max(1, (max(self.scores) - min(self.scores)) // 2)
            return max(self.grid.low, lowest - jump) if lowest > self.grid.low else None
        return next((k for k in (self.best - 1, self.best + 1) if self._is_free(k)), None)

    @property
    def next(self) -> int | None:
        """The rate to try next: the wanted one, or that next to the best end; `None` if the grid is exhausted."""
        if self.wanted is not None:
            return self.wanted
        near = self.best or 0
        ends = [(value, abs(k + step - near), k + step) for k, value in self.scores.items() for step in (-1, 1)]
        free = [end for end in ends if self._is_free(end[-1])]
        return min(free)[-1] if free else None

    def _is_free(self, k: int) -> bool:
        return self.grid.has(k) and k not in self.scores

    def best_ones(self, count: int) -> list[int]:
        """The best rate, its neighbors, and then those next to the best ends of these; the lowest ones if none is finite."""
        order = sorted(self.scores)
        if self.best is None:
            return order[:count]
        chosen = [self.best]
        while len(chosen) < min(count, len(order)):
            first, last = order.index(min(chosen)), order.index(max(chosen))
            ends = [order[i] for i in (first - 1, last + 1) if 0 <= i < len(order)]
            missing = [k for k in ends if abs(k - self.best) == 1]
            chosen.append(missing[0] if missing else min(ends, key=lambda k: (self.scores[k], abs(k), k)))
        return sorted(chosen)


class _Search:
    """The trials of all rounds."""

    def __init__(self, run: Run, grids: dict[Pair, _Grid], metric: str, sign: float) -> None:
        self._run, self._grids, self._metric, self._sign = run, grids, metric, sign
        self._outcomes: list[Outcome] = []

    def round(self, chosen: dict[Pair, list[int]], steps: int, seeds: int) -> dict[Pair, _Tried]:
        """All trials of a round, until the best rate of each pair is inside, or a grid is exhausted."""
        tried = {pair: _Tried(grid) for pair, grid in self._grids.items()}
        count = min(map(len, chosen.values()))  # a grid at a limit may be short
        wave: dict[Pair, list[int]] = {pair: ks[:count] for pair, ks in chosen.items()}
        while True:
            self._wave(tried, wave, steps, seeds)
            following = {pair: each.next for pair, each in tried.items()}
            if all(each.wanted is None for each in tried.values()) or None in following.values():
                return tried
            wave = {pair: [k] for pair, k in following.items() if k is not None}

    def _wave(self, tried: dict[Pair, _Tried], wave: dict[Pair, list[int]], steps: int, seeds: int) -> None:
        def trial(pair: Pair, k: int, seed: int) -> Trial:
            return Trial(*pair, self._grids[pair].rate(k), steps, seed)

        trials = [trial(pair, k, seed) for seed in range(seeds) for pair, ks in wave.items() for k in ks]
        outcomes = _by_trial(trials, self._run(list(trials)))
        self._outcomes += [outcomes[each] for each in trials]
        for pair, ks in wave.items():
            for k in ks:
                made = [outcomes[trial(pair, k, seed)] for seed in range(seeds)]
                tried[pair].add(k, made, self._metric, self._sign)

    def result(self, tried: dict[Pair, _Tried]) -> Tuning:
        trials = [outcome.trial for outcome in self._outcomes]
        steps = sum(trial.budget for trial in trials)
        peaks = {pair: self._peak(each) for pair, each in tried.items()}
        return Tuning(peaks, self._outcomes, len(trials) // len(tried), steps // len(tried))

    def _peak(self, tried: _Tried) -> Peak:
        if tried.best is None:
            return Peak(math.nan, math.nan, "unfinished")
        inside = all(k in tried.scores for k in (tried.best - 1, tried.best + 1))
        value = self._sign * tried.scores[tried.best]
        return Peak(tried.grid.rate(tried.best), value, "inside" if inside else "limit")


def _by_trial(trials: Sequence[Trial], outcomes: Iterable[Outcome]) -> dict[Trial, Outcome]:
    made = list(outcomes)
    found = {outcome.trial: outcome for outcome in made}
    if found.keys() != set(trials) or len(made) != len(trials):
        missing = [str(trial) for trial in trials if trial not in found]
        raise ValueError(
            f"`run` must return one outcome for each trial. Received: {len(made)} outcomes for {len(trials)} trials"
            + (f", none for {missing[0]}" if missing else "")
        )
    return found


def _distinct(pairs: Sequence[Pair]) -> list[Pair]:
    found = [(optimizer, schedule) for optimizer, schedule in pairs]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"`pairs` must be one or more different pairs. Received: pairs={pairs!r:.200}")
    return found


def _first(rounds: Sequence[Round]) -> Round:
    if not rounds:
        raise ValueError(f"`rounds` must have one round or more. Received: rounds={rounds!r}")
    return rounds[0]


def _start(starts: float | Mapping[str, float], optimizer: str) -> float:
    if isinstance(starts, Mapping):
        if optimizer not in starts:
            raise ValueError(f"`starts` must have a learning rate for {optimizer!r}. It has: {', '.join(starts) or 'none'}")
        start = starts[optimizer]
    else:
        start = starts
    start = validation.positive_float("starts", start)
    if not LOWEST <= start <= HIGHEST:
        raise ValueError(f"`starts` must lie between {LOWEST} and {HIGHEST}. Received: {start} for {optimizer!r}")
    return start

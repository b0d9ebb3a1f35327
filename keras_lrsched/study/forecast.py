"""Forecast of the results of whole runs from short ones: a law, and a Gaussian process of what the runs differ from it."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from keras_lrsched.laws import ConvexBound
from keras_lrsched.study.question import Question
from keras_lrsched.study.trial import Outcome

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


class Forecast:
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
        return fit_bounds([each for each in self._outcomes if self._is_good(each)], self._question) if self._is_log else {}

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


def averaged(mean: np.ndarray, choices: Sequence[tuple[str, str, float]]) -> np.ndarray:
    """Means over the neighbors of each choice in its own pair."""
    pairs = [choice[:2] for choice in choices]
    averaged = np.empty(len(mean))
    for pair in set(pairs):
        own = np.flatnonzero([each == pair for each in pairs])
        places = np.clip(np.arange(len(own))[:, None] + NEIGHBORS, 0, len(own) - 1)
        averaged[own] = mean[own][places].mean(axis=1)
    return averaged


def _gaussian_process(optimizers: int, schedules: int) -> Any:
    """Matern 5/2 with a length for each column: octaves of rate, octaves of steps, optimizers, schedules."""
    gaussian_process, kernels = scikit_learn()
    lengths = [2.0, 3.0, *[2.0] * optimizers, *[4.0] * schedules]
    bounds = [(1.5, 4.0), (1.5, 6.0), *[(0.7, 5.0)] * optimizers, *[(2.0, 20.0)] * schedules]
    kernel = kernels.ConstantKernel(0.05, (1e-3, 1.0)) * kernels.Matern(lengths, bounds, nu=2.5)
    kernel += kernels.WhiteKernel(1e-3, (1e-5, 3e-2))
    return gaussian_process.GaussianProcessRegressor(kernel, alpha=1e-8, random_state=0)


def scikit_learn() -> tuple[Any, Any]:
    try:
        from sklearn import gaussian_process
        from sklearn.gaussian_process import kernels
    except ImportError as error:
        raise ImportError("A recommendation needs scikit-learn: pip install 'keras-lrsched[study]'") from error
    return gaussian_process, kernels


def fit_bounds(outcomes: Sequence[Outcome], question: Question, skip: float = 0.3) -> dict[str, ConvexBound]:
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

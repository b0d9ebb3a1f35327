"""Multiverse analysis: the effect of one choice, averaged over all others, with bands.

A comparison at tuned peaks shows which choice is best. It does not show whether a choice is better *whatever* the others
are: whether a schedule also helps at other learning rates and with other optimizers. A multiverse is a grid of all choices;
a Gaussian process over it is fitted to a part of the runs, each chosen so that the whole grid becomes most certain.

Reference:
    Bell et al., Modeling the Machine Learning Multiverse, arXiv:2206.05985 (from the abstract and from memory: Matern 5/2
    with a length for each choice, a start by a Sobol sequence, exploration by integrated variance).
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched.study.forecast import scikit_learn
from keras_lrsched.study.search import score
from keras_lrsched.study.statistics import Interval
from keras_lrsched.study.trial import Outcome, Trial

CHOICES = ("optimizer", "schedule", "learning_rate")
CLIP = 3.0
"""A run that is worse than the median by more than this many deviations (diverged ones, too) counts as worse by this."""


@dataclasses.dataclass(frozen=True)
class Effect:
    """The mean of the metric for each option of a choice, averaged over all other choices.

    Args:
        choice: `"optimizer"`, `"schedule"` or `"learning_rate"`.
        options: The labels, or the learning rates as factors of the usual one of each optimizer.
        means: The mean of each option; of the logarithm of the metric if `is_log`.
        deviations: Its standard deviation.
        differences: From each pair of options (rows less columns) to the mean difference.
        difference_deviations: Its standard deviation; means are not independent of each other.
        is_log: Whether values are logarithms, since all runs have a metric above 0 that is to be small.
        larger_is_better: Whether larger values are better. Defaults to `False`.
    """

    choice: str
    options: list[Any]
    means: np.ndarray
    deviations: np.ndarray
    differences: np.ndarray
    difference_deviations: np.ndarray
    is_log: bool
    larger_is_better: bool = False

    @property
    def best(self) -> Any:
        """The option with the best mean."""
        return self.options[int(np.argmax(self.means) if self.larger_is_better else np.argmin(self.means))]

    def interval(self, option: Any, other: Any, level: float = 0.95) -> Interval:
        """Return the interval for the mean difference of two options; a ratio of values less 1 if `is_log`.

        Args:
            option: One of `options`.
            other: Another one.
            level: Its probability, as far as the process describes the runs. Defaults to `0.95`.

        Raises:
            ValueError: If an option is none of `options`.
        """
        for each in (option, other):
            validation.one_of("option", each, self.options)
        i, j = self.options.index(option), self.options.index(other)
        reach = scipy.stats.norm.ppf((1 + level) / 2) * self.difference_deviations[i, j]
        ends = self.differences[i, j] - reach, self.differences[i, j] + reach
        return (math.expm1(ends[0]), math.expm1(ends[1])) if self.is_log else ends

    def __str__(self) -> str:
        values = np.exp(self.means) if self.is_log else self.means
        lines = [f"{self.choice}: mean over all other choices, and interval for the difference from {self._name(self.best)}"]
        for option, value in zip(self.options, values, strict=True):
            name = self._name(option)
            if option == self.best:
                lines.append(f"  {name}: {value:.4g}")
                continue
            low, high = self.interval(option, self.best)
            shown = f"{low:+.1%} to {high:+.1%}" if self.is_log else f"{low:+.3g} to {high:+.3g}"
            lines.append(f"  {name}: {value:.4g} ({shown})")
        return "\n".join(lines)

    def _name(self, option: Any) -> str:
        return f"{option:.3g} x" if self.choice == "learning_rate" else str(option)


class Multiverse:
    """Gaussian process over a grid of choices, which plans runs and averages over them.

    Args:
        optimizers: Labels.
        schedules: Labels.
        starts: The usual learning rate of each optimizer.
        octaves: The grid of learning rates goes from the usual one by this many octaves down and up.
        budget: Optimizer steps of a run.
        metric: The metric of which the last evaluation counts. Defaults to `"val_loss"`.
        mode: `"min"` or `"max"`. Defaults to `"min"`.
        seed: Of the Sobol sequence. Defaults to `0`.
    """

    def __init__(
        self,
        optimizers: Sequence[str],
        schedules: Sequence[str],
        starts: dict[str, float],
        octaves: int,
        budget: int,
        metric: str = "val_loss",
        mode: str = "min",
        seed: int = 0,
    ) -> None:
        self.optimizers, self.schedules = list(optimizers), list(schedules)
        self.octaves = np.arange(-octaves, octaves + 1)
        self._starts, self._budget, self._metric, self._seed = starts, budget, metric, seed
        self._sign = -1.0 if mode == "max" else 1.0
        self.outcomes: list[Outcome] = []
        sizes = len(self.optimizers), len(self.schedules), len(self.octaves)
        self._grid = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), axis=-1).reshape(-1, 3)
        self._process: Any = None
        self._is_log = False

    def first(self, count: int) -> list[Trial]:
        """Return the trials at the start: a Sobol sequence over the grid, each point with two seeds, which show the noise.

        Args:
            count: How many; twice the whole grid if it has fewer points.
        """
        sizes = self._grid.max(axis=0) + 1
        points = scipy.stats.qmc.Sobol(3, rng=self._seed).random(1 << math.ceil(math.log2(4 * len(self._grid))))
        places = dict.fromkeys(map(tuple, (points * sizes).astype(int)))
        return [self._trial(place, seed) for place in places for seed in (0, 1)][:count]

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Fit the process to all outcomes so far.

        Args:
            outcomes: New ones.

        Raises:
            ValueError: If none of them finished.
        """
        self.outcomes += outcomes
        values = np.array([score(each, self._metric, self._sign) for each in self.outcomes])
        finite = values[np.isfinite(values)]
        if not len(finite):
            raise ValueError(f"None of {len(values)} runs of the multiverse finished. The first: {self.outcomes[0].error}")
        self._is_log = bool(self._sign > 0 and finite.min() > 0)
        y = np.log(np.where(np.isfinite(values), values, np.inf)) if self._is_log else values
        deviation = max(float(np.std(y[np.isfinite(y)])), 1e-12)
        y = np.minimum(y, np.median(y[np.isfinite(y)]) + CLIP * deviation)
        self._center, self._scale = float(np.mean(y)), max(float(np.std(y)), 1e-12)
        self._process = self._kernel_process()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a length at the edge of its range is fine
            self._process.fit(self._features(self._places()), (y - self._center) / self._scale)

    def next(self, count: int) -> list[Trial]:
        """Return the trials that lower the mean variance over the grid most, one after another.

        Variances do not depend on values, so several can be chosen at once.

        Args:
            count: How many.
        """
        covariance, noise = self._posterior()[1], self._noise
        taken = list(map(tuple, self._places()))
        chosen = []
        for _ in range(count):
            gains = np.sum(covariance**2, axis=1) / (np.diag(covariance) + noise)
            best = int(np.argmax(gains))
            place = tuple(int(each) for each in self._grid[best])
            chosen.append(self._trial(place, taken.count(place)))
            taken.append(place)
            column = covariance[:, best]
            covariance = covariance - np.outer(column, column) / (column[best] + noise)
        return chosen

    def effect(self, choice: str) -> Effect:
        """Return the effect of a choice, averaged over the grid of the others.

        Args:
            choice: `"optimizer"`, `"schedule"` or `"learning_rate"`.

        Raises:
            ValueError: If it is none of these.
        """
        validation.one_of("choice", choice, CHOICES)
        column = CHOICES.index(choice)
        options = (self.optimizers, self.schedules, [2.0 ** int(each) for each in self.octaves])[column]
        weights = np.stack([self._grid[:, column] == i for i in range(len(options))]).astype("float64")
        weights /= weights.sum(axis=1, keepdims=True)
        mean, covariance = self._posterior()
        means, covariances = self._center + self._scale * weights @ mean, self._scale**2 * weights @ covariance @ weights.T
        covariances *= self._surprise()
        variances = np.diag(covariances)
        of_differences = variances[:, None] + variances[None, :] - 2 * covariances
        return Effect(
            choice,
            list(options),
            self._sign * means,
            np.sqrt(np.maximum(variances, 0)),
            self._sign * (means[:, None] - means[None, :]),
            np.sqrt(np.maximum(of_differences, 0)),
            self._is_log,
            self._sign < 0,
        )

    def _trial(self, place: Sequence[int], seed: int) -> Trial:
        optimizer, schedule = self.optimizers[place[0]], self.schedules[place[1]]
        rate = math.ldexp(self._starts[optimizer], int(self.octaves[place[2]]))
        return Trial(optimizer, schedule, rate, self._budget, seed)

    def _places(self) -> np.ndarray:
        rows = []
        for trial in (each.trial for each in self.outcomes):
            octave = round(math.log2(trial.learning_rate / self._starts[trial.optimizer]))
            rows.append(
                [self.optimizers.index(trial.optimizer), self.schedules.index(trial.schedule), octave - self.octaves[0]]
            )
        return np.array(rows)

    def _features(self, places: np.ndarray) -> np.ndarray:
        """Columns of 0 and 1 for labels, and octaves for the learning rate."""
        labels = [np.eye(len(self.optimizers))[places[:, 0]], np.eye(len(self.schedules))[places[:, 1]]]
        return np.concatenate([*labels, self.octaves[places[:, 2]][:, None]], axis=1)

    def _kernel_process(self) -> Any:
        gaussian_process, kernels = scikit_learn()
        labels = len(self.optimizers) + len(self.schedules)
        lengths, bounds = [*[2.0] * labels, 3.0], [*[(0.3, 30.0)] * labels, (1.0, 12.0)]
        kernel = kernels.ConstantKernel(1.0, (1e-2, 1e2)) * kernels.Matern(lengths, bounds, nu=2.5)
        kernel += kernels.WhiteKernel(0.05, (1e-4, 1.0))
        return gaussian_process.GaussianProcessRegressor(kernel, alpha=1e-8, random_state=0)

    @property
    def _noise(self) -> float:
        return float(self._process.kernel_.k2.noise_level)

    def _posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the values without noise over the grid, standardized."""
        mean, covariance = self._process.predict(self._features(self._grid), return_cov=True)
        return mean, covariance - self._noise * np.eye(len(mean))

    def _surprise(self) -> float:
        """The mean square of leave-one-out errors, in their expected deviations, at least 1; bands are widened by its root.

        With few runs the most likely process often takes noise for structure, and is too sure.
        """
        factor = self._process.L_
        inverse = scipy.linalg.cho_solve((factor, True), np.eye(len(factor)))
        errors = self._process.alpha_ / np.sqrt(np.diag(inverse))
        return max(1.0, float(np.mean(errors**2)))


def multiverse(study: Any, trials: int = 64, octaves: int = 4, seed: int = 0) -> Multiverse:
    """Make runs of a study all over the grid of its choices, and fit a `Multiverse` to them.

    A half of the runs are a Sobol sequence of points, two each; the others are chosen in five rounds.

    Args:
        study: A `Study`.
        trials: How many runs, of the whole budget. Defaults to `64`.
        octaves: See `Multiverse`. Defaults to `4`: from a sixteenth to sixteen times the usual rate.
        seed: Of the Sobol sequence. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of its range, or no run finished.
        ImportError: If scikit-learn is not installed.
    """
    trials, octaves = validation.positive_int("trials", trials), validation.positive_int("octaves", octaves)
    scikit_learn()
    found = Multiverse(
        list(study.optimizers), list(study.schedules), study.starts(), octaves, study.budget, study.metric, study.mode, seed
    )
    found.add(study.run_trials(found.first(max(1, trials // 2))))
    while (left := trials - len(found.outcomes)) > 0:
        found.add(study.run_trials(found.next(min(left, max(1, trials // 10)))))
    return found

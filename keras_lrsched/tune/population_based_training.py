"""Population based training (Jaderberg et al. 2017) of any scheduled setting, by workers of Ray."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_lrsched._core import runs, validation
from keras_lrsched._core.ray_pool import pool
from keras_lrsched.tune._member import POLICY, STATE, Worker
from keras_lrsched.tune._progress import SEARCH, Progress, load_outcome
from keras_lrsched.tune.policy import Policy


@dataclass(frozen=True)
class Discovery:
    """Result of a search.

    Attributes:
        policy: The settings of the best member and of all that it was copied from, as a `Policy`.
        value: Its metric at the end.
        state: Its file of `TrainingState`.
        values: The metric of each member after each round: a list of lists.
        copies: A list of `[round, member, source]`: after that round, counted from 0, the member became a copy of `source`.
    """

    policy: Policy
    value: float
    state: Path
    values: list[list[float]]
    copies: list[list[int]]


class PopulationBasedTraining:
    """Population based training: of models trained at once, the worst become copies of the best, with other settings.

    A round is some epochs of `fit`. After each, the members are ranked by a metric. Each of the worst `quantile_fraction`
    becomes a copy of a random one of the best `quantile_fraction`, weights, optimizer and all (exploit). Each of its
    settings is then, with `resample_probability`, drawn anew, and else multiplied by one of `perturbation_factors`, within
    its range; of a list of values, it moves to a neighbor (explore). The settings of the best member, back through the
    copies to its beginning, are a schedule, which one run can replay.

    The rule and its defaults are those of Ray Tune's scheduler of this name in its synchronous mode, with two exceptions:
    what leaves its range is put back to its border, and a member whose metric is no number is the worst, and not left out.
    Ray itself runs the workers, which live as long as the search; one that dies is replaced, and its round trained again.
    Ray Tune's scheduler ends all worker processes after each synchronous round, and an import of TensorFlow can take
    longer than a round of a small model.

    All members are ranked after the same number of updates, so a search depends on `seed` and not on which worker is faster.

    Args:
        settings: A dictionary from paths, as `ScheduleHyperparameter` takes them, such as `"optimizer.learning_rate"`, to a
            range, a tuple of two non-negative numbers, or a list of non-negative values. Ranges above 0 are drawn from
            evenly over the logarithm.
        metric: What `fit` reports of an epoch. Defaults to `"val_loss"`.
        mode: `"min"` or `"max"`. Defaults to `"min"`.
        population: The number of members, at least 2. Defaults to `8`.
        rounds: Defaults to `10`.
        epochs: Of a round. Defaults to `1`.
        quantile_fraction: Above 0, at most 0.5. Defaults to `0.25`.
        resample_probability: Defaults to `0.25`.
        perturbation_factors: Two positive numbers. Defaults to `(1.2, 0.8)`.
        seed: Of settings and, counted on from member to member, of initial weights. Defaults to `0`.

    Raises:
        ImportError: From `search`, without Ray.
        ValueError: If an argument is out of its range.

    Reference:
        arXiv 1711.09846. Ray Tune 2.60, `ray/tune/schedulers/pbt.py`, which was read and run. The paper's own percentages
        were not checked.

    Example:

    >>> settings = {"optimizer.learning_rate": (1e-3, 1.0), "optimizer.momentum": [0.8, 0.9, 0.95]}
    >>> search = PopulationBasedTraining(settings, population=4, resample_probability=0.0, perturbation_factors=(2.0, 2.0))
    >>> search.explore({"optimizer.learning_rate": 0.1, "optimizer.momentum": 0.95}, np.random.default_rng(0))
    {'optimizer.learning_rate': 0.2, 'optimizer.momentum': 0.9}
    """

    def __init__(
        self,
        settings: dict[str, tuple[float, float] | list[float]],
        metric: str = "val_loss",
        mode: Literal["min", "max"] = "min",
        population: int = 8,
        rounds: int = 10,
        epochs: int = 1,
        quantile_fraction: float = 0.25,
        resample_probability: float = 0.25,
        perturbation_factors: tuple[float, float] = (1.2, 0.8),
        seed: int = 0,
    ) -> None:
        if not isinstance(settings, dict) or not settings:
            raise ValueError(f"`settings` must be a non-empty dictionary. Received: settings={settings!r}")
        self.settings = {target: _space(target, values) for target, values in settings.items()}
        self.metric = metric
        self.mode = validation.one_of("mode", mode, ("min", "max"))
        self.population = validation.positive_int("population", population)
        if self.population < 2:
            raise ValueError(f"`population` must be at least 2. Received: population={population}")
        self.rounds = validation.positive_int("rounds", rounds)
        self.epochs = validation.positive_int("epochs", epochs)
        self.quantile_fraction = validation.positive_fraction("quantile_fraction", quantile_fraction)
        if self.quantile_fraction > 0.5:
            raise ValueError(f"`quantile_fraction` must be at most 0.5. Received: quantile_fraction={quantile_fraction}")
        self.resample_probability = validation.fraction("resample_probability", resample_probability)
        factors = validation.each("perturbation_factors", perturbation_factors, validation.positive_float)
        if len(factors) != 2:
            raise ValueError(f"`perturbation_factors` must be two. Received: perturbation_factors={perturbation_factors}")
        self.perturbation_factors = tuple(factors)
        self.seed = validation.non_negative_int("seed", seed)

    def search(
        self,
        make: Callable[[], tuple[keras.Model, dict[str, Any]]],
        folder: str | PathLike,
        workers: int = 2,
        resources: dict[str, Any] | None = None,
    ) -> Discovery:
        """Train the population.

        Args:
            make: A function without arguments that returns a compiled model and a dictionary of arguments for `fit`:
                data, `validation_data`, `callbacks`, ... It is called on the workers, before each round. Give
                `ScheduledBatches`, so that a copy continues in its data too.
            folder: A folder that the program and all workers share: a new or empty one, or one in which the same search was
                interrupted. That search continues, with the members that had finished their round. In the end the folder has
                `policy.json`, `best.state`, and a file for each setting that `Tabulated.load` reads.
            workers: How many members are trained at once. With less room on a Ray cluster, the search continues with the
                workers that fit, and warns. Defaults to `2`.
            resources: What one worker takes, as options of `ray.remote`. Defaults to `None`: `{"num_cpus": 1}`.

        Returns:
            A `Discovery`.

        Raises:
            ValueError: If the folder holds anything else, or is not shared; if the metric of all members is no number.
            RuntimeError: If no node of the Ray cluster is large enough for a worker.
            Whatever went wrong on a worker.
        """
        if not callable(make):
            raise ValueError(f"`make` must be a function. Received: make={make!r:.200}")
        folder = Path(folder).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        _check_folder(folder)
        runs.lock(folder / SEARCH)
        try:
            arguments = make, self.epochs, self.metric, self.mode, keras.backend.backend()
            with pool(Worker, arguments, workers, resources) as members:
                return self.evolve(lambda jobs: members.map(lambda worker, job: worker.train.remote(*job), jobs), folder)
        finally:
            runs.unlock(folder / SEARCH)

    def evolve(self, train: Callable[[list[tuple]], list[tuple[float, float]]], folder: Path) -> Discovery:
        """The search, where `train` makes one round of members: of a list of arguments of `Worker.train`.

        It continues an interrupted one from what that has left in the folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        progress = Progress.load(folder, self._arguments())
        numbers = np.random.default_rng(self.seed)
        if progress is None:
            settings = [self.draw(numbers) for _ in range(self.population)]
            progress = Progress(settings, [None] * self.population, numbers.bit_generator.state)
        numbers.bit_generator.state = progress.numbers
        while progress.rounds < self.rounds:
            progress.save(folder, self._arguments())
            shutil.rmtree(_rounds(folder) / str(progress.rounds - 2), ignore_errors=True)
            outcomes = self._round(train, folder, progress)
            self._advance(progress, outcomes, numbers)
        progress.save(folder, self._arguments())
        best = int(np.argmax(progress.scores))
        return _written(_rounds(folder) / str(self.rounds - 1) / str(best), folder, progress, best)

    def _round(
        self, train: Callable[[list[tuple]], list[tuple[float, float]]], folder: Path, progress: Progress
    ) -> list[tuple[float, float]]:
        """Train those members that had not finished the next round before an interruption; return the outcomes of all."""
        places = [_rounds(folder) / str(progress.rounds) / str(i) for i in range(self.population)]
        outcomes = [load_outcome(place) for place in places]
        left = [i for i, outcome in enumerate(outcomes) if outcome is None]
        jobs = []
        for i in left:
            shutil.rmtree(places[i], ignore_errors=True)
            source = progress.sources[i]
            begin = None if source is None else _rounds(folder) / str(progress.rounds - 1) / str(source)
            jobs.append((self.seed + i, progress.settings[i], begin, places[i]))
        for i, outcome in zip(left, train(jobs), strict=True):
            outcomes[i] = outcome
        missing = [str(place) for place in places if not (place / STATE).exists()]
        if missing:
            raise ValueError(
                f"`folder` must be one that the program and all workers share: {missing[0]} was written by a worker, and is "
                f"not here. Received: folder={str(folder)!r}"
            )
        return [outcome for outcome in outcomes if outcome is not None]

    def _advance(self, progress: Progress, outcomes: list[tuple[float, float]], numbers: np.random.Generator) -> None:
        """Record the outcomes of a round, and choose what the next one begins with."""
        values, scores = ([pair[i] for pair in outcomes] for i in range(2))
        if max(scores) == -math.inf:
            raise ValueError(
                f"All {self.population} members have diverged in round {progress.rounds}, counted from 0: narrow the ranges "
                f"in `settings`, and search in a new folder. Received: {self.metric}={values!r:.200}"
            )
        pairs = self.exploit(scores, numbers) if progress.rounds + 1 < self.rounds else []
        sources: list[int | None] = list(range(self.population))
        for member, source in pairs:
            sources[member], progress.settings[member] = source, self.explore(progress.settings[source], numbers)
            progress.copies.append([progress.rounds, member, source])
        progress.sources, progress.scores = sources, scores
        progress.values.append(values)
        progress.numbers = numbers.bit_generator.state

    def _arguments(self) -> dict[str, Any]:
        names = ["settings", "metric", "mode", "population", "rounds", "epochs", "quantile_fraction"]
        names += ["resample_probability", "perturbation_factors", "seed"]
        return {name: getattr(self, name) for name in names}

    def draw(self, numbers: np.random.Generator) -> dict[str, float]:
        """Settings of a member without a past."""
        return {target: _drawn(space, numbers) for target, space in self.settings.items()}

    def exploit(self, scores: list[float], numbers: np.random.Generator) -> list[tuple[int, int]]:
        """Pairs of a member of the worst and the one of the best that it becomes a copy of; a larger score is better."""
        size = min(math.ceil(len(scores) * self.quantile_fraction), len(scores) // 2)
        ranked = [int(i) for i in np.argsort(scores, kind="stable")]
        return [(member, int(numbers.choice(ranked[-size:]))) for member in ranked[:size]]

    def explore(self, settings: dict[str, float], numbers: np.random.Generator) -> dict[str, float]:
        """Settings near those of another member, or new ones."""
        return {target: self._moved(settings[target], space, numbers) for target, space in self.settings.items()}

    def _moved(self, value: Any, space: tuple[float, float] | list[float], numbers: np.random.Generator) -> float:
        if numbers.random() < self.resample_probability:
            return _drawn(space, numbers)
        if isinstance(space, list):
            place = space.index(value) + int(numbers.choice([-1, 1]))
            return space[min(max(place, 0), len(space) - 1)]
        return float(np.clip(value * numbers.choice(self.perturbation_factors), *space))


def _rounds(folder: Path) -> Path:
    return folder / "rounds"


def _check_folder(folder: Path) -> None:
    """Raise for a folder that is neither empty nor one in which a search was interrupted."""
    names = {path.name for path in folder.iterdir()}
    if SEARCH in names or not names - {f"{SEARCH}.lock", f"{SEARCH}.new"}:
        return
    if POLICY in names:
        raise ValueError(
            "The folder holds a search that is finished: read it with `Policy.load`, or give a new `folder`. "
            f"Received: folder={str(folder)!r}"
        )
    raise ValueError(
        f"`folder` must be empty, or one in which this search was interrupted. Received: folder={str(folder)!r} with "
        f"{', '.join(sorted(names)):.200}"
    )


def _written(place: Path, folder: Path, progress: Progress, best: int) -> Discovery:
    """The best member, in files of its own; the others, and what an interrupted search continues from, are removed."""
    shutil.copyfile(place / STATE, folder / "best.state")
    policy = Policy.load(place / POLICY)
    for target, schedule in policy.schedules().items():
        schedule.save(folder / f"{target}.json")
    policy.save(folder / POLICY)
    (folder / SEARCH).unlink()
    shutil.rmtree(_rounds(folder))
    return Discovery(policy, progress.values[-1][best], folder / "best.state", progress.values, progress.copies)


def _space(target: str, values: Any) -> tuple[float, float] | list[float]:
    """A tuple of two numbers, or a list."""
    if isinstance(values, list):
        if not values:
            raise ValueError(f"`settings` must give values to choose from. Received: {target}={values}")
        return validation.each(target, values, validation.non_negative_float)
    if not isinstance(values, tuple) or len(values) != 2:
        raise ValueError(f"`settings` must give a tuple of two numbers or a list of values. Received: {target}={values!r}")
    return tuple(validation.increasing(target, values, validation.non_negative_float))


def _drawn(space: tuple[float, float] | list[float], numbers: np.random.Generator) -> float:
    if isinstance(space, list):
        return space[int(numbers.integers(len(space)))]
    low, high = space
    return float(low * (high / low) ** numbers.random()) if low > 0 else float(numbers.uniform(low, high))

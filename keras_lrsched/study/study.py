"""Study: which learning rate, schedule and optimizer for the user's own model, answered by runs."""

import contextlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from keras_lrsched._core import validation as checks
from keras_lrsched.schedules.schedule import compute
from keras_lrsched.study import _choices, executors
from keras_lrsched.study._progress import Progress
from keras_lrsched.study.executors import ExecutorName
from keras_lrsched.study.journal import Journal
from keras_lrsched.study.problem import Facts, Problem, digest
from keras_lrsched.study.training import Runner
from keras_lrsched.study.trial import Outcome, Trial

if TYPE_CHECKING:
    from keras_lrsched.study.multiverse import Multiverse
    from keras_lrsched.study.recommend import Recommendation
    from keras_lrsched.study.results import Results

FORMAT = 1
"""Of the files of a study."""
SHORT_RUNS = "recommend"
"""The folder in a study's directory for runs that do not belong to its results."""
USUAL_WARMUP = 0.05
"""Of the budget."""

LearningRates = float | Sequence[float] | Literal["tuned"]


class Study:
    """Comparison of optimizers and schedules on the user's own model and data, each at the learning rates that suit it.

        study = Study(
            build_model, train=(x, y), validation=(x_val, y_val), loss="mse",
            optimizers=["adamw", "muon"], schedules=["constant", "cosine"], budget=1000, directory="my_study",
        )
        results = study.run()

    Runs of one seed have the same initial weights and the same batches. With `learning_rates="tuned"`, the peak of each pair
    of optimizer and schedule is searched, with the same number of runs for each (see `keras_lrsched.study.search`).

    A run is what `compile` and `fit` make of these settings, with the same bits on a CPU:

        keras.utils.set_random_seed(study.keras_seed(seed))
        model = build_model()
        model.compile(optimizer(schedule), loss=loss, metrics=metrics)
        model.fit(study.batches(seed), steps_per_epoch=budget // evaluations, epochs=evaluations, validation_data=validation)

    A run that raises an error or whose loss is not finite is recorded as that and does not stop the others. With a
    `directory`, each finished run is kept there, and `run` goes on after an interruption where it has ended.

    Args:
        build_model: A function without arguments that returns a new model, compiled or not. Its weights have to come from
            the seed that `keras.utils.set_random_seed` sets.
        train: Arrays `(x, y)` or `(x, y, sample_weight)`, a `PyDataset`, a `tf.data.Dataset`, a torch `DataLoader`, or a
            function of the seed that returns one of these or an iterable of batches. Arrays and the batches of a `PyDataset`
            are shuffled; the order of others is their own.
        validation: The same, the same for each seed: a function is called with the seed 0.
        loss: As in `compile`. Defaults to `None`: that of the compiled model.
        metrics: As in `compile`. Defaults to `None`: those of the compiled model.
        batch_size: Of arrays. Defaults to `32`.
        optimizers: A list of names as `keras_lrsched.optimizers.get` takes them, optimizers, classes, or functions from a
            learning rate to an optimizer; or a dictionary of these by label. Defaults to `("adamw",)`.
        schedules: A list of names as `keras_lrsched.schedules.get` takes them, classes of schedules, functions of
            `(peak_learning_rate, total_steps)` and, if they have it, `warmup_steps`, or schedules, which are scaled to each
            peak and stretched to each budget; or a dictionary of these by label. A function may also return new callbacks,
            such as `keras.callbacks.ReduceLROnPlateau`, which set the learning rate from the peak on. Defaults to
            `("constant", "cosine")`.
        learning_rates: `"tuned"`, a number, a list, or a dictionary of these from the labels of optimizers. Defaults to
            `"tuned"`.
        grid_center: The learning rate in the middle of the first grid of a search, or a dictionary of these from the labels
            of optimizers. Defaults to `None`: that which the optimizer has by default.
        budget: Optimizer steps of a run. Defaults to `None`: `epochs` times the batches of an epoch.
        epochs: Passes over the training data, in the place of `budget`. Defaults to `None`.
        seeds: The number of seeds. Defaults to `5`.
        workers: How many runs are made at once. Defaults to `1`.
        directory: Where runs are kept. Defaults to `None`: in memory only.
        executor: `"serial"`, `"processes"` (each of one thread, on a core of its own) or `"ray"` (a cluster). Defaults to
            `None`: processes if there are several workers.
        seed: The seed of the study, from which all else that is random follows. Defaults to `0`.
        warmup_steps: Of a run of the whole budget; a shorter one has fewer in proportion. Defaults to `None`: 5 % of the
            budget.
        evaluations: On validation data, in a run; the last one at its end. Defaults to `10`.
        metric: The metric of which the last evaluation counts: `"val_loss"`, or a metric's name with `val_` in front.
            Defaults to `"val_loss"`.
        mode: `"min"` if lower values of it are better, `"max"` if higher ones are. Defaults to `"min"`.
        target: A value of the metric for the steps and the time to it. Defaults to `None`: 2 % worse than the best pair.
        monitor: The name of the training loss in the logs of a batch. Defaults to `"loss"`.
        compile_options: Further arguments of `compile`, such as `jit_compile`. Defaults to `None`.
        fit_options: Further arguments of `fit`, such as `class_weight`. Defaults to `None`.
        callbacks: A function without arguments that returns new callbacks for a run. Defaults to `None`.
        reuse_model: Whether the runs of an optimizer share one model and its compiled step in each process. This saves
            tracing and compiling the step for each run; weights, state of the optimizer and random seeds of layers are
            set back to those of a new model, and the schedule is set from outside of the step, which rounds otherwise. On
            PyTorch, whose layers draw from one global generator, the numbers that dropout draws are others than those of a
            new model, but the same for all runs of a seed. Models must not keep anything else from run to run, and
            `steps_per_execution` must be 1. Defaults to `False`.
        resources: What a worker takes on a Ray cluster, as options of `ray.remote`. Defaults to `None`: one CPU.
        same_weights: Whether runs of all seeds may begin with the same weights, as those of a pretrained model.
            Defaults to `False`.
        allow_overlap: Whether validation examples may be among the training examples. Defaults to `False`.

    Raises:
        ValueError: If an argument is out of its range; if data are missing, not finite, or overlap; if weights or batches
            are no function of the seed; if the metric does not exist; if functions cannot be sent to the workers; or if the
            directory holds a study of other settings.
        OSError: If the directory cannot be written to.

    Example:

    >>> x = np.linspace(-1, 1, 96, dtype="float32")[:, None]
    >>> def build_model():
    ...     return keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    >>> study = Study(
    ...     build_model, train=(x[::2], 2 * x[::2]), validation=(x[1::2], 2 * x[1::2]), loss="mse", optimizers=["sgd"],
    ...     schedules=["linear"], learning_rates=0.1, budget=20, seeds=2, evaluations=2,
    ... )
    >>> outcomes = study.outcomes(verbose=0)
    >>> len(outcomes), outcomes[0].evaluated_at
    (2, array([10, 20]))
    """

    def __init__(
        self,
        build_model: Callable[[], keras.Model],
        train: Any,
        validation: Any = None,
        loss: Any = None,
        metrics: Any = None,
        batch_size: int = 32,
        optimizers: Any = ("adamw",),
        schedules: Any = ("constant", "cosine"),
        learning_rates: LearningRates | Mapping[str, float | Sequence[float]] = "tuned",
        grid_center: float | Mapping[str, float] | None = None,
        budget: int | None = None,
        epochs: int | None = None,
        seeds: int = 5,
        workers: int = 1,
        directory: str | os.PathLike | None = None,
        executor: ExecutorName | None = None,
        seed: int = 0,
        warmup_steps: int | None = None,
        evaluations: int = 10,
        metric: str = "val_loss",
        mode: Literal["min", "max"] = "min",
        target: float | None = None,
        monitor: str = "loss",
        compile_options: dict[str, Any] | None = None,
        fit_options: dict[str, Any] | None = None,
        callbacks: Callable[[], Any] | None = None,
        reuse_model: bool = False,
        resources: dict[str, Any] | None = None,
        same_weights: bool = False,
        allow_overlap: bool = False,
    ) -> None:
        self.problem = Problem(
            build_model,
            train,
            validation,
            loss=loss,
            metrics=metrics,
            batch_size=checks.positive_int("batch_size", batch_size),
            seed=checks.non_negative_int("seed", seed),
            monitor=monitor,
            compile_options=compile_options,
            fit_options=fit_options,
            callbacks=callbacks,
            same_weights=same_weights,
            allow_overlap=allow_overlap,
        )
        self.seeds = checks.positive_int("seeds", seeds)
        self.workers = checks.positive_int("workers", workers)
        self.executor, self.resources = executor, resources
        self.evaluations = checks.positive_int("evaluations", evaluations)
        self.metric, self.mode = metric, checks.one_of("mode", mode, ("min", "max"))
        self.target = None if target is None else checks.finite_float("target", target)
        self.problem.check_arguments()
        self.budget = self._budget(budget, epochs)
        self.warmup_steps = self._warmup(warmup_steps)
        self.optimizers = _choices.optimizer_factories(optimizers)
        self.schedules = _choices.schedule_factories(schedules, self.budget, self.warmup_steps)
        self.learning_rates = _learning_rates(learning_rates, self.optimizers)
        self._grid_center = _grid_center(grid_center, self.optimizers)
        self._check_budgets()
        if reuse_model:
            _check_reusable(compile_options)
        self._runner = Runner(self.problem, self.optimizers, self.schedules, self.evaluations, bool(reuse_model))
        if self._uses_processes:
            executors.packed(self._runner)
        self.facts = self.problem.check(metric)
        self.journal = None if directory is None else Journal(directory)
        self.settings = self._settings(self.facts)
        if self.journal is not None:
            self.journal.open(self.settings)
        self._outcomes: dict[Trial, Outcome] = {}
        self._short_runs: dict[Trial, Outcome] = {}
        self._active: _Session | None = None

    @property
    def tuned(self) -> bool:
        """Whether the peak of each pair is searched."""
        return self.learning_rates is None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The labels of each optimizer with each schedule."""
        return list(itertools.product(self.optimizers, self.schedules))

    def keras_seed(self, seed: int) -> int:
        """The argument of `keras.utils.set_random_seed` before the model of a seed is built.

        Args:
            seed: The number of a seed, from 0 on.
        """
        return self.problem.keras_seed(seed)

    def batches(self, seed: int) -> Any:
        """The batches of the runs of a seed, without end: for `fit` with `steps_per_epoch`.

        Args:
            seed: The number of a seed, from 0 on.
        """
        return self.problem.batches(seed)

    def run(self, verbose: int = 1) -> "Results":
        """Make all runs that the directory does not hold, and return the results.

        Args:
            verbose: 1 for a progress bar on standard error, 0 for none. Defaults to `1`.

        Raises:
            KeyboardInterrupt: After Ctrl-C. Runs that are finished are kept; `run` goes on with the others.
            SystemExit: After SIGTERM, likewise.
        """
        from keras_lrsched.study.results import Results

        return Results(self.outcomes(verbose), self.metric, self.mode, self.tuned, self.settings)

    def outcomes(self, verbose: int = 1) -> list[Outcome]:
        """The outcomes of all runs, those that are missing being made: what `run` makes `Results` of.

        Args:
            verbose: As in `run`. Defaults to `1`.
        """
        with self._session(self.journal, self._outcomes, self._expected_steps(), verbose) as session:
            made = self._search(session) if self.tuned else session.run(self._grid())
        _warn_of_failed(made, stacklevel=4)
        return made

    def recommend(self, budget_fraction: float = 0.05, level: float = 0.8, verbose: int = 1) -> "Recommendation":
        """Recommend a learning rate, schedule and optimizer from a small part of the compute.

        Args:
            budget_fraction: The part of one full run for each pair that may be spent. Defaults to `0.05`.
            level: The probability of the interval. Defaults to `0.8`.
            verbose: As in `run`. Defaults to `1`.
        """
        from keras_lrsched.study.recommend import recommend

        with self._session(self._journal_of_short_runs(), self._short_runs, 0, verbose) as self._active:
            try:
                return recommend(self, budget_fraction, level)
            finally:
                self._active = None

    def multiverse(self, trials: int = 64, octaves: int = 4, seed: int = 0, verbose: int = 1) -> "Multiverse":
        """Make runs all over the grid of optimizers, schedules and learning rates: what has which effect on average?

        Args:
            trials: How many runs, of the whole budget. Defaults to `64`.
            octaves: The learning rates go from the usual one of each optimizer by this many octaves down and up. Defaults to
                `4`.
            seed: Of the choice of the first runs. Defaults to `0`.
            verbose: As in `run`. Defaults to `1`.

        Returns:
            A `Multiverse`: `print(found.effect("schedule"))`.
        """
        from keras_lrsched.study.multiverse import multiverse

        with self._session(self._journal_of_short_runs(), self._short_runs, 0, verbose) as self._active:
            try:
                return multiverse(self, trials, octaves, seed)
            finally:
                self._active = None

    def run_trials(self, trials: list[Trial]) -> list[Outcome]:
        """The outcomes of trials of any peak and budget, in their order: recorded ones, and new ones, which are recorded.

        Args:
            trials: `Trial`s with labels of this study.
        """
        if self._active is not None:
            return self._active.run(trials)
        with self._session(self._journal_of_short_runs(), self._short_runs, 0, 0) as session:
            made = session.run(trials)
        _warn_of_failed(made, stacklevel=3)
        return made

    def starts(self) -> dict[str, float]:
        """The middle of the first grid of each optimizer, by its label: `grid_center`, or its usual learning rate."""
        return {
            label: self._grid_center.get(label) or _choices.usual_learning_rate(make)
            for label, make in self.optimizers.items()
        }

    def __repr__(self) -> str:
        return (
            f"Study({len(self.optimizers)} optimizers, {len(self.schedules)} schedules, budget={self.budget}, "
            f"seeds={self.seeds}, learning_rates={'tuned' if self.tuned else self.learning_rates})"
        )

    @contextlib.contextmanager
    def _session(
        self, journal: Journal | None, known: dict[Trial, Outcome], expected: int, verbose: int
    ) -> Iterator["_Session"]:
        """Outcomes that are known, and an executor for others, until the end of the block."""
        with contextlib.ExitStack() as stack:
            if journal is not None:
                journal.open(self.settings)
                stack.enter_context(journal.locked())
                known.update({each.trial: each for each in journal.outcomes()})
            progress = stack.enter_context(Progress(expected, verbose))
            yield _Session(self, journal, known, progress, stack)

    def _journal_of_short_runs(self) -> Journal | None:
        """That of runs which do not belong to the results."""
        return None if self.journal is None else Journal(self.journal.directory / SHORT_RUNS)

    def _budget(self, budget: Any, epochs: Any) -> int:
        if (budget is None) == (epochs is None):
            raise ValueError(f"Give either `budget` or `epochs`. Received: budget={budget!r}, epochs={epochs!r}")
        if budget is not None:
            return checks.positive_int("budget", budget)
        size = self.problem.steps_per_epoch()
        if size is None:
            raise ValueError(
                "The batches of an epoch of `train` are not known: give `budget`, in optimizer steps. "
                f"Received: epochs={epochs!r}"
            )
        return checks.positive_int("epochs", epochs) * size

    def _warmup(self, warmup_steps: Any) -> int:
        if warmup_steps is None:
            return int(USUAL_WARMUP * self.budget)
        checks.shorter("warmup_steps", warmup_steps, "budget", self.budget)
        return int(warmup_steps)

    def _check_budgets(self) -> None:
        """Build the schedules of the shorter runs of a search, too: some need a number of steps at least."""
        if not self.tuned:
            return
        from keras_lrsched.study import search

        for each in search.ROUNDS:
            for make in self.schedules.values():
                make(_choices.PROBE, search.steps_of(each, self.budget))

    @property
    def _uses_processes(self) -> bool:
        checks.one_of("executor", self.executor, (None, "serial", "processes", "ray"))
        return self.executor in ("processes", "ray") or (self.executor is None and self.workers > 1)

    def _grid(self) -> list[Trial]:
        """All runs of a study without a search, in an order in which an interrupted one is as balanced as can be."""
        assert self.learning_rates is not None
        return [
            Trial(optimizer, schedule, rate, self.budget, seed)
            for seed in range(self.seeds)
            for optimizer, schedule in self.pairs
            for rate in self.learning_rates[optimizer]
        ]

    def _expected_steps(self) -> int:
        if not self.tuned:
            return sum(trial.budget for trial in self._grid())
        from keras_lrsched.study import search

        return len(self.pairs) * sum(
            each.rates * min(self.seeds, each.seeds or self.seeds) * search.steps_of(each, self.budget)
            for each in search.ROUNDS
        )

    def _search(self, session: "_Session") -> list[Outcome]:
        from keras_lrsched.study import search

        tuning = search.tune(
            self.pairs,
            session.run,
            budget=self.budget,
            seeds=self.seeds,
            starts=self.starts(),
            metric=self.metric,
            mode=self.mode,
        )
        return tuning.outcomes

    def _settings(self, facts: Facts) -> dict[str, Any]:
        """All that the runs depend on, as JSON."""
        problem = self.problem
        return {
            "format": FORMAT,
            "metric": self.metric,
            "mode": self.mode,
            "tuned": self.tuned,
            "learning_rates": self.learning_rates,
            "budget": self.budget,
            "warmup_steps": self.warmup_steps,
            "seeds": self.seeds,
            "seed": problem.seed,
            "evaluations": self.evaluations,
            "batch_size": problem.batch_size,
            "target": self.target,
            "backend": keras.backend.backend(),
            "optimizers": {label: _choices.fingerprint(make(_choices.PROBE)) for label, make in self.optimizers.items()},
            "schedules": {label: self._schedule_values(label) for label in self.schedules},
            "model": {"class": facts.kind, "layout": facts.layout, "initial": facts.initial},
            **problem.fingerprint(),
        }

    def _schedule_values(self, label: str) -> str:
        """A digest of a schedule at peak 1, or the kinds of the callbacks."""
        schedule = self.schedules[label](1.0, self.budget)
        if own := _choices.controllers(schedule):
            return ", ".join(type(each).__name__ for each in own)
        steps = np.unique(np.linspace(0, self.budget - 1, 200).astype("int64"))
        return digest([np.round(compute(schedule, steps, np), 6)])


class _Session:
    """Runs of a study in one call: known outcomes are returned, others are made by an executor that starts when needed."""

    def __init__(
        self,
        study: Study,
        journal: Journal | None,
        known: dict[Trial, Outcome],
        progress: Progress,
        stack: contextlib.ExitStack,
    ) -> None:
        self._study, self._journal, self._known = study, journal, known
        self._progress, self._stack = progress, stack
        self._executor: executors.Executor | None = None

    def run(self, trials: Iterable[Trial]) -> list[Outcome]:
        trials, known = list(trials), self._known
        missing = [trial for trial in trials if trial not in known]
        self._progress.forget(sum(trial.budget for trial in trials if trial in known))
        self._progress.plan(sum(trial.budget for trial in missing))
        if missing:
            self._made().run(missing, self._done)
        return [known[trial] for trial in trials]

    def _made(self) -> executors.Executor:
        study = self._study
        if self._executor is None:
            self._executor = self._stack.enter_context(
                executors.make(study.executor, study._runner, study.workers, study.resources)
            )
        return self._executor

    def _done(self, outcome: Outcome) -> None:
        if self._journal is not None:
            self._journal.add(outcome)
        self._known[outcome.trial] = outcome
        self._progress.add(outcome)


def _learning_rates(given: Any, optimizers: Mapping[str, Any]) -> dict[str, list[float]] | None:
    """The learning rates of each optimizer; `None` if they are to be tuned."""
    if isinstance(given, str):
        checks.one_of("learning_rates", given, ("tuned",))
        return None
    if isinstance(given, Mapping):
        if set(given) != set(optimizers):
            raise ValueError(
                f"`learning_rates` must have those of each optimizer: {', '.join(optimizers)}. "
                f"Received: learning_rates for {', '.join(map(str, given))}"
            )
        return {label: _rates(given[label]) for label in optimizers}
    return {label: _rates(given) for label in optimizers}


def _grid_center(given: Any, optimizers: Mapping[str, Any]) -> dict[str, float]:
    """The middle of the first grid of those optimizers for which it is given."""
    if not isinstance(given, Mapping):
        given = {} if given is None else dict.fromkeys(optimizers, given)
    unknown = [label for label in given if label not in optimizers]
    if unknown:
        raise ValueError(
            f"`grid_center` must have labels of optimizers: {', '.join(optimizers)}. Received: grid_center for {unknown}"
        )
    return {label: checks.positive_float("grid_center", value) for label, value in given.items()}


def _check_reusable(compile_options: dict[str, Any] | None) -> None:
    steps = (compile_options or {}).get("steps_per_execution", 1)
    if steps != 1:
        raise ValueError(
            "`reuse_model` sets the learning rate before each batch, which `steps_per_execution` prevents: leave one of "
            f"them out. Received: steps_per_execution={steps!r}"
        )


def _rates(given: Any) -> list[float]:
    values = checks.each("learning_rates", given if np.ndim(given) else [given], checks.positive_float)
    if not values or len(set(values)) < len(values):
        raise ValueError(f"`learning_rates` must be one or more different ones. Received: learning_rates={given!r}")
    return values


def _warn_of_failed(outcomes: list[Outcome], stacklevel: int) -> None:
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(outcomes)} runs failed, the first one ({failed[0].trial}) with {failed[0].error:.300}",
            stacklevel=stacklevel,
        )

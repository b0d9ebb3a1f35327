"""Training of one trial: a model is built, compiled and fitted as by hand, and its curves are recorded."""

import dataclasses
import functools
import gc
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core.training_loop import inner_optimizer
from keras_lrsched.callbacks import LossRecorder
from keras_lrsched.optimizers import Optimizer
from keras_lrsched.schedules import PerUpdate
from keras_lrsched.schedules.schedule import compute
from keras_lrsched.study._choices import PROBE, OptimizerFactory, ScheduleFactory, controllers
from keras_lrsched.study.problem import Problem
from keras_lrsched.study.trial import Outcome, Status, Trial

AfterStep = Callable[[], None]
LONG = 10.0
"""Seconds of a trial after which a collection of garbage costs little: models are cycles of objects."""


@dataclasses.dataclass(frozen=True)
class Runner:
    """Function from a trial of a study to its outcome; it can be sent to another process.

    Args:
        problem: The `Problem`.
        optimizers: From labels to functions of the learning rate.
        schedules: From labels to functions of peak and budget.
        evaluations: On validation data, in a run.
        reuse_model: Whether the runs of an optimizer share a model. Defaults to `False`.
    """

    problem: Problem
    optimizers: dict[str, OptimizerFactory]
    schedules: dict[str, ScheduleFactory]
    evaluations: int = 10
    reuse_model: bool = False

    def __call__(self, trial: Trial, after_step: AfterStep | None = None) -> Outcome:
        make, schedule = self.optimizers[trial.optimizer], self.schedules[trial.schedule]
        shared = self._shared_model(trial.optimizer) if self.reuse_model else None
        return run_trial(self.problem, trial, make, schedule, self.evaluations, after_step, shared)

    def _shared_model(self, optimizer: str) -> "SharedModel":
        if optimizer not in self._shared_models:
            self._shared_models[optimizer] = SharedModel(self.problem, self.optimizers[optimizer])
        return self._shared_models[optimizer]

    @functools.cached_property
    def _shared_models(self) -> dict[str, "SharedModel"]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_shared_models"}


def run_trial(
    problem: Problem,
    trial: Trial,
    optimizer_factory: OptimizerFactory,
    schedule_factory: ScheduleFactory,
    evaluations: int = 10,
    after_step: AfterStep | None = None,
    shared: "SharedModel | None" = None,
) -> Outcome:
    """Train for the budget of a trial, and evaluate as the run goes, the last time at its end.

    The run is

        keras.utils.set_random_seed(problem.keras_seed(trial.seed))
        model = build_model()
        model.compile(optimizer(schedule), loss=loss, metrics=metrics)
        model.fit(problem.batches(trial.seed), steps_per_epoch=..., epochs=evaluations, validation_data=...)

    and has the same bits on a CPU. Random numbers that the constructor of an optimizer takes do not change those of the run.

    Args:
        problem: The model and the data.
        trial: The `Trial`.
        optimizer_factory: A function from a learning rate to an optimizer.
        schedule_factory: A function from peak and optimizer steps to a schedule, or to callbacks that set the learning rate.
        evaluations: The number of evaluations at equal distances. Defaults to `10`.
        after_step: Called after each batch; what it raises ends the run. Defaults to `None`.
        shared: A model that runs of the optimizer share. Defaults to `None`: a new one.

    Returns:
        The outcome; errors of the run are in it.
    """
    observer = _Observer(trial.budget, problem.monitor, after_step)
    error = ""
    try:
        schedule = schedule_factory(trial.learning_rate, trial.budget)
        if shared is None:
            _train_new(problem, trial, optimizer_factory, schedule, evaluations, observer)
        else:
            _train_shared(problem, trial, shared, schedule, evaluations, observer)
    except Exception as raised:
        if observer.is_interrupted:
            raise
        error = describe(raised)
    outcome = observer.outcome(trial, error)
    if outcome.seconds > LONG:
        gc.collect()
    return outcome


def describe(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:1000]


def _train_new(
    problem: Problem, trial: Trial, make: OptimizerFactory, schedule: Any, evaluations: int, observer: "_Observer"
) -> None:
    own = controllers(schedule)
    model = problem.model(trial.seed)
    problem.compile(model, lambda: _optimizer(make, trial.learning_rate if own else schedule))
    _fit(problem, trial, model, own, evaluations, observer)


def _train_shared(
    problem: Problem, trial: Trial, shared: "SharedModel", schedule: Any, evaluations: int, observer: "_Observer"
) -> None:
    own, model = controllers(schedule), shared.at_start(trial.seed)
    values = None if own else schedule_values(schedule, trial.budget)
    leader = _SetFromOutside(trial.learning_rate, values, _accumulation(model.optimizer))
    _fit(problem, trial, model, [leader, *own], evaluations, observer)


def _fit(
    problem: Problem, trial: Trial, model: keras.Model, callbacks: list, evaluations: int, observer: "_Observer"
) -> None:
    observer.batches_per_step = accumulation = _accumulation(model.optimizer)
    steps = -(-trial.budget // evaluations)
    problem.fit(
        model,
        trial.seed,
        steps_per_epoch=steps * accumulation,
        epochs=-(-trial.budget // steps),
        callbacks=[*callbacks, observer.recorder, observer],
    )


class SharedModel:
    """A model with its compiled step, brought back to the start of each run.

    TensorFlow traces the step of a new model, and XLA compiles it, which takes longer than many a short run. So the schedule
    is not part of the step here but is set from outside. Weights and state of the optimizer are those of a new model.

    Args:
        problem: The `Problem`.
        optimizer_factory: A function from a learning rate to an optimizer.
    """

    def __init__(self, problem: Problem, optimizer_factory: OptimizerFactory) -> None:
        self._problem, self._make = problem, optimizer_factory
        self._model: keras.Model | None = None

    def at_start(self, seed: int) -> keras.Model:
        """The model where a new program would begin a run of this seed; random numbers are those of that program, too.

        Args:
            seed: The number of the seed.

        Raises:
            ValueError: If `build_model` returns models whose variables have other shapes.
        """
        fresh = self._problem.model(seed)
        self._problem.compile(fresh, lambda: self._make(PROBE))
        self._problem.build(fresh)
        if self._model is None:
            self._model = fresh
            return fresh
        for old, new in ((self._model, fresh), (self._model.optimizer, fresh.optimizer)):
            for variable, start in zip(old.variables, new.variables, strict=True):
                variable.assign(start)
        return self._model


class _SetFromOutside(keras.callbacks.Callback):
    """The learning rate of each batch from a list of those of optimizer steps; without a list only the first one is set."""

    def __init__(self, first: float, values: np.ndarray | None, batches_per_step: int) -> None:
        super().__init__()
        self._first, self._values, self._batches_per_step = first, values, batches_per_step
        self._batches = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.model.optimizer.learning_rate = self._first

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._values is not None:
            self.model.optimizer.learning_rate = self._values[self._batches // self._batches_per_step]
        self._batches += 1


def schedule_values(schedule: LearningRateSchedule, budget: int) -> np.ndarray:
    """The learning rates of the steps of a run."""
    return np.asarray(compute(schedule, np.arange(budget), np), "float64")


def _optimizer(make: OptimizerFactory, schedule: Any) -> keras.optimizers.Optimizer:
    """The optimizer of a run, whose schedule counts optimizer steps also where Keras' own would count batches."""
    optimizer = make(schedule)
    accumulation = _accumulation(optimizer)
    is_number = not isinstance(schedule, LearningRateSchedule)
    if accumulation == 1 or is_number or isinstance(inner_optimizer(optimizer), Optimizer):
        return optimizer
    return make(PerUpdate(schedule, accumulation))


def _accumulation(optimizer: Any) -> int:
    """The number of batches in an optimizer step."""
    return getattr(inner_optimizer(optimizer), "gradient_accumulation_steps", None) or 1


class _Observer(keras.callbacks.Callback):
    """Record of a run: loss, learning rate, evaluations and time. It ends the run with its budget, or where it diverges."""

    def __init__(self, budget: int, monitor: str, after_step: AfterStep | None) -> None:
        super().__init__()
        self.recorder = LossRecorder(monitor=monitor)
        self.batches_per_step = 1
        self.is_interrupted = False
        self._budget, self._after_step = budget, after_step
        self._evaluated_at: list[int] = []
        self._evaluations: dict[str, list[float]] = {}
        self._batches, self._tests = _Stopwatch(), _Stopwatch()
        self._started = time.perf_counter()
        self._seconds = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._started = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._batches.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._batches.stop()
        losses = self.recorder.loss
        if len(losses) >= self._budget * self.batches_per_step or not math.isfinite(losses[-1]):
            self.model.stop_training = True
        if self._after_step is not None:
            self.is_interrupted = True  # if it raises
            self._after_step()
            self.is_interrupted = False

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._tests.start()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self._tests.stop()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._evaluated_at.append(len(self.recorder.loss) // self.batches_per_step)
        for name, value in (logs or {}).items():
            if name.startswith("val_"):
                self._evaluations.setdefault(name, []).append(float(np.mean(keras.ops.convert_to_numpy(value))))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        whole = time.perf_counter() - self._started
        self._seconds = whole - self._batches.compilation - self._tests.compilation

    def outcome(self, trial: Trial, error: str) -> Outcome:
        evaluations = {name: np.array(values) for name, values in self._evaluations.items()}
        count = self.batches_per_step
        size = len(self.recorder.loss) // count * count
        loss = np.array(self.recorder.loss[:size], "float64").reshape(-1, count).mean(axis=1)
        rates = np.array(self.recorder.learning_rate[:size], "float64")[count - 1 :: count]
        seconds = self._seconds or time.perf_counter() - self._started
        at = np.array(self._evaluated_at, "int64")
        return Outcome(trial, self._status(loss, error), loss, rates, at, evaluations, seconds, error)

    def _status(self, loss: np.ndarray, error: str) -> Status:
        if error:
            return "failed"
        last = self._evaluations.get("val_loss", [0.0])[-1]
        return "finished" if np.all(np.isfinite(loss)) and math.isfinite(last) else "diverged"


class _Stopwatch:
    """Times of equal pieces of work, of which the first one includes compilation."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._started = 0.0

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self) -> None:
        self._times.append(time.perf_counter() - self._started)

    @property
    def compilation(self) -> float:
        """The time of the first one beyond the usual; 0 if there is no other."""
        first, *others = self._times or [0.0]
        return max(0.0, first - float(np.median(others))) if others else 0.0

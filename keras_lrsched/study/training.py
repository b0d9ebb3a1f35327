"""Training of one trial: a model is built, compiled and fitted as by hand, and its curves are recorded."""

import dataclasses
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
from keras_lrsched.study._choices import OptimizerFactory, ScheduleFactory
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
    """

    problem: Problem
    optimizers: dict[str, OptimizerFactory]
    schedules: dict[str, ScheduleFactory]
    evaluations: int = 10

    def __call__(self, trial: Trial, after_step: AfterStep | None = None) -> Outcome:
        make, schedule = self.optimizers[trial.optimizer], self.schedules[trial.schedule]
        return run_trial(self.problem, trial, make, schedule, self.evaluations, after_step)


def run_trial(
    problem: Problem,
    trial: Trial,
    optimizer_factory: OptimizerFactory,
    schedule_factory: ScheduleFactory,
    evaluations: int = 10,
    after_step: AfterStep | None = None,
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
        optimizer_factory: A function from a schedule to an optimizer.
        schedule_factory: A function from peak and optimizer steps to a schedule.
        evaluations: The number of evaluations at equal distances. Defaults to `10`.
        after_step: Called after each batch; what it raises ends the run. Defaults to `None`.

    Returns:
        The outcome; errors of the run are in it.
    """
    observer = _Observer(trial.budget, problem.monitor, after_step)
    error = ""
    try:
        _train(problem, trial, optimizer_factory, schedule_factory, evaluations, observer)
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


def _train(
    problem: Problem,
    trial: Trial,
    optimizer_factory: OptimizerFactory,
    schedule_factory: ScheduleFactory,
    evaluations: int,
    observer: "_Observer",
) -> None:
    model = problem.model(trial.seed)
    schedule = schedule_factory(trial.learning_rate, trial.budget)
    problem.compile(model, lambda: _optimizer(optimizer_factory, schedule))
    observer.batches_per_step = accumulation = _accumulation(model.optimizer)
    steps = -(-trial.budget // evaluations)
    problem.fit(
        model,
        trial.seed,
        steps_per_epoch=steps * accumulation,
        epochs=-(-trial.budget // steps),
        callbacks=[observer.recorder, observer],
    )


def _optimizer(make: OptimizerFactory, schedule: LearningRateSchedule) -> keras.optimizers.Optimizer:
    """The optimizer of a run, whose schedule counts optimizer steps also where Keras' own would count batches."""
    optimizer = make(schedule)
    accumulation = _accumulation(optimizer)
    if accumulation == 1 or isinstance(inner_optimizer(optimizer), Optimizer):
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

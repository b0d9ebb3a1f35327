"""Comparison: the same model, data and seeds, trained under several schedules and budgets."""

import itertools
import time
from dataclasses import dataclass, field

import keras
import numpy as np

from keras_lrsched import schedules
from keras_lrsched.callbacks import LossRecorder
from keras_lrsched.schedules import Schedule
from keras_lrsched.study.workloads.base import Workload


@dataclass(frozen=True)
class Job:
    """One run that is to be made."""

    workload: Workload
    budget: int
    seed: int
    label: str
    schedule: Schedule


@dataclass(frozen=True)
class Run:
    """One run that was made: the curve of each update, and of each evaluation on the validation data."""

    job: Job
    loss: np.ndarray
    learning_rate: np.ndarray
    evaluated_at: np.ndarray
    validation_loss: np.ndarray
    metric: np.ndarray
    seconds: float
    """Of training and evaluation, without compilation."""
    steps_to_target: int | None = field(init=False)
    """The first evaluation at or beyond the workload's target, in updates; `None` if there was none."""

    def __post_init__(self):
        reached = [
            step for step, value in zip(self.evaluated_at, self.metric, strict=True) if self.job.workload.reached(value)
        ]
        object.__setattr__(self, "steps_to_target", int(reached[0]) if reached else None)


def plan(workloads, labels, seeds, budgets=None, peak_learning_rate=None, warmup=0.05):
    """All jobs of a comparison, in an order in which an interrupted one is as balanced as can be.

    Args:
        workloads: A list of `Workload`s.
        labels: A list of names with options, as `schedules.get` takes them.
        seeds: How many seeds, from 0 on.
        budgets: A list of numbers of updates. Defaults to `None`: those of each workload.
        peak_learning_rate: Defaults to `None`: that of each workload.
        warmup: Linear warmup as a fraction of the budget. Defaults to `0.05`.

    Raises:
        ValueError: If a schedule is unknown or does not fit a budget.
    """
    jobs = []
    for workload in workloads:
        for budget, seed, label in itertools.product(budgets or workload.budgets, range(seeds), labels):
            peak = peak_learning_rate or workload.peak_learning_rate
            schedule = schedules.get(label, peak, budget, warmup_steps=int(warmup * budget))
            jobs.append(Job(workload, budget, seed, label, schedule))
    return jobs


class Trainer:
    """Trains one workload again and again from fresh weights, on one compiled step.

    Compiling a step takes longer than many a run here. So the schedule is not compiled into the step but set from outside,
    update by update, which gives the same weights; a test holds it to that.

    Args:
        workload: The workload.
        use_xla: Whether the step is compiled by XLA; never on PyTorch. Defaults to `None`: what is fastest for the workload.
    """

    def __init__(self, workload: Workload, use_xla: bool | None = None):
        self.workload = workload
        jit_compile = workload.jit_compile() if use_xla is None else use_xla and keras.backend.backend() != "torch"
        self._model = workload.compiled_model(workload.peak_learning_rate, seed=0, jit_compile=jit_compile)
        self._model.optimizer.build(self._model.trainable_variables)
        self._initial: dict[int, list[np.ndarray]] = {}
        self._is_compiled = False
        self._fresh_optimizer = [keras.ops.convert_to_numpy(v) for v in self._model.optimizer.variables]

    def run(self, job: Job, evaluations=10, callbacks=(), controller=None) -> Run:
        """Trains for the job's budget and evaluates on the validation data `evaluations` times, the last time at the end.

        A `controller`, a callback that sets the learning rate itself, starts from the first value of the job's schedule.
        """
        self._compile(job.seed)
        started = time.perf_counter()
        self._reset(job.seed)
        recorder = LossRecorder()
        epoch = -(-job.budget // evaluations)
        before = [_Follow(job.schedule.values(job.budget), controller), *([] if controller is None else [controller])]
        history = self._fit(job.seed, epoch, -(-job.budget // epoch), [*before, recorder, *callbacks])
        ends = np.minimum(epoch * np.arange(1, len(history["val_loss"]) + 1), job.budget)
        return Run(
            job,
            np.array(recorder.loss),
            np.array(recorder.learning_rate),
            ends,
            np.array(history["val_loss"]),
            np.array(history[self.workload.metric]),
            time.perf_counter() - started,
        )

    def _compile(self, seed):
        """Make one update and one evaluation before the first run, so that no run's time includes compilation."""
        if not self._is_compiled:
            self._fit(seed, 1, 1, [LossRecorder()])
            self._is_compiled = True

    def _fit(self, seed, steps_per_epoch, epochs, callbacks):
        return self._model.fit(
            self.workload.stream(seed),
            steps_per_epoch=steps_per_epoch,
            epochs=epochs,
            validation_data=self.workload.validation,
            validation_batch_size=512,
            shuffle=False,  # the stream is shuffled
            verbose=0,
            callbacks=callbacks,
        ).history

    def _reset(self, seed):
        """Brings model and optimizer to where a new program with this seed would start."""
        if seed not in self._initial:
            keras.utils.set_random_seed(seed)
            self._initial[seed] = self.workload.build_model().get_weights()
        keras.utils.set_random_seed(seed)
        self._model.set_weights(self._initial[seed])
        for variable, value in zip(self._model.optimizer.variables, self._fresh_optimizer, strict=True):
            variable.assign(value)


class _Follow(keras.callbacks.Callback):
    """Sets the learning rate of each update from a list, or only the first and leaves the others to a controller.

    It ends the run with the list.
    """

    def __init__(self, values, controller=None):
        super().__init__()
        self._values, self._is_led, self._done = values, controller is not None, 0

    def on_train_begin(self, logs=None):
        self.model.optimizer.learning_rate = self._values[0]

    def on_train_batch_begin(self, batch, logs=None):
        if not self._is_led:
            self.model.optimizer.learning_rate = self._values[self._done]

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        if self._done == len(self._values):
            self.model.stop_training = True

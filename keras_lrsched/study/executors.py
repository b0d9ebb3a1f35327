"""Executors of trials: in this process, in worker processes of this machine, or on a Ray cluster.

Each takes trials and calls a function with each outcome as it comes. Outcomes do not depend on the executor, but for
rounding: worker processes have one thread each, so that they do not wait for each other.
"""

import collections
import contextlib
import dataclasses
import gc
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Protocol

import keras
import numpy as np

from keras_lrsched._core import interrupts, ray_pool, validation
from keras_lrsched._core.random_state import random_state, restore_random_state
from keras_lrsched.study import _worker
from keras_lrsched.study.training import Runner, describe
from keras_lrsched.study.trial import Outcome, Trial

Done = Callable[[Outcome], None]
ExecutorName = Literal["serial", "processes", "ray"]

ATTEMPTS = 2
"""Number of times that a trial is begun if its worker is lost."""
POLL = 0.2
"""Seconds after which a signal is seen at the latest."""


class Executor(Protocol):
    """Something that runs trials."""

    def run(self, trials: Iterable[Trial], done: Done) -> None:
        """Run all trials, in any order, and call `done` with the outcome of each in the thread of the caller."""


@contextlib.contextmanager
def make(
    executor: ExecutorName | None, runner: Runner, workers: int = 1, resources: dict[str, Any] | None = None
) -> Iterator[Executor]:
    """An executor, whose workers end with the block.

    Args:
        executor: `"serial"`, `"processes"`, `"ray"`, or `None`: processes if there are several workers.
        runner: The function from a trial to its outcome.
        workers: How many run at once. Defaults to `1`.
        resources: What a worker takes on a Ray cluster, as options of `ray.remote`. Defaults to `None`.

    Raises:
        ValueError: If `executor` is unknown, or the functions of the study cannot be sent to workers.
    """
    workers = validation.positive_int("workers", workers)
    name = executor or ("serial" if workers == 1 else "processes")
    validation.one_of("executor", name, ("serial", "processes", "ray"))
    if name == "serial":
        yield Serial(runner)
    elif name == "processes":
        with contextlib.closing(Processes(runner, workers)) as processes:
            yield processes
    else:
        with _on_ray(runner, workers, resources) as members:
            yield members


class Serial:
    """Trials one after another in this process, whose random numbers are what they were afterwards.

    SIGINT and SIGTERM end the run after the batch.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def run(self, trials: Iterable[Trial], done: Done) -> None:
        before = random_state()
        try:
            with interrupts.Watch() as watch:
                for trial in trials:
                    outcome = self._runner(trial, watch.raise_if_requested)
                    done(outcome)
                    watch.raise_if_requested()
        finally:
            gc.collect()  # TensorFlow warns of endless data that are still there when Python ends
            restore_random_state(before)


class Processes:
    """Trials in worker processes, of one thread and one core each.

    They are new Python processes, which import Keras themselves and get model and data once. A trial whose process is lost
    is begun again in a new one, once. A process that cannot even start is an error.

    Args:
        runner: The function from a trial to its outcome.
        workers: How many processes.

    Raises:
        ValueError: If the functions of the study cannot be sent to a process.
    """

    def __init__(self, runner: Runner, workers: int) -> None:
        self._payload = packed(runner)
        self._number = workers
        self._messages: queue.Queue = queue.Queue()
        self._members: dict[int, _Member] = {}
        self._started = 0

    def run(self, trials: Iterable[Trial], done: Done) -> None:
        waiting = collections.deque((trial, 1) for trial in trials)
        running: dict[int, tuple[Trial, int]] = {}
        with interrupts.Watch() as watch:
            while waiting or running:
                self._give(waiting, running)
                message = self._next(watch)
                if message is None:
                    continue
                number, answer = message
                if number not in running:  # the last words of one that has nothing to do
                    self._members.pop(number, None)
                    continue
                trial, attempt = running.pop(number)
                if isinstance(answer, Outcome):
                    done(answer)
                elif not answer.was_ready:
                    words = self._members.pop(number).last_words()
                    raise RuntimeError(f"A worker process of the study cannot start. {words}")
                elif attempt < ATTEMPTS:
                    self._members.pop(number).close()
                    waiting.appendleft((trial, attempt + 1))
                else:
                    done(_lost(trial, self._members.pop(number).last_words()))

    def close(self) -> None:
        """End all processes, also those that are busy."""
        for member in self._members.values():
            member.kill()
        for member in self._members.values():
            member.close()
        self._members = {}

    def _next(self, watch: interrupts.Watch) -> tuple[int, Any] | None:
        watch.raise_if_requested()
        with contextlib.suppress(queue.Empty):
            return self._messages.get(timeout=POLL)
        return None

    def _give(self, waiting: collections.deque, running: dict[int, tuple[Trial, int]]) -> None:
        """A trial to each process that has none, of which there are as many as trials at most."""
        while waiting and len(running) < self._number:
            idle = [number for number in self._members if number not in running]
            number = idle[0] if idle else self._start()
            running[number] = waiting.popleft()
            self._members[number].give(running[number][0])

    def _start(self) -> int:
        number, self._started = self._started, self._started + 1
        taken = {member.core for member in self._members.values()}
        free = [core for core in _cores() if core not in taken] or _cores()
        core = free[number % len(free)] if len(free) == len(_cores()) else free[0]
        self._members[number] = _Member(number, self._payload, core if len(_cores()) > 1 else None, self._messages)
        return number


@dataclasses.dataclass(frozen=True)
class _Lost:
    """The last message of a process that has ended."""

    was_ready: bool


class _Member:
    """A worker process, and the thread that reads its answers."""

    def __init__(self, number: int, payload: bytes, core: int | None, messages: queue.Queue) -> None:
        self.core = core
        self._number, self._messages = number, messages
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-c", _worker.COMMAND, "" if core is None else str(core), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_worker.environment(keras.backend.backend()),
        )
        self._tasks: queue.Queue = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(payload,), daemon=True)
        self._reader.start()

    def give(self, trial: Trial) -> None:
        self._tasks.put(trial)

    def kill(self) -> None:
        self._tasks.put(None)
        with contextlib.suppress(OSError):
            self._process.kill()

    def close(self) -> None:
        self.kill()
        self._process.wait()
        self._reader.join(10)
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()

    def last_words(self) -> str:
        """The end of the process in words, and the last lines that it has printed."""
        if self._process.poll() is None:
            self.kill()
        code = self._process.wait()
        printed = _worker.last_lines(self._log)
        self.close()
        return f"{_worker.ending(code)}{f'; it has printed: {printed}' if printed else ''}"

    def _read(self, payload: bytes) -> None:
        answer: Any = None
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        try:
            _worker.send(to, _worker.configuration())
            _worker.send_bytes(to, payload)
            answer = _worker.receive(back)
            while (trial := self._tasks.get()) is not None:
                _worker.send(to, trial)
                answer = _worker.receive(back)
                self._messages.put((self._number, answer))
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):  # it has ended
            self._messages.put((self._number, _Lost(was_ready=answer is not None)))


def packed(runner: Runner) -> bytes:
    """The bytes from which a worker makes the function again.

    Raises:
        ValueError: If it cannot be sent; the message names the part and the remedy.
    """
    try:
        return _worker.dumps(runner)
    except Exception as error:
        raise ValueError(
            f"Several workers need model, data, optimizers and schedules that can be sent to another process: "
            f"{_culprit(runner)} cannot ({describe(error):.200}). Define functions in a module that can be imported, or "
            "install cloudpickle, with which lambdas and functions of notebooks can be sent; give data as a function that "
            "makes them (tf.data pipelines cannot be sent); or take workers=1."
        ) from error


def _culprit(runner: Runner) -> str:
    """The name of the first part that cannot be sent."""
    parts = {f"`{name}`": value for name, value in vars(runner.problem).items()}
    parts |= {f"{label!r} of `optimizers`": value for label, value in runner.optimizers.items()}
    parts |= {f"{label!r} of `schedules`": value for label, value in runner.schedules.items()}
    for name, value in parts.items():
        try:
            _worker.dumps(value)
        except Exception:
            return name
    return "the study"


def _lost(trial: Trial, how: str) -> Outcome:
    """The outcome of a trial whose workers were lost."""
    none = np.array([])
    error = f"The worker process of this run was lost {ATTEMPTS} times. {how}"
    return Outcome(trial, "failed", none, none, np.array([], "int64"), {}, 0.0, " ".join(error.split())[:1000])


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


# Ray


@contextlib.contextmanager
def _on_ray(runner: Runner, workers: int, resources: dict[str, Any] | None) -> Iterator["OnRay"]:
    payload = packed(runner)
    with ray_pool.pool(RayWorker, (payload, keras.backend.backend()), workers, resources) as members:
        yield OnRay(members, ray_pool.RETRIES + 1)


class RayWorker:
    """Worker on a Ray cluster."""

    def __init__(self, payload: bytes, backend: str) -> None:
        ray_pool.same_backend(backend)
        self._runner = pickle.loads(payload)

    def run(self, trial: Trial) -> Outcome:
        if not self._runner.reuse_model:
            keras.backend.clear_session()
        return self._runner(trial)


class OnRay:
    """Trials as jobs of a `Pool` of Ray's workers. One whose worker is lost is begun again, `attempts` times at most.

    Args:
        pool: The `Pool`.
        attempts: How often the pool begins a job before it gives up.
    """

    def __init__(self, pool: Any, attempts: int) -> None:
        self._pool, self._attempts = pool, attempts

    def run(self, trials: Iterable[Trial], done: Done) -> None:
        left = dict.fromkeys(trials, 0)

        def call(worker: Any, trial: Trial) -> Any:
            left[trial] += 1
            return worker.run.remote(trial)

        def finished(outcome: Outcome) -> None:
            del left[outcome.trial]
            done(outcome)

        while left:
            left = dict.fromkeys(left, 0)
            try:
                self._pool.map(call, left, finished)
            except Exception as error:
                lost = [trial for trial, begun in left.items() if begun >= self._attempts]
                if not lost:
                    raise
                for trial in lost:
                    finished(_lost(trial, describe(error)))

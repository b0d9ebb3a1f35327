"""Ray, which runs the workers: imported only when a search begins."""

import collections
import contextlib
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from keras_lrsched._core import validation

RETRIES = 2
"""Number of times that a job is repeated after its worker was lost, and of workers that may be lost as they start."""

PATIENCE = 60.0
"""Seconds until a warning that fewer workers run than were requested."""

GIVE_UP_AFTER = 600.0
"""Seconds until an error if no worker runs and no node of the cluster is large enough for one; it may be about to grow."""


def load_ray() -> Any:
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise ImportError("Searches on many workers need Ray: pip install 'keras-lrsched[ray]'") from error
    return ray


@contextlib.contextmanager
def pool(worker: type, arguments: tuple, workers: int, resources: dict[str, Any] | None = None) -> Iterator["Pool"]:
    """A `Pool` of workers.

    It is on the Ray runtime of the program, or else on the cluster that `RAY_ADDRESS` or `ray start` names, or else on this
    machine.

    Args:
        worker: A class.
        arguments: A tuple, for its constructor.
        workers: How many, a positive integer.
        resources: What one takes, as options of `ray.remote`. Defaults to `None`: `{"num_cpus": 1}`.
    """
    workers, ray = validation.positive_int("workers", workers), load_ray()
    options = {"num_cpus": 1, **(resources or {})}
    options["runtime_env"] = _with_backend(options.get("runtime_env"))
    with _connected(ray, cpus=max(1, math.ceil(workers * (options["num_cpus"] or 0)))):
        remote = ray.remote(**options)(worker)
        members = Pool(ray, lambda: remote.remote(*arguments), workers, _demand(options))
        try:
            yield members
        finally:
            members.close()


class Pool:
    """Workers that run jobs. Those that run are used, while others wait for room or are started again.

    Ray would restart a lost worker itself, but its job would have to wait for it, for ever if its node has left.

    Args:
        ray: The module.
        start: A function that returns the handle of a new worker.
        workers: How many.
        demand: What one takes: a dictionary from resources, as Ray names them, to amounts.
    """

    def __init__(self, ray: Any, start: Callable[[], Any], workers: int, demand: dict[str, float]) -> None:
        self._ray, self._start, self._demand, self._asked = ray, start, demand, workers
        self._lost = ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError
        self._lost_as_they_start = 0
        self._workers: list[Any] = []
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}  # from what is ready as soon as a worker is
        self._waiting_since, self._warned_of = time.monotonic(), -1
        for _ in range(workers):
            self._add()

    def map(self, call: Callable, values: Iterable[Any], done: Callable[[Any], None] | None = None) -> list[Any]:
        """The outcomes of `call(worker, value)`, which returns a reference of Ray, in the order of the values.

        `done` is called with each outcome as it comes.

        Raises:
            Whatever a job raises; the error of Ray, if its worker is lost again and again.
            RuntimeError: If no node is large enough for a worker.
        """
        values = list(values)
        jobs = collections.deque((index, 0) for index in range(len(values)))
        running: dict[Any, Any] = {}
        outcomes: dict[int, Any] = {}
        while len(outcomes) < len(values):
            while self._idle and jobs:
                worker, job = self._idle.pop(), jobs.popleft()
                running[call(worker, values[job[0]])] = worker, job
            for reference in self._finished(list(running)):
                worker, (index, losses) = running.pop(reference)
                try:
                    outcomes[index] = self._ray.get(reference)
                except self._lost:
                    if losses == RETRIES:
                        raise
                    jobs.appendleft((index, losses + 1))
                    self._replace(worker)
                else:
                    self._idle.append(worker)
                    if done is not None:
                        done(outcomes[index])
        return [outcomes[index] for index in range(len(values))]

    def close(self) -> None:
        """End all workers, also those that are busy."""
        for worker in self._workers:
            self._kill(worker)

    def _add(self) -> None:
        if not self._starting:
            self._waiting_since, self._warned_of = time.monotonic(), -1
        worker = self._start()
        self._workers.append(worker)
        self._starting[worker.__ray_ready__.remote()] = worker

    def _replace(self, worker: Any) -> None:
        self._kill(worker)  # it may only be out of reach
        self._workers.remove(worker)
        self._add()

    def _finished(self, running: list) -> list[Any]:
        """Those of the running jobs that are over, after one is or a worker has started."""
        timeout = min(PATIENCE, GIVE_UP_AFTER) if self._starting else None
        done, _ = self._ray.wait([*running, *self._starting], num_returns=1, timeout=timeout)
        for reference in set(done) & set(self._starting):
            self._add_started(reference)
        if not done:
            self._warn_of_missing(len(running))
        return [reference for reference in done if reference in running]

    def _add_started(self, reference: Any) -> None:
        """Add a worker that has started to the idle ones, or start another one if it was lost."""
        worker = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._lost as error:
            self._lost_as_they_start += 1
            if getattr(error, "actor_init_failed", False) or self._lost_as_they_start > RETRIES:
                raise
            self._replace(worker)
        else:
            self._idle.append(worker)

    def _warn_of_missing(self, busy: int) -> None:
        waited, here = time.monotonic() - self._waiting_since, busy + len(self._idle)
        if not here and waited >= GIVE_UP_AFTER and not self._fits_a_node():
            raise RuntimeError(
                f"No node of the Ray cluster is large enough for a worker after {waited:.0f} s: {self._figures()}"
            )
        if here != self._warned_of:
            self._warned_of = here
            rest = f"The search continues with {here}" if here else "The search waits for the first"
            warnings.warn(
                f"{here} of {self._asked} workers run after {waited:.0f} s. {rest}; those that are missing join when the "
                f"Ray cluster has room for them: {self._figures()}",
                stacklevel=2,
            )

    def _figures(self) -> str:
        """The resources of workers, and how much of them is free, such as `CPU: 1 a worker, 0 free of 4`."""
        free, total = self._ray.available_resources(), self._ray.cluster_resources()
        return "; ".join(
            f"{name}: {amount:g} a worker, {free.get(name, 0):g} free of {total.get(name, 0):g}"
            for name, amount in self._demand.items()
        )

    def _fits_a_node(self) -> bool:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return any(all(node.get(name, 0) >= amount for name, amount in self._demand.items()) for node in nodes)

    def _kill(self, worker: Any) -> None:
        with contextlib.suppress(Exception):  # it may be gone, and Ray with it
            self._ray.kill(worker)


def same_backend(backend: str) -> None:
    """Raise on a worker whose Keras runs on another backend than the program that started it."""
    if keras.backend.backend() != backend:
        raise ValueError(
            "The workers of a Ray cluster must use the backend of the program: leave KERAS_BACKEND out of the `runtime_env` "
            f"in `resources`. Received: {keras.backend.backend()!r} on a worker, {backend!r} in the program"
        )


def _with_backend(runtime_env: dict[str, Any] | None) -> dict[str, Any]:
    """The environment of a worker, whose Keras runs on the backend of the program wherever Ray was started."""
    runtime_env = dict(runtime_env or {})
    return {**runtime_env, "env_vars": {"KERAS_BACKEND": keras.backend.backend(), **runtime_env.get("env_vars", {})}}


def _demand(options: dict[str, Any]) -> dict[str, float]:
    """The resources of a worker, by Ray's names."""
    named = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus"), "memory": options.get("memory")}
    return {name: amount for name, amount in {**named, **(options.get("resources") or {})}.items() if amount}


@contextlib.contextmanager
def _connected(ray: Any, cpus: int) -> Iterator[None]:
    """Connect to Ray, unless the program is: to the cluster that is there, or to one of this machine with `cpus`."""
    if ray.is_initialized():
        yield
        return
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    with _own_sigterm() as put_back:
        _connect(ray, cpus, quiet)
        put_back()
        try:
            yield
        finally:
            ray.shutdown()


def _connect(ray: Any, cpus: int, options: dict[str, Any]) -> None:
    is_client = "://" in os.environ.get("RAY_ADDRESS", "")  # Ray Client, whose errors are of another type
    try:
        if not is_client:
            with contextlib.suppress(ValueError):  # there is a cluster, whose nodes have CPUs of their own
                ray.init(num_cpus=cpus, **options)
                return
        ray.init(**options)
    except ConnectionError as error:
        error.add_note(
            "Is the Ray cluster running that RAY_ADDRESS or `ray start` names, and has this program its token "
            "(RAY_AUTH_MODE=token, and ~/.ray/auth_token or RAY_AUTH_TOKEN)?"
        )
        raise


@contextlib.contextmanager
def _own_sigterm() -> Iterator[Callable[[], Any]]:
    """Yield a function that undoes what `ray.init` does to SIGTERM: it replaces the handler of the program for good.

    Where the program has none, SIGTERM raises `SystemExit` until the end of the block, so that the workers are ended, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    former = signal.getsignal(signal.SIGTERM)
    if former is None:  # set outside of Python, which could not put it back
        yield lambda: None
        return
    received: list[int] = []

    def end(number: int, frame: Any) -> None:
        received.append(number)
        raise SystemExit(128 + number)

    try:
        yield lambda: signal.signal(signal.SIGTERM, end if former is signal.SIG_DFL else former)
    except SystemExit as error:  # Ray, in whose call the signal has come, replaces the code by 1
        raise SystemExit(128 + received[0] if received else error.code) from error
    finally:
        signal.signal(signal.SIGTERM, former)

"""AutoLRS whose candidates are trained at the same time, by workers of Ray."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import keras
import numpy as np
from keras import ops, tree

from keras_lrsched._core import validation
from keras_lrsched._core.random_state import random_state, restore_random_state
from keras_lrsched._core.ray_pool import load_ray, pool, same_backend
from keras_lrsched.callbacks import AutoLRS, Snapshot
from keras_lrsched.callbacks._settings import callbacks_in
from keras_lrsched.data._fit_data import batches_ahead
from keras_lrsched.schedules import Tabulated


class ParallelAutoLRS(AutoLRS):
    """`AutoLRS` that leaves the trials of a search to Ray: a search takes the time of `candidates / workers` trials.

    Each worker has a model of its own. For each candidate it becomes what the model of `fit` is, weights, optimizer and
    random state, and trains on the very batches that come next in `fit`, which are sent to it. The losses, and so what is
    chosen, are those of `AutoLRS`, up to rounding, with `search="log_grid"`. With `"bayes"`, as many rates as there are
    workers are chosen at once: each counts as the mean of what was tried until its loss is known. The
    first ones are spread out evenly.

    The model of `fit` is not touched by a search. S batches (`search_steps`) of the stage are held in memory.

    Args:
        make_model: A function without arguments that returns a compiled model, the same as the one of `fit`. It is called
            on the workers.
        min_learning_rate: As in `AutoLRS`.
        max_learning_rate: As in `AutoLRS`.
        workers: How many candidates are trained at once, a positive integer. With less room on a Ray cluster, a search goes
            on with the workers that fit, and warns. Defaults to `2`.
        resources: What one worker takes, as options of `ray.remote`. Defaults to `None`: `{"num_cpus": 1}`.
        search_steps: As in `AutoLRS`, like all arguments below. Defaults to `100`.
        exploitation_steps: Defaults to `1000`.
        max_exploitation_steps: Defaults to `8000`.
        candidates: Defaults to `10`.
        search: Defaults to `"bayes"`.
        kappa: Defaults to `1.96`.
        validation_data: Arrays. Defaults to `None`.
        validation_batch_size: Defaults to `32`.
        warmup_steps: Defaults to `0`.
        warmup_learning_rate: Defaults to `None`.
        seed: Defaults to `0`.
        monitor: Defaults to `"loss"`.

    Raises:
        ImportError: When `fit` begins, without Ray; else as `AutoLRS`.
        ValueError: As `AutoLRS`; also when `fit` begins, if a `ScheduleHyperparameter` or a callback that reads gradients
            is active, which the workers do not have.

    Reference:
        arXiv 2105.10762, as `AutoLRS`. There the candidates follow each other.

    Example:

    >>> def make_model():
    ...     model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    ...     model.compile("sgd", loss="mse")
    ...     return model
    >>> autolrs = ParallelAutoLRS(make_model, 1e-3, 1.0, workers=4, search="log_grid")
    >>> len(autolrs.next_rates([]))  # all ten are trained, four at a time
    10
    """

    def __init__(
        self,
        make_model: Callable[[], keras.Model],
        min_learning_rate: float,
        max_learning_rate: float,
        workers: int = 2,
        resources: dict[str, Any] | None = None,
        search_steps: int = 100,
        exploitation_steps: int = 1000,
        max_exploitation_steps: int = 8000,
        candidates: int = 10,
        search: Literal["bayes", "log_grid"] = "bayes",
        kappa: float = 1.96,
        validation_data: Any = None,
        validation_batch_size: int = 32,
        warmup_steps: int = 0,
        warmup_learning_rate: float | None = None,
        seed: int = 0,
        monitor: str = "loss",
    ) -> None:
        super().__init__(
            min_learning_rate,
            max_learning_rate,
            search_steps=search_steps,
            exploitation_steps=exploitation_steps,
            max_exploitation_steps=max_exploitation_steps,
            candidates=candidates,
            search=search,
            kappa=kappa,
            validation_data=validation_data,
            validation_batch_size=validation_batch_size,
            warmup_steps=warmup_steps,
            warmup_learning_rate=warmup_learning_rate,
            seed=seed,
            monitor=monitor,
        )
        if not callable(make_model):
            raise ValueError(f"`make_model` must be a function. Received: make_model={make_model!r}")
        if not isinstance(self.validation_data, (tuple, list, type(None))):
            raise ValueError(
                "`validation_data` must be arrays, which can be sent to workers. "
                f"Received: validation_data of {type(self.validation_data)}"
            )
        self.make_model = make_model
        self.workers = validation.positive_int("workers", workers)
        self.resources = resources
        self._cluster: contextlib.ExitStack | None = None
        self._pool: Any = None

    def schedule(self) -> Tabulated:
        """The learning rate of all updates so far, as a `Tabulated` schedule that replays them without a search."""
        rates = self.warmup_learning_rate * np.arange(1, min(self.warmup_steps, self.step) + 1) / max(self.warmup_steps, 1)
        ends = [*(stage["step"] for stage in self.stages[1:]), self.step]
        pieces = [np.full(end - stage["step"], stage["learning_rate"]) for stage, end in zip(self.stages, ends, strict=True)]
        return Tabulated(np.concatenate([rates, *pieces]))

    def next_rates(self, tried: list[list[float]]) -> list[float]:
        """The rates that are tried at once, after `tried`, a list of pairs of a rate and the loss it leads to."""
        left = self.candidates - len(tried)
        count = left if self.search == "log_grid" else min(left, self.workers)
        if self.search == "bayes" and not tried:
            return self._spread(self._next([]), count)
        expected = float(np.mean([loss for _, loss in tried])) if tried else 0.0
        rates: list[float] = []
        for _ in range(count):
            rates.append(self._next([*tried, *([rate, expected] for rate in rates)]))
        return rates

    def _spread(self, rate: float, count: int) -> list[float]:
        """A rate and others as far from it and from each other as can be, over the logarithm and round its ends."""
        low, width = self.min_learning_rate, np.log(self.max_learning_rate / self.min_learning_rate)
        place = np.log(rate / low) / width
        return [float(low * np.exp(width * ((place + i / count) % 1))) for i in range(count)]

    def begin(self) -> None:
        super().begin()
        load_ray()
        if callbacks_in(self.model) or any(getattr(each, "of_callback", False) for each in self.model.optimizer.variables):
            raise ValueError(
                "ParallelAutoLRS cannot have its workers do what other callbacks do in the training step: leave "
                "ScheduleHyperparameter and what reads gradients out, or use AutoLRS."
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        self._close()

    def _close(self) -> None:
        self._pool = None
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    def _search(self) -> float:
        try:
            return self._searched()
        except BaseException:  # after which Keras calls no callback
            self._close()
            raise

    def _searched(self) -> float:
        if self.validation_data is not None and self.first_loss is None:
            self.first_loss = self._validation_loss()
        start = self._validation_loss() if self.is_validating else None
        self._pool = self._pool or self._workers()
        trial = load_ray().put(self._trial())
        done = self.search_steps_done
        tried: list[list[float]] = []
        while len(tried) < self.candidates:
            rates = self.next_rates(tried)
            outcomes = self._pool.map(lambda worker, rate: worker.run.remote(trial, rate), rates)
            start = outcomes[0][0][0] if start is None else start
            if not math.isfinite(start):
                raise ValueError(f"The loss is no number before any rate is tried, at step {self.step}. Received: {start}")
            for rate, (losses, steps) in zip(rates, outcomes, strict=True):
                tried.append([rate, self._prospect(losses, start)])
                self.search_steps_done += steps
        best = min(tried, key=lambda pair: pair[::-1])[0]
        done = self.search_steps_done - done
        self.stages.append({"step": self.step, "tried": tried, "learning_rate": best, "search_steps": done})
        return best

    def _trial(self) -> dict[str, Any]:
        """All that the trials of a search have in common."""
        batches = itertools.islice(batches_ahead(self._adapter), self.stage_steps[0] * self.accumulation_steps)
        return {
            "state": self.state(),
            "model": Snapshot(self.model).state(),
            "random": random_state(),
            "batches": [tree.map_structure(ops.convert_to_numpy, batch) for batch in batches],
        }

    def _workers(self) -> Any:
        names = ("search_steps", "exploitation_steps", "validation_data", "validation_batch_size")
        options = {"monitor": self.monitor[0], **{name: getattr(self, name) for name in names}}
        arguments = self.make_model, keras.backend.backend(), options
        self._cluster = contextlib.ExitStack()
        return self._cluster.enter_context(pool(Worker, arguments, self.workers, self.resources))


class Worker:
    """Worker that trains candidates in another process."""

    def __init__(self, make_model: Callable[[], keras.Model], backend: str, options: dict[str, Any]) -> None:
        same_backend(backend)
        self._candidate = _Candidate(1e-9, 1.0, search="log_grid", **options)  # the range is for who chooses rates
        self._candidate.set_model(make_model())
        self._candidate._trainer = self._candidate.model  # as when `fit` begins

    def run(self, trial: dict[str, Any], rate: float) -> tuple[list[float], int]:
        """The losses of one candidate, as `AutoLRS` judges them, and the number of its steps."""
        candidate = self._candidate
        candidate.restore_state(trial["state"])
        candidate.batches = trial["batches"]
        Snapshot.from_state(candidate.model, trial["model"]).restore()
        restore_random_state(trial["random"])
        before = candidate.search_steps_done
        losses = candidate._try(rate)
        return losses, candidate.search_steps_done - before


class _Candidate(AutoLRS):
    """A search whose batches are given, in `batches`."""

    def _batches(self) -> Iterator[Any]:
        return iter(self.batches)

"""A member of a population: a model that is trained in rounds, each with its own settings, and that can be copied."""

import math
import shutil
import tempfile
import uuid
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import keras

from keras_lrsched._core import runs
from keras_lrsched._core.ray_pool import same_backend
from keras_lrsched.callbacks import ScheduleHyperparameter, TrainingState
from keras_lrsched.tune._progress import save_outcome
from keras_lrsched.tune.policy import Policy

STATE, POLICY = "member.state", "policy.json"
OURS = ("epochs", "initial_epoch")


class Member:
    """Model that is trained round by round. Its state lies in a `TrainingState` file, and its past settings in a `Policy`.

    A setting is scheduled and not assigned, so that the learning rate in the file, which is the one of the round before or
    of another member, has no effect.

    Args:
        make: A function without arguments that returns a compiled model and a dictionary of arguments for `fit`.
        seed: Of the initial weights.
        folder: Where the state is kept.
        epochs: How many a round has.
        metric: What `fit` reports of an epoch that is to be optimized.
        mode: `"min"` or `"max"`.
    """

    def __init__(
        self,
        make: Callable[[], tuple[keras.Model, dict[str, Any]]],
        seed: int,
        folder: str | PathLike,
        epochs: int,
        metric: str,
        mode: Literal["min", "max"],
    ) -> None:
        keras.utils.set_random_seed(seed)
        self.model, self._fit = _checked(make())
        self._state = Path(folder) / STATE
        self._state.unlink(missing_ok=True)
        self._seed, self._epochs, self._metric, self._mode = seed, epochs, metric, mode
        self.policy: Policy | None = None

    def train(self, settings: dict[str, float]) -> tuple[float, float]:
        """One round.

        Returns:
            What the metric is after it, and a score, of which more is better; a metric that is no number has the least.
        """
        rounds = 1 + (len(self.policy.ends) if self.policy else 0)
        scheduled = [ScheduleHyperparameter(target, value) for target, value in settings.items()]
        runs.forget(self._state)  # a round continues the run of the one before, which another member may have begun
        state = TrainingState(self._state, allow_changes=("seed", "model", "optimizer", "loss", "data.first_batch"))
        callbacks = [*self._fit.get("callbacks", ()), *scheduled, state]
        ours = {"epochs": rounds * self._epochs, "callbacks": callbacks}
        history = self.model.fit(**{"verbose": 0, **self._fit, **ours}).history
        if self._metric not in history:
            raise ValueError(
                f"`metric` must be one that `fit` reports: {', '.join(history)}. Received: metric={self._metric!r}"
            )
        end = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self.policy = self.policy.with_piece(settings, end) if self.policy else Policy([settings], [end], self._seed)
        return _judged(float(history[self._metric][-1]), self._mode)

    def save(self, folder: str | PathLike) -> None:
        if self.policy is None:
            raise ValueError("A member that was not trained has no state to save.")
        shutil.copyfile(self._state, Path(folder) / STATE)
        self.policy.save(Path(folder) / POLICY)

    def load(self, folder: str | PathLike) -> None:
        """Load what was saved, of this member or of another one."""
        shutil.copyfile(Path(folder) / STATE, self._state)
        self.policy = Policy.load(Path(folder) / POLICY)


def _judged(value: Any, mode: Literal["min", "max"]) -> tuple[float, float]:
    score = value if mode == "max" else -value
    return value, score if math.isfinite(score) else -math.inf


class Worker:
    """Worker that trains members in another process, without state from round to round."""

    def __init__(
        self,
        make: Callable[[], tuple[keras.Model, dict[str, Any]]],
        epochs: int,
        metric: str,
        mode: Literal["min", "max"],
        backend: str,
    ) -> None:
        same_backend(backend)
        self._make = make
        self._options: dict[str, Any] = {"epochs": epochs, "metric": metric, "mode": mode}

    def train(self, seed: int, settings: dict[str, float], source: Path | None, place: Path) -> tuple[float, float]:
        """One round of the member in the folder `source`, or of a new one if that is `None`.

        It is saved in `place`, whole or not at all.
        """
        keras.backend.clear_session()
        with tempfile.TemporaryDirectory() as folder:
            member = Member(self._make, seed, folder, **self._options)
            if source is not None:
                member.load(source)
            outcome = member.train(settings)
            unfinished = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
            unfinished.mkdir(parents=True)
            member.save(unfinished)
            save_outcome(unfinished, outcome)
        shutil.rmtree(place, ignore_errors=True)  # of a worker that was lost after it had saved
        unfinished.rename(place)
        return outcome


def _checked(made: Any) -> tuple[keras.Model, dict[str, Any]]:
    model, fit = made if isinstance(made, tuple) and len(made) == 2 else (None, None)
    if getattr(model, "optimizer", None) is None or not isinstance(fit, dict):
        raise ValueError(
            f"`make` must return a compiled model and a dictionary of arguments for `fit`. Received: {made!r:.200}"
        )
    if set(OURS) & set(fit):
        raise ValueError(f"How long `fit` trains is up to the search: leave `epochs` out. Received: {sorted(fit)}")
    return model, fit

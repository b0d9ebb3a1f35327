"""The samples of batch t of an endless stream of passes over the data, when sizes change on the way."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import validation
from keras_lrsched.schedules.schedule import compute


class Entry(NamedTuple):
    """One batch."""

    start: int
    """The number of samples before it, over all passes."""
    number: int
    """The number of batches before it."""
    requested: int
    """The size that was requested."""
    size: int
    """The size it has: a batch ends with its pass."""


class BatchStream:
    """The batches from an origin on, and the changes to come, both counted from that origin.

    Args:
        num_samples: Length of a pass.
        batch_size: A positive integer; or a schedule, or any function of the number of batches before.
    """

    def __init__(self, num_samples: int, batch_size: int | Callable[[int], float]) -> None:
        self.num_samples = num_samples
        self.schedule: Any = batch_size if callable(batch_size) else None
        self._origin = (0, 0, self.checked(self._scheduled(0) if callable(batch_size) else batch_size))
        self._changes: dict[int, dict] = {}
        self._plan: list[Entry] = []

    def entry(self, index: int) -> Entry:
        while len(self._plan) <= index:
            (start, number, requested), _ = self._after(len(self._plan))
            if self.schedule is not None:
                requested = self.checked(self._scheduled(number))
            self._plan.append(Entry(start, number, requested, min(requested, self.num_samples - start % self.num_samples)))
        return self._plan[index]

    def change(self, index: int, **change: Any) -> None:
        """From batch `index` on, `size=` another size, or `to=` a place, as (start, number), where the stream continues."""
        self._changes.setdefault(index, {}).update(change)
        del self._plan[index:]

    def follow(self, schedule: Callable[[int], float]) -> None:
        """From the origin on, the size is a function of the number of batches before."""
        self.schedule = schedule
        self._plan = []

    def behind(self, done: int) -> "BatchStream":
        """A stream of its own that begins behind `done` batches of this one, as planned by now."""
        other = copy.copy(self)
        other._origin, other._changes = self._after(done)
        other._plan = []
        return other

    def advance(self, done: int) -> None:
        """Move the origin behind `done` batches."""
        self._origin, self._changes = self._after(done)
        self._plan = []

    def batches_in_a_pass(self) -> int:
        """The number of batches that hold as many samples as there are."""
        batches = samples = 0
        while samples < self.num_samples:
            samples += self.entry(batches).size
            batches += 1
        return batches

    @property
    def batch_size(self) -> int:
        """The size that was requested last, or that a schedule has at the origin."""
        sizes = [change["size"] for _, change in sorted(self._changes.items()) if "size" in change]
        return sizes[-1] if sizes else self.entry(0).requested

    def state(self, done: int) -> dict[str, Any]:
        """The state for `restore_state` of a stream whose origin is behind `done` batches of this one."""
        origin, changes = self._after(done)
        return {"origin": list(origin), "changes": [[index, change] for index, change in sorted(changes.items())]}

    def restore_state(self, state: dict[str, Any]) -> None:
        self._origin = tuple(state["origin"])
        self._changes = {index: dict(change) for index, change in state["changes"]}
        self._plan = []

    def checked(self, batch_size: int) -> int:
        size = validation.positive_int("batch_size", batch_size)
        if size > self.num_samples:
            raise ValueError(
                f"`batch_size` must be at most the number of samples, {self.num_samples}. Received: batch_size={batch_size}"
            )
        return size

    def _after(self, done: int) -> tuple[tuple, dict[int, dict]]:
        """The origin and the changes, seen from behind `done` batches."""
        start, number, requested = self._origin
        if done:
            last = self.entry(done - 1)
            start, number, requested = last.start + last.size, last.number + 1, last.requested
        change = self._changes.get(done, {})
        origin = (*change.get("to", (start, number)), change.get("size", requested))
        return origin, {index - done: change for index, change in self._changes.items() if index > done}

    def _scheduled(self, number: int) -> int:
        if isinstance(self.schedule, LearningRateSchedule):
            return round(float(compute(self.schedule, np.asarray(number), np)))
        return round(self.schedule(number))

"""The settings that a training run had, piece by piece: what a search finds, and what one run can replay."""

import itertools
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.untrusted_file import refused
from keras_lrsched.callbacks import ScheduleHyperparameter
from keras_lrsched.schedules import Tabulated

LONGEST = 10**8
"""Updates: a longer table is refused before memory is taken for it."""


class Policy:
    """Settings that change from piece to piece of a run, as population based training finds them.

    In piece i, which ends before update `ends[i]` (counted from 0), each setting has the value in `settings[i]`.

    Args:
        settings: A non-empty list of dictionaries, all with the same keys: paths as `ScheduleHyperparameter` takes them,
            with their values, non-negative numbers.
        ends: As many numbers of updates, positive and strictly increasing, the last at most 1e8.
        seed: The seed of the initial weights that the run began from, below 2^32. Defaults to `None`: not known.

    Raises:
        ValueError: If an argument is not of its kind.

    Example:

    >>> policy = Policy([{"optimizer.learning_rate": 0.1}, {"optimizer.learning_rate": 0.02}], ends=[2, 5])
    >>> policy.schedules()["optimizer.learning_rate"].values(6)
    array([0.1 , 0.1 , 0.02, 0.02, 0.02, 0.02])
    """

    def __init__(self, settings: list[dict[str, float]], ends: Sequence[int], seed: int | None = None) -> None:
        self.settings = _checked_settings(settings)
        self.ends = validation.increasing("ends", ends, validation.positive_int)
        self.seed = None if seed is None else validation.non_negative_int("seed", seed)
        if self.seed is not None and self.seed >= 2**32:
            raise ValueError(f"`seed` must be below 2^32. Received: seed={seed!r:.200}")
        if len(self.ends) != len(self.settings):
            raise ValueError(
                f"There must be as many `ends` as `settings`. Received: {len(self.ends)} and {len(self.settings)}"
            )
        if self.ends[-1] > LONGEST:
            raise ValueError(f"`ends` must not exceed {LONGEST}. Received: ends[-1]={self.ends[-1]}")

    def with_piece(self, settings: dict[str, float], end: int) -> "Policy":
        """A policy with one more piece."""
        return Policy([*self.settings, settings], [*self.ends, end], self.seed)

    def schedules(self) -> dict[str, Tabulated]:
        """A dictionary from each setting to its `Tabulated` schedule."""
        lengths = [end - begin for begin, end in itertools.pairwise([0, *self.ends])]
        return {
            target: Tabulated(np.repeat([each[target] for each in self.settings], lengths)) for target in self.settings[0]
        }

    def callbacks(self) -> list[ScheduleHyperparameter]:
        """A `ScheduleHyperparameter` for each setting: given to one `fit`, they replay the policy."""
        return [ScheduleHyperparameter(target, schedule) for target, schedule in self.schedules().items()]

    def save(self, path: str | PathLike) -> None:
        """Write a JSON file, which `load` reads."""
        content = {"settings": self.settings, "ends": self.ends, "seed": self.seed}
        Path(path).expanduser().write_text(json.dumps(content) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | PathLike) -> "Policy":
        """The policy in a file that `save` wrote.

        Raises:
            ValueError: If the file holds none.
        """
        with refused("policy", path):
            return cls(**json.loads(Path(path).expanduser().read_text(encoding="utf-8")))


def _checked_settings(settings: Any) -> list[dict[str, float]]:
    keys = set(settings[0]) if isinstance(settings, list) and settings and isinstance(settings[0], dict) else None
    if not keys or not all(isinstance(each, dict) and set(each) == keys for each in settings):
        raise ValueError(
            "`settings` must be a non-empty list of dictionaries with the same keys, at least one. "
            f"Received: settings={settings!r:.200}"
        )
    return [
        {str(target): validation.non_negative_float(target, value) for target, value in each.items()} for each in settings
    ]

"""The question that a recommendation answers: choices, and functions that train."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_lrsched.study.search import Mode, Pair, Run


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """The learning rates and the smoothed losses of a range test."""

    learning_rates: np.ndarray
    losses: np.ndarray

    @property
    def last_good(self) -> float:
        """The rate with the least loss, above which it rises."""
        return float(self.learning_rates[np.argmin(self.losses)])

    @property
    def shows_limit(self) -> bool:
        """Whether the loss falls at first, and rises again before the end."""
        least = int(np.argmin(self.losses))
        return 0 < least < len(self.losses) - 1 and self.losses[least] < self.losses[0]


@dataclasses.dataclass(frozen=True)
class Question:
    """A question to `answer`: choices, and functions that train.

    Args:
        pairs: Pairs of labels: optimizer and schedule.
        budget: Optimizer steps of a whole run.
        run: A function from a list of trials to their outcomes.
        rates: A function from a schedule, a peak and a number of steps to the learning rates of all steps.
        starts: The usual learning rate of each optimizer.
        range_test: A function from an optimizer, the lowest and the highest rate and the number of steps to a `RangeTest`,
            or `None` if there is nothing to be seen. Defaults to `None`: no range tests.
        metric: The metric of which the last evaluation counts. Defaults to `"val_loss"`.
        mode: `"min"` or `"max"`. Defaults to `"min"`.
    """

    pairs: Sequence[Pair]
    budget: int
    run: Run
    rates: Callable[[str, float, int], np.ndarray]
    starts: Mapping[str, float]
    range_test: Callable[[str, float, float, int], RangeTest | None] | None = None
    metric: str = "val_loss"
    mode: Mode = "min"

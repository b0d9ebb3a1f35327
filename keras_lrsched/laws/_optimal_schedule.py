"""The schedule with the lowest predicted loss, of a law whose final loss comes with its derivative by each rate."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy

from keras_lrsched._core import validation
from keras_lrsched.schedules import Tabulated

FLAT = (0.6, 0.8, 0.9)
"""The search starts from schedules that are flat for this part of the run."""
FinalLoss: TypeAlias = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]
"""A function of the rates after warmup and those of warmup: the loss after the last update, warmup's rise not counted, and
its derivative by each rate after warmup."""


def optimize(
    final_loss: FinalLoss, total_steps: int, peak_learning_rate: float, warmup_steps: int, floor: float, knots: int
) -> Tabulated:
    """The schedule with the lowest final loss among those that never rise after warmup.

    The learning rate is peak * exp(-(x_1 + ... + x_j)) at knot j, x >= 0, and a straight line between knots: it never
    rises, stays above 0, and a flat stretch is x = 0, a bound that L-BFGS-B meets exactly.
    """
    validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
    steps, warmup_steps = int(total_steps), int(warmup_steps)
    peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
    floor = validation.positive_float("floor", floor)
    validation.below("floor", floor, "peak_learning_rate", peak)
    warmup = peak * np.arange(warmup_steps) / max(warmup_steps, 1)
    frame = PiecewiseLinear(steps - warmup_steps, validation.positive_int("knots", knots))

    def heights(falls: np.ndarray) -> np.ndarray:
        return np.maximum(peak * np.exp(-np.cumsum(falls)), floor)

    def objective(falls: np.ndarray) -> tuple[float, np.ndarray]:
        height = heights(falls)
        loss, by_rate = final_loss(frame.rates(height), warmup)
        by_log = frame.by_height(by_rate) * height * (height > floor)
        return loss, -np.cumsum(by_log[::-1])[::-1]

    found = [_search_from(objective, frame.place / max(frame.place[-1], 1), flat) for flat in FLAT]
    best = min(found, key=lambda result: result.fun)
    return Tabulated(np.concatenate([warmup, frame.rates(heights(best.x))]))


def _search_from(objective: Any, place: np.ndarray, flat: float) -> Any:
    tail = np.maximum((1 - place) / (1 - flat), 1e-4).clip(max=1.0) ** 1.5
    falls = -np.diff(np.log(tail), prepend=0.0)
    return scipy.optimize.minimize(
        objective,
        falls,
        jac=True,
        bounds=[(0.0, None)] * len(falls),
        method="L-BFGS-B",
        options={"maxiter": 1000, "maxfun": 2000, "ftol": 1e-13, "gtol": 1e-10},
    )


class PiecewiseLinear:
    """A schedule of many updates as straight lines between few knots.

    Half of the knots lie evenly, half ever denser towards the end, where the learning rate falls most.

    Attributes:
        place: The updates that are knots.
    """

    def __init__(self, steps: int, knots: int) -> None:
        even = np.linspace(0, steps - 1, knots // 2 + 2)
        dense = steps - np.geomspace(1, steps, knots // 2 + 2)
        self.place = np.unique(np.concatenate([even, dense]).round().astype(int))
        at = np.arange(steps)
        self._left = np.clip(np.searchsorted(self.place, at, side="right") - 1, 0, max(len(self.place) - 2, 0))
        self._right = np.minimum(self._left + 1, len(self.place) - 1)
        gap = np.maximum(self.place[self._right] - self.place[self._left], 1)
        self._share = (at - self.place[self._left]) / gap

    def rates(self, heights: np.ndarray) -> np.ndarray:
        """The rate of each update, from those at the knots."""
        return heights[self._left] * (1 - self._share) + heights[self._right] * self._share

    def by_height(self, by_rate: np.ndarray) -> np.ndarray:
        """The derivative by each height, from that by each rate."""
        count = len(self.place)
        return np.bincount(self._left, by_rate * (1 - self._share), count) + np.bincount(
            self._right, by_rate * self._share, count
        )

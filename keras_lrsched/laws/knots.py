"""A schedule of many updates as straight lines between few knots, which is what a search for the best one moves."""

import numpy as np


class Knots:
    """Knots for a number of updates: half of them evenly, half ever denser towards the end, where the rate falls most.

    Attributes:
        place: The updates that are knots.
    """

    def __init__(self, steps, knots):
        even = np.linspace(0, steps - 1, knots // 2 + 2)
        dense = steps - np.geomspace(1, steps, knots // 2 + 2)
        self.place = np.unique(np.concatenate([even, dense]).round().astype(int))
        at = np.arange(steps)
        self._left = np.clip(np.searchsorted(self.place, at, side="right") - 1, 0, max(len(self.place) - 2, 0))
        self._right = np.minimum(self._left + 1, len(self.place) - 1)
        gap = np.maximum(self.place[self._right] - self.place[self._left], 1)
        self._share = (at - self.place[self._left]) / gap

    def rates(self, heights):
        """The rate of each update, from those at the knots."""
        return heights[self._left] * (1 - self._share) + heights[self._right] * self._share

    def by_height(self, by_rate):
        """The derivative by each height, from that by each rate."""
        count = len(self.place)
        return np.bincount(self._left, by_rate * (1 - self._share), count) + np.bincount(
            self._right, by_rate * self._share, count
        )

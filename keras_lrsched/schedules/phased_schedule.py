"""Phased schedules: a chain of segments, which is what most papers define."""

import itertools
import math
from collections.abc import Iterable
from typing import Any

from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment, progress

ROUNDING = 1e-6
"""Steps that are less than this apart are one: sums of fractions are not exact."""


class PhasedSchedule(Schedule):
    """Segments one after another; the last value stays.

    To write a schedule, derive from this class: store each constructor argument under its own name, set `self.segments`, and
    register the class by `@keras_lrsched.register(title="...")`, which also registers it with `keras.saving`. `total_steps`
    follows from the segments; those without steps are left out.

    Example:

    >>> class Hat(PhasedSchedule):
    ...     def __init__(self, peak, steps):
    ...         self.peak, self.steps = peak, steps
    ...         self.segments = [Segment(steps / 2, 0.0, peak), Segment(steps / 2, peak, 0.0)]
    >>> Hat(1.0, steps=4).values(5)
    array([0. , 0.5, 1. , 0.5, 0. ])
    """

    @property
    def segments(self) -> list[Segment]:
        return self._segments

    @segments.setter
    def segments(self, segments: Iterable[Segment]) -> None:
        self._segments = [segment for segment in segments if segment.steps > ROUNDING]
        lengths = (segment.steps for segment in self._segments)
        self._edges = [_snapped(edge) for edge in itertools.accumulate(lengths, initial=0)]
        self.total_steps = math.ceil(self._edges[-1])
        if self._edges[-1] < self.total_steps:  # the end lies between two steps; from the second on, it is reached
            last = self._segments[-1].end
            self._segments.append(Segment(self.total_steps - self._edges[-1], last, last))
            self._edges.append(self.total_steps)

    def compute(self, step: Any, xp: Any) -> Any:
        value = None
        spans = list(zip(self._segments, itertools.pairwise(self._edges), strict=True))
        for segment, (start, end) in reversed(spans):
            done, left = progress(step, start, end, xp)
            here = segment.value(done, left, xp)
            value = here if value is None else xp.where(step < math.ceil(end), here, value)
        return value


def _snapped(edge: float) -> float:
    """An edge between segments; as an int if it is whole, also when a sum of fractions has made it 3.0000000000000004."""
    return round(edge) if abs(edge - round(edge)) < ROUNDING else edge

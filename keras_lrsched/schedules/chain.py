"""Chain: one schedule after another."""

from collections.abc import Sequence
from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules._arrays import at_least
from keras_lrsched.schedules.schedule import Schedule, ScheduleLike, as_schedule, compute


@register(
    title="one schedule after another",
    kind="combinator",
)
class Chain(Schedule):
    """Schedules one after another; each counts its steps from where it begins.

    With boundaries b_1 < b_2 < ..., b_0 = 0, and the schedules f_0, f_1, ...:

        b_i <= t < b_(i+1):  f_i(t - b_i)

    Args:
        schedules: A list of at least two `LearningRateSchedule`s or numbers.
        boundaries: The steps at which the second, third, ... begins, strictly increasing. Defaults to `None`: each begins
            at the `total_steps` of the one before.

    Raises:
        ValueError: If the boundaries are not increasing, do not fit the number of schedules, or are left out behind a
            schedule that has no end.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay
    >>> Chain([1.0, LinearDecay(1.0, decay_steps=2)], boundaries=[3]).values(6)
    array([1. , 1. , 1. , 1. , 0.5, 0. ])
    """

    def __init__(self, schedules: Sequence[ScheduleLike], boundaries: Sequence[int] | None = None) -> None:
        if not isinstance(schedules, (list, tuple)) or len(schedules) < 2:
            raise ValueError(f"`schedules` must be a list of two or more. Received: schedules={schedules!r}")
        self.schedules = [as_schedule("schedules", schedule) for schedule in schedules]
        if boundaries is None:
            boundaries = _ends(self.schedules[:-1])
        self.boundaries = validation.increasing("boundaries", boundaries, validation.positive_int)
        if len(self.boundaries) != len(self.schedules) - 1:
            raise ValueError(
                f"{len(self.schedules)} schedules need {len(self.schedules) - 1} `boundaries`. "
                f"Received: boundaries={boundaries!r}"
            )
        last = getattr(self.schedules[-1], "total_steps", None)
        self.total_steps = None if last is None else self.boundaries[-1] + last

    def compute(self, step: Any, xp: Any) -> Any:
        value = compute(self.schedules[0], step, xp)
        for boundary, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            value = xp.where(step < boundary, value, compute(schedule, at_least(step - boundary, 0, xp), xp))
        return value


def _ends(schedules: Sequence[ScheduleLike]) -> list[int]:
    ends, end = [], 0
    for schedule in schedules:
        steps = getattr(schedule, "total_steps", None)
        if steps is None:
            raise ValueError(f"`boundaries` cannot be left out behind a schedule without end. Received: {schedule!r}")
        end += steps
        ends.append(end)
    return ends

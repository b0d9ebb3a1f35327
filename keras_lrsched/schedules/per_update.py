"""PerUpdate: a schedule that counts updates where Keras counts micro-steps."""

from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules.schedule import Schedule, ScheduleLike, as_schedule, compute


@register(
    title="a schedule that counts weight updates under gradient accumulation",
    kind="combinator",
)
class PerUpdate(Schedule):
    """A schedule that counts weight updates under gradient accumulation: value(t) = schedule(floor(t / k)).

    With `gradient_accumulation_steps=k`, Keras' own optimizers advance a schedule at each of the k micro-steps that make one
    update: a warmup meant for 100 updates is over after 100 / k. The optimizers of this package, `ScheduleHyperparameter`
    and `MagnitudePruning` count updates as they are, and raise `ValueError` for a `PerUpdate` at any depth.

    Args:
        schedule: A `LearningRateSchedule` in updates, or a number for a constant.
        accumulation_steps: k, the optimizer's `gradient_accumulation_steps`, a positive integer.

    Raises:
        ValueError: If `accumulation_steps` is not a positive integer.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay
    >>> PerUpdate(LinearDecay(1.0, decay_steps=4), accumulation_steps=2).values(6)
    array([1.  , 1.  , 0.75, 0.75, 0.5 , 0.5 ])
    """

    def __init__(self, schedule: ScheduleLike, accumulation_steps: int) -> None:
        self.schedule = as_schedule("schedule", schedule)
        self.accumulation_steps = validation.positive_int("accumulation_steps", accumulation_steps)
        updates = getattr(self.schedule, "total_steps", None)
        self.total_steps = None if updates is None else updates * self.accumulation_steps

    def compute(self, step: Any, xp: Any) -> Any:
        return compute(self.schedule, step // self.accumulation_steps, xp)


def refuse_per_update(owner: str, name: str, schedule: Any) -> None:
    """Check that a schedule for what counts updates does not count them once more.

    Raises:
        ValueError: If the schedule is a `PerUpdate`, or has one inside, with more than one step.
    """
    if _has_per_update(schedule):
        raise ValueError(
            f"{owner} counts updates already, also under gradient accumulation, so the schedule would run at a fraction of "
            f"its pace: leave PerUpdate out. Received: {name}={schedule!r}"
        )


def _has_per_update(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_has_per_update, value))
    if isinstance(value, PerUpdate) and value.accumulation_steps > 1:
        return True
    return isinstance(value, Schedule) and _has_per_update(list(value.arguments().values()))

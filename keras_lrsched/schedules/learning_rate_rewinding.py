"""Learning-rate rewinding (Renda, Frankle & Carbin, ICLR 2020): retrain a pruned network as it was trained at the end."""

from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules._arrays import at_least
from keras_lrsched.schedules.schedule import Schedule, ScheduleLike, as_schedule, compute


@register(
    title="a schedule, and its last updates again after each pruning",
    paper="arXiv:2003.02389",
    checked="memory",
    deviations="neither text nor code was read",
    kind="combinator",
)
class LearningRateRewinding(Schedule):
    """A schedule to its end, and then its last updates over again after each pruning.

    With T = `training_steps`, k = `rewind_steps` and u = t - T:

        t < T:               schedule(t)
        0 <= u < cycles * k: schedule(T - k + u mod k)
        u >= cycles * k:     schedule(T)

    Prune before the updates at t = T, T + k, T + 2 k, ..., keep the weights and go on. Weight rewinding would also set the
    weights back to those of T - k; fine-tuning would go on with the last value.

    Args:
        schedule: A `LearningRateSchedule`, or a number for a constant.
        training_steps: Updates before the first pruning, T, a positive integer.
        rewind_steps: Updates to replay after each pruning, k, from 1 to T.
        cycles: How many times the network is pruned. Defaults to `1`.

    Raises:
        ValueError: If an argument is out of its range, or there are more steps to rewind than were trained.

    Reference: arXiv:2003.02389.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay
    >>> LearningRateRewinding(LinearDecay(1.0, decay_steps=4), 4, rewind_steps=2, cycles=2).values(9)
    array([1.  , 0.75, 0.5 , 0.25, 0.5 , 0.25, 0.5 , 0.25, 0.  ])
    """

    def __init__(self, schedule: ScheduleLike, training_steps: int, rewind_steps: int, cycles: int = 1) -> None:
        self.schedule = as_schedule("schedule", schedule)
        self.training_steps = validation.positive_int("training_steps", training_steps)
        self.rewind_steps = validation.positive_int("rewind_steps", rewind_steps)
        self.cycles = validation.positive_int("cycles", cycles)
        if self.rewind_steps > self.training_steps:
            raise ValueError(
                "`rewind_steps` must not exceed `training_steps`. "
                f"Received: rewind_steps={rewind_steps}, training_steps={training_steps}"
            )
        self.total_steps = self.training_steps + self.cycles * self.rewind_steps

    def compute(self, step: Any, xp: Any) -> Any:
        replayed = at_least(step - self.training_steps, 0, xp) % self.rewind_steps + self.training_steps - self.rewind_steps
        first = self.training_steps - at_least(self.training_steps - step, 0, xp)  # and what stays behind the last replay
        replaying = (step >= self.training_steps) & (step < self.total_steps)
        return compute(self.schedule, xp.where(replaying, replayed, first), xp)

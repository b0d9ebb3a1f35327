"""QSR, the quadratic synchronization rule: how long workers train apart before they average (Gu et al. 2023)."""

from typing import Any

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules._arrays import at_least, to_float
from keras_lrsched.schedules.schedule import Schedule, ScheduleLike, as_schedule, compute

LONGEST = 2**30
ROUNDING = 1e-5
"""Relative: an error in float32 must not take 1225 down to 1224."""


@register(
    "qsr",
    title="quadratic synchronization rule",
    paper="arXiv:2310.14423",
    code=("hmxgr128/QSR",),
    checked="read",
    against="rule and caps of the official code",
    deviations="alpha for ViT-B and the constant period of the warmup are from memory",
    kind="period of averaging",
)
class SynchronizationPeriod(Schedule):
    """The number of updates that workers make on their own until their next average; it grows as the learning rate falls.

    Not a learning rate: the value is a whole number, to be read right after each average and kept until the next.

        H(t) = max(1, min(max(base_period, floor((alpha / lr(max(t, W)))^power)), max_period, T - t))

    where W = `warmup_steps`, so that the period of the warmup is that which follows it, and T = `total_steps`, so that the
    run ends with an average. Before it is rounded down, the power is raised by a hundred-thousandth of itself, so that
    float32 agrees with float64 where it is a whole number.

    Args:
        learning_rate: A `LearningRateSchedule`, or a number for a constant.
        alpha: The learning rate at which the period would be 1, non-negative; 0.0175 for ViT-B with AdamW. With 0 the
            period is `base_period`.
        base_period: The shortest period, a positive integer. Defaults to `4`.
        power: Positive. Defaults to `2.0`, which is QSR. The official code's own default is 1.
        max_period: The longest period. Defaults to `None`: no limit.
        warmup_steps: Updates of the learning rate's warmup, W. Defaults to `0`.
        total_steps: Updates of the run, T. Defaults to `None`: those of the learning rate, if it has an end.
        name: A label. Defaults to `"SynchronizationPeriod"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: arXiv:2310.14423; official code, hmxgr128/QSR.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay
    >>> period = SynchronizationPeriod(LinearDecay(0.01, decay_steps=100), alpha=0.02)
    >>> period.values([0, 50, 80, 98, 99])
    array([ 4., 16., 20.,  2.,  1.])
    >>> period.averages()
    [4, 8, 12, 17, 22, 28, 35, 44, 56, 76, 100]
    """

    def __init__(
        self,
        learning_rate: ScheduleLike,
        alpha: float,
        base_period: int = 4,
        power: float = 2.0,
        max_period: int | None = None,
        warmup_steps: int = 0,
        total_steps: int | None = None,
        name: str = "SynchronizationPeriod",
    ) -> None:
        self.learning_rate = as_schedule("learning_rate", learning_rate)
        self.alpha = validation.non_negative_float("alpha", alpha)
        self.base_period = validation.positive_int("base_period", base_period)
        self.power = validation.positive_float("power", power)
        self.max_period = None if max_period is None else validation.positive_int("max_period", max_period)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        self.total_steps = getattr(self.learning_rate, "total_steps", None)
        if total_steps is not None:
            self.total_steps = validation.positive_int("total_steps", total_steps)
        self.name = name

    def compute(self, step: Any, xp: Any) -> Any:
        rate = compute(self.learning_rate, at_least(step, self.warmup_steps, xp), xp)
        limit = LONGEST if self.max_period is None else self.max_period
        # Divided the other way round, and from below: a learning rate of 0 is the longest period, not an error.
        inverse = at_least(rate / self.alpha if self.alpha else rate + np.inf, limit ** (-1 / self.power), xp)
        period = to_float(xp.floor((1 + ROUNDING) * xp.power(inverse, -self.power)), xp)  # torch: always a float32
        period = xp.where(period > limit, xp.full_like(period, limit), at_least(period, self.base_period, xp))
        if self.total_steps is None:
            return period
        left = to_float(at_least(self.total_steps - step, 1, xp), xp)
        return xp.where(period < left, period, left)

    def averages(self, total_steps: int | None = None) -> list[int]:
        """The numbers of updates after which the workers average, the last of them the end of the run."""
        total_steps = self.total_steps if total_steps is None else validation.positive_int("total_steps", total_steps)
        if total_steps is None:
            raise ValueError("The learning rate has no end: `total_steps` is required. Received: total_steps=None")
        periods, done = self.values(total_steps), [0]
        while done[-1] < total_steps:
            done.append(min(total_steps, done[-1] + int(periods[done[-1]])))
        return done[1:]

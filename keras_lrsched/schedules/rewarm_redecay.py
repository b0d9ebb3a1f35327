"""Re-warm and re-decay: continual pre-training with the schedule of pre-training once more (Ibrahim et al. 2024)."""

from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment, floor_of


@register(
    "rewarm_redecay",
    title="re-warm and re-decay",
    paper="arXiv:2403.08763",
    code=("EleutherAI/gpt-neox",),
    checked="read",
    against="three independent implementations",
    deviations="the body of the paper was not read",
    kind="learning rate",
    choices={"alpha": ((0.0, 0.01, 0.1, 0.3), 0.1)},
)
class RewarmRedecay(PhasedSchedule):
    """On new data, a rise from where the last run ended back to the peak, and a cosine over the new budget.

    With W = `warmup_steps`, T = W + `decay_steps`, min = `alpha` * max:

        t < W:   initial + (max - initial) * t / W
        t >= W:  min + (max - min) * (1 + cos(pi * x)) / 2,  x = min(t - W, decay_steps) / decay_steps

    It goes with replay of old data: 5 % if the new data is similar, 25 to 50 % if it is not (secondary source).

    Args:
        peak_learning_rate: The peak, usually that of pre-training.
        warmup_steps: Updates until the peak, W. `0` starts at the peak.
        decay_steps: Updates from the peak to the floor, a positive integer.
        alpha: The floor as a fraction of the peak, in [0, 1]. Defaults to `0.1`.
        initial_learning_rate: The value at t = 0, below the peak: the floor of the run before, or 0. Defaults to `0.0`.
        name: A label. Defaults to `"RewarmRedecay"`.

    Raises:
        ValueError: If an argument is out of its range, or the rise would not start below the peak.

    Reference: arXiv:2403.08763.

    Example:

    >>> RewarmRedecay(3e-4, warmup_steps=10, decay_steps=990, initial_learning_rate=3e-5).values([0, 5, 10, 505, 1000])
    array([3.00e-05, 1.65e-04, 3.00e-04, 1.65e-04, 3.00e-05])
    """

    def __init__(
        self,
        peak_learning_rate: float,
        warmup_steps: int,
        decay_steps: int,
        alpha: float = 0.1,
        initial_learning_rate: float = 0.0,
        name: str = "RewarmRedecay",
    ) -> None:
        self.peak_learning_rate = high = validation.positive_float("peak_learning_rate", peak_learning_rate)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        self.decay_steps = validation.positive_int("decay_steps", decay_steps)
        self.alpha = validation.fraction("alpha", alpha)
        self.initial_learning_rate = validation.non_negative_float("initial_learning_rate", initial_learning_rate)
        validation.below("initial_learning_rate", self.initial_learning_rate, "peak_learning_rate", high)
        self.name = name
        self.segments = [
            Segment(self.warmup_steps, self.initial_learning_rate, high),
            Segment(self.decay_steps, high, floor_of(high, self.alpha, profiles.cosine), profiles.cosine),
        ]

    @classmethod
    def for_budget(cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> Schedule:
        """A decay to the floor, a tenth of the peak, at the end of the budget."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        return cls(peak_learning_rate, warmup_steps, total_steps - warmup_steps, **options)

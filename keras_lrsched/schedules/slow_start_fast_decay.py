"""Slow start, fast decay: fine-tuning a trained network for adversarial robustness (Jeddi et al. 2020)."""

from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.profiles import ProfileLike
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment, floor_of


@register(
    "slow_start",
    title="slow start, fast decay (form ours)",
    paper="arXiv:2012.13628",
    deviations="the paper for the idea alone, of which the abstract was read; parameterization and defaults are ours",
    kind="learning rate",
    choices={"alpha": ((0.001, 0.01, 0.1), 0.01), "cooldown": (("exponential", "cosine", "linear"), "exponential")},
)
class SlowStartFastDecay(PhasedSchedule):
    """A slow rise from a very small value and a fast fall, over a short fine-tuning of about ten epochs.

    The paper's idea; the formula is ours, as none was to be had. With S = `warmup_steps`, D = `decay_steps`:

        t < S:   peak * warmup_start^(1 - t / S)                     (for `warmup="exponential"`)
        t >= S:  peak * alpha^x,  x = min(t - S, D) / D              (for `cooldown="exponential"`)

    Args:
        peak_learning_rate: The largest value.
        warmup_steps: Updates of the rise, S, a positive integer.
        decay_steps: Updates of the fall, D, a positive integer.
        warmup_start: The value at t = 0 as a fraction of the peak, in (0, 1). Defaults to `0.01`.
        alpha: The floor as a fraction of the peak, in [0, 1]; above 0 for an exponential. Defaults to `0.01`.
        warmup: A `Profile`, its name or config, which the rise follows backwards. Defaults to `"exponential"`: slow at
            first. The other usual choice is `"linear"`.
        cooldown: A `Profile`, its name or config, for the fall. Defaults to `"exponential"`: fast at first.
        name: A label. Defaults to `"SlowStartFastDecay"`.

    Raises:
        ValueError: If an argument is out of its range, or the cooldown never reaches 0 and `alpha` is 0.

    Reference: arXiv:2012.13628, for the idea: the values are not the paper's.

    Example:

    >>> SlowStartFastDecay(0.1, warmup_steps=10, decay_steps=10).values([0, 5, 10, 15, 20])
    array([0.001, 0.01 , 0.1  , 0.01 , 0.001])
    """

    def __init__(
        self,
        peak_learning_rate: float,
        warmup_steps: int,
        decay_steps: int,
        warmup_start: float = 0.01,
        alpha: float = 0.01,
        warmup: ProfileLike = "exponential",
        cooldown: ProfileLike = "exponential",
        name: str = "SlowStartFastDecay",
    ) -> None:
        self.peak_learning_rate = peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
        self.warmup_steps = validation.positive_int("warmup_steps", warmup_steps)
        self.decay_steps = validation.positive_int("decay_steps", decay_steps)
        self.warmup_start = validation.inner_fraction("warmup_start", warmup_start)
        self.alpha = validation.fraction("alpha", alpha)
        self.warmup = profiles.get(warmup, floor=self.warmup_start)
        self.cooldown = profiles.get(cooldown, floor=self.alpha)
        self.name = name
        self.segments = [
            Segment(self.warmup_steps, self.warmup_start * peak, peak, self.warmup),
            Segment(self.decay_steps, peak, floor_of(peak, self.alpha, self.cooldown), self.cooldown),
        ]

    @classmethod
    def for_budget(cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> Schedule:
        """A rise over `warmup_steps`, or half of the budget if that is 0, and a fall over the rest; our proportions."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        rise = warmup_steps or max(1, total_steps // 2)
        return cls(peak_learning_rate, rise, max(1, total_steps - rise), **options)

"""WSD: warmup, stable, decay (Hu et al. 2024, MiniCPM), with every cooldown shape of the literature."""

from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.profiles import ProfileLike
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment, floor_of


@register(
    "wsd",
    title="warmup-stable-decay (1 - sqrt)",
    paper="arXiv:2404.06395",
    code=("epfml/schedules-and-scaling",),
    checked="vectors",
    against="the official code of arXiv:2405.18392, which was run",
    deviations=(
        "the warmup starts at 0 by default, in the official code at a hundredth of the peak; `lowered_linear` is "
        "inferred from a figure of arXiv:2508.01483"
    ),
    kind="learning rate",
    choices={
        "decay_fraction": ((0.05, 0.1, 0.2, 0.4), 0.2),
        "cooldown": (
            ("linear", "cosine", "mirror_cosine", "one_minus_sqrt", "sqrt_of_remaining", "square", "lowered_linear", "rex"),
            "one_minus_sqrt",
        ),
        "alpha": ((0.0, 0.1), 0.0),
    },
)
class WarmupStableDecay(PhasedSchedule):
    """Linear warmup, a constant, and a short cooldown: the horizon need not be known until the cooldown begins.

    With W, S, D = `warmup_steps`, `stable_steps`, `decay_steps` and x = (t - W - S) / D:

        t < W:              peak * (warmup_start + (1 - warmup_start) * t / W)
        W <= t < W + S:     peak
        t >= W + S:         peak * (alpha + (1 - alpha) * cooldown(x)), from t = W + S + D on the floor alpha * peak

    Cooldowns: `"one_minus_sqrt"` (the best of Hägele et al.), `"linear"`, `"cosine"`, `"mirror_cosine"`, `"square"`,
    `"sqrt_of_remaining"`, `"lowered_linear"`, `"exponential"` (alpha^x, needs `alpha` > 0), `"exponential_to_zero"`
    (Megatron-LM), `"inverse_proportional"` (WSD-S, needs `alpha` > 0), and all other profiles.

    MiniCPM decays over 10 % of the tokens and finds 2.5 % too short; Hägele et al. advise 10 to 20 % and a floor of 0;
    Dremov et al. advise a higher AdamW `beta_2` during the cooldown.

    Args:
        peak_learning_rate: The value of the stable phase, positive.
        warmup_steps: Updates until the peak, W. May be `0`.
        stable_steps: Updates at the peak, S. May be `0`.
        decay_steps: Updates of the cooldown, D, a positive integer.
        cooldown: A `Profile`, its name or config. Defaults to `"one_minus_sqrt"`.
        alpha: The floor as a fraction of the peak, in [0, 1]. Defaults to `0.0`.
        warmup_start: The value at t = 0 as a fraction of the peak, in [0, 1]. Defaults to `0.0`. The official code of
            Hägele et al. uses 0.01.
        name: A label. Defaults to `"WarmupStableDecay"`.

    Raises:
        ValueError: If an argument is out of its range, or the cooldown never reaches 0 and `alpha` is 0.

    Reference: arXiv:2404.06395 (MiniCPM), arXiv:2405.18392 (official code, epfml/schedules-and-scaling),
    arXiv:2508.01483.

    Example:

    >>> WarmupStableDecay(1.0, warmup_steps=100, stable_steps=700, decay_steps=200).values([0, 50, 100, 800, 850, 1000])
    array([0. , 0.5, 1. , 1. , 0.5, 0. ])
    """

    def __init__(
        self,
        peak_learning_rate: float,
        warmup_steps: int,
        stable_steps: int,
        decay_steps: int,
        cooldown: ProfileLike = "one_minus_sqrt",
        alpha: float = 0.0,
        warmup_start: float = 0.0,
        name: str = "WarmupStableDecay",
    ) -> None:
        self.peak_learning_rate = peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        self.stable_steps = validation.non_negative_int("stable_steps", stable_steps)
        self.decay_steps = validation.positive_int("decay_steps", decay_steps)
        self.alpha = validation.fraction("alpha", alpha)
        self.cooldown = profiles.get(cooldown, floor=self.alpha)
        self.warmup_start = validation.fraction("warmup_start", warmup_start)
        self.name = name
        self.segments = [
            Segment(self.warmup_steps, self.warmup_start * peak, peak),
            Segment(self.stable_steps, peak, peak),
            Segment(self.decay_steps, peak, floor_of(peak, self.alpha, self.cooldown), self.cooldown),
        ]

    @classmethod
    def for_budget(
        cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, decay_fraction: float = 0.2, **options: Any
    ) -> Schedule:
        """A cooldown over the last `decay_fraction` of the budget, 20 % by default."""
        return cls(peak_learning_rate, *split_budget(total_steps, warmup_steps, decay_fraction), **options)


def split_budget(total_steps: int, warmup_steps: int, decay_fraction: float) -> tuple[int, int, int]:
    """The steps of warmup, stable phase and decay, which takes `decay_fraction` of all, or what the warmup leaves of it."""
    validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
    decay_steps = round(validation.positive_fraction("decay_fraction", decay_fraction) * total_steps)
    decay_steps = max(1, min(decay_steps, total_steps - warmup_steps))
    return warmup_steps, total_steps - warmup_steps - decay_steps, decay_steps

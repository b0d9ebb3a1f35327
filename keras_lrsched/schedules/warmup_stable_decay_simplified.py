"""WSD-S: many cooldowns on one branch of training, each followed by a jump back to the peak (Wen et al. 2024)."""

import itertools
from collections.abc import Sequence
from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.profiles import ProfileLike
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment, floor_of


@register(
    "wsd_s",
    title="WSD-S: many cooldowns on one branch",
    paper="arXiv:2410.05192",
    code=("stanford-crfm/levanter", "allenai/OLMo-core"),
    checked="vectors",
    against="the co-authors' library (`inv` schedule and `cycles` of Levanter) and `WSDS` of OLMo-core",
    deviations=(
        "the step at the end of a period belongs to the next one; the body of the paper was not read, nor its own code found"
    ),
    kind="learning rate",
    choices={"periods": ((1, 2, 3, 4), 3), "decay_fraction": ((0.05, 0.1, 0.2), 0.1)},
)
class WarmupStableDecaySimplified(PhasedSchedule):
    """WSD-S: in each period a constant and a cooldown, then straight back to the peak, from the cooled-down weights.

    Each period ends with a checkpoint that is ready for use, and nothing is rewound: WSD would go back to the weights from
    before the cooldown. With the ends e_1 < e_2 < ... < e_k = T, e_0 = 0, D_i = round(decay_fraction * (e_i - e_(i-1))), and
    x = (t - e_i + D_i) / D_i:

        t < W:                      peak * (warmup_start + (1 - warmup_start) * t / W), in the first period only
        e_(i-1) <= t < e_i - D_i:   peak
        e_i - D_i <= t < e_i:       peak * (alpha + (1 - alpha) * cooldown(x))
        t >= e_k:                   alpha * peak

    The paper's cooldown is linear in 1 / value, from 1 / peak to 1 / (alpha * peak): peak / (1 + x * (1 / alpha - 1)).

    The step e_i belongs to the next period, and so to the peak: update number e_i, the last of the period, uses the value at
    e_i - 1, one step above the floor. OLMo-core's `WSDS` (`cooldown="linear"`, `alpha=0`) gives e_i to the old period: there
    the value at e_i is 0, an update lost, and at e_i + 1 the peak; all other steps agree. Levanter counts each decay from 1:
    its first decay step is already below the peak, at our value of the step after.

    Args:
        peak_learning_rate: The value of the stable phases, positive.
        period_ends: The steps at which the periods end, strictly increasing; usually each twice the one before.
        warmup_steps: Updates until the peak, W, a part of the first period. Defaults to `0`.
        decay_fraction: The fraction of each period, in (0, 1], that its cooldown takes. Defaults to `0.1`.
        alpha: The floor as a fraction of the peak, in [0, 1]. Defaults to `0.1`.
        cooldown: A `Profile`, its name or config. Defaults to `"inverse_proportional"`, which needs `alpha` > 0.
        warmup_start: The value at t = 0 as a fraction of the peak, in [0, 1]. Defaults to `0.0`.
        name: A label. Defaults to `"WarmupStableDecaySimplified"`.

    Raises:
        ValueError: If an argument is out of its range, a cooldown would have no length, the first period is too short for
            its warmup and cooldown, or the cooldown never reaches 0 and `alpha` is 0.

    Reference: arXiv:2410.05192; the co-authors' library, stanford-crfm/levanter.

    Example:

    >>> WarmupStableDecaySimplified(1.0, [100, 200, 400]).values([0, 90, 95, 99, 100, 195, 200, 390, 400]).round(3)
    array([1.   , 1.   , 0.182, 0.11 , 1.   , 0.182, 1.   , 0.182, 0.1  ])
    """

    def __init__(
        self,
        peak_learning_rate: float,
        period_ends: Sequence[int],
        warmup_steps: int = 0,
        decay_fraction: float = 0.1,
        alpha: float = 0.1,
        cooldown: ProfileLike = "inverse_proportional",
        warmup_start: float = 0.0,
        name: str = "WarmupStableDecaySimplified",
    ) -> None:
        self.peak_learning_rate = peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
        self.period_ends = validation.increasing("period_ends", period_ends, validation.positive_int)
        if not self.period_ends:
            raise ValueError(f"`period_ends` must name one step or more. Received: period_ends={period_ends}")
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        self.decay_fraction = validation.positive_fraction("decay_fraction", decay_fraction)
        self.alpha = validation.fraction("alpha", alpha)
        self.cooldown = profiles.get(cooldown, floor=self.alpha)
        self.warmup_start = validation.fraction("warmup_start", warmup_start)
        self.name = name
        floor = floor_of(peak, self.alpha, self.cooldown)
        self.segments = [Segment(self.warmup_steps, self.warmup_start * peak, peak)]
        for stable_steps, decay_steps in self._periods():
            self.segments += [Segment(stable_steps, peak, peak), Segment(decay_steps, peak, floor, self.cooldown)]

    def _periods(self) -> Any:
        """The lengths of the stable phase and the cooldown of each period."""
        warmup_steps = self.warmup_steps
        for start, end in itertools.pairwise([0, *self.period_ends]):
            decay_steps = _decay_steps(end - start, self.decay_fraction)
            stable_steps = end - start - decay_steps - warmup_steps
            if not decay_steps or stable_steps < 0:
                raise ValueError(
                    f"The period from {start} to {end} is too short: with `decay_fraction` of it, its cooldown has "
                    f"{decay_steps} steps, behind a warmup of {warmup_steps}. Received: period_ends={self.period_ends}, "
                    f"decay_fraction={self.decay_fraction}, warmup_steps={self.warmup_steps}"
                )
            yield stable_steps, decay_steps
            warmup_steps = 0

    @classmethod
    def for_budget(
        cls,
        peak_learning_rate: float,
        total_steps: int,
        warmup_steps: int = 0,
        periods: int = 3,
        decay_fraction: float = 0.1,
        **options: Any,
    ) -> Schedule:
        """Up to three periods, which end at a quarter, at half and at the end of the budget; fewer behind a long warmup.

        Only where a single period is too short for its warmup and `decay_fraction`, its cooldown is shorter.
        """
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        periods = validation.positive_int("periods", periods)
        decay_fraction = validation.positive_fraction("decay_fraction", decay_fraction)
        ends = [total_steps]
        while len(ends) < periods:
            end = ends[0] // 2
            if not 0 < _decay_steps(end, decay_fraction) <= end - warmup_steps:
                break
            ends.insert(0, end)
        if len(ends) == 1:
            decay_steps = min(_decay_steps(total_steps, decay_fraction), total_steps - warmup_steps)
            decay_fraction = max(1, decay_steps) / total_steps
        return cls(peak_learning_rate, ends, warmup_steps, decay_fraction, **options)


def _decay_steps(period: float, decay_fraction: float) -> int:
    return round(decay_fraction * period)

"""Infinite learning rate: a schedule for continual pre-training, whose end is chosen when it comes (Ibrahim et al. 2024)."""

from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.profiles import ProfileLike
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment


@register(
    "infinite",
    title="infinite: cooldown, constant, annealing",
    paper="arXiv:2403.08763",
    checked="read",
    against="three independent implementations, for cosine cooldown and annealing",
    deviations=(
        "no official code found; inverse-sqrt cooldown and proportions of `for_budget` from memory; a circulating "
        "annealing that misses the floor is not followed"
    ),
    kind="learning rate",
    choices={"cooldown": (("cosine", "inverse_sqrt"), "cosine")},
)
class InfiniteLearningRate(PhasedSchedule):
    """Warmup, cooldown to a constant, that constant for as long as data comes, and a short exponential annealing.

    New data needs no second warmup: training goes on from the constant. With W = `warmup_steps`, C = W + `cooldown_steps`,
    A = C + `constant_steps`, y = (t - W) / `cooldown_steps` and z = (t - A) / `annealing_steps`:

        t < W:        max * t / W
        W <= t < C:   constant + (max - constant) * cooldown(y)
        C <= t < A:   constant
        t >= A:       constant * (min / constant)^z, from z = 1 on the floor min

    Cooldowns: `"cosine"`, or `"inverse_sqrt"`, max / sqrt(1 + y * ((max / constant)^2 - 1)), or any other profile.

    Args:
        peak_learning_rate: The peak.
        constant_learning_rate: The value that training goes on with, below the peak.
        min_learning_rate: The floor, positive and below the constant.
        warmup_steps: Updates until the peak. May be `0`.
        cooldown_steps: Updates from the peak to the constant, a positive integer.
        constant_steps: Updates at the constant. May be `0`.
        annealing_steps: Updates from the constant to the floor. `0` leaves the annealing out: the constant stays for ever.
        cooldown: A `Profile`, its name or config. Defaults to `"cosine"`.
        name: A label. Defaults to `"InfiniteLearningRate"`.

    Raises:
        ValueError: If an argument is out of its range, or the three values do not fall strictly.

    Reference: arXiv:2403.08763, arXiv:2503.02844.

    Example:

    >>> schedule = InfiniteLearningRate(3e-4, 1.65e-4, 3e-5, 100, 300, 400, 200)
    >>> schedule.values([50, 100, 250, 400, 799, 900, 1000])
    array([1.50000000e-04, 3.00000000e-04, 2.32500000e-04, 1.65000000e-04,
           1.65000000e-04, 7.03562364e-05, 3.00000000e-05])
    """

    def __init__(
        self,
        peak_learning_rate: float,
        constant_learning_rate: float,
        min_learning_rate: float,
        warmup_steps: int,
        cooldown_steps: int,
        constant_steps: int,
        annealing_steps: int,
        cooldown: ProfileLike = "cosine",
        name: str = "InfiniteLearningRate",
    ) -> None:
        self.peak_learning_rate = high = validation.positive_float("peak_learning_rate", peak_learning_rate)
        self.constant_learning_rate = constant = validation.positive_float("constant_learning_rate", constant_learning_rate)
        self.min_learning_rate = low = validation.positive_float("min_learning_rate", min_learning_rate)
        validation.below("constant_learning_rate", constant, "peak_learning_rate", high)
        validation.below("min_learning_rate", low, "constant_learning_rate", constant)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        self.cooldown_steps = validation.positive_int("cooldown_steps", cooldown_steps)
        self.constant_steps = validation.non_negative_int("constant_steps", constant_steps)
        self.annealing_steps = validation.non_negative_int("annealing_steps", annealing_steps)
        self.cooldown = profiles.get(cooldown, floor=constant / high)
        self.name = name
        self.segments = [
            Segment(self.warmup_steps, 0.0, high),
            Segment(self.cooldown_steps, high, constant, self.cooldown),
            Segment(self.constant_steps, constant, constant),
            Segment(self.annealing_steps, constant, low, profiles.exponential(low / constant)),
        ]

    @classmethod
    def for_budget(cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> Schedule:
        """After the warmup, 60 % cooldown to 0.55 of the peak, 25 % constant, 15 % annealing to a tenth of the peak.

        The percentages of Ibrahim et al. are from memory, unverified; the values are theirs.
        """
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
        rest = total_steps - warmup_steps
        cooldown = max(1, round(0.6 * rest))
        annealing = min(round(0.15 * rest), rest - cooldown)
        steps = (warmup_steps, cooldown, rest - cooldown - annealing, annealing)
        return cls(peak, 0.55 * peak, 0.1 * peak, *steps, **options)

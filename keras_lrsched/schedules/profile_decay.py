"""Profile decay: any profile, read at any rate; the frame that the REX paper puts every decay into (arXiv:2107.04197)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules._arrays import at_least
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.profiles import ProfileLike
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment, floor_of


@register(
    "profile",
    title="any profile, any sampling rate",
    paper="arXiv:2107.04197",
    checked="read",
    against="three independent implementations",
    deviations="no official code",
    kind="learning rate",
    choices={
        "profile": (
            ("linear", "cosine", "mirror_cosine", "one_minus_sqrt", "sqrt_of_remaining", "square", "lowered_linear", "rex"),
            "one_minus_sqrt",
        ),
        "alpha": ((0.0, 0.1), 0.0),
        "sample_points": ((None, (0.5, 0.75), (0.25, 0.5, 0.75)), None),
    },
)
@register(
    "cosine",
    title="cosine decay",
    paper="arXiv:1608.03983",
    checked="vectors",
    against="`keras.optimizers.schedules.CosineDecay`",
    deviations="without the paper's restarts",
    kind="learning rate",
    options={"profile": "cosine", "name": "cosine"},
    choices={"alpha": ((0.0, 0.01, 0.1, 0.3), 0.0)},
)
class ProfileDecay(PhasedSchedule):
    """A profile stretched over the run, read at every update or less often, behind an optional linear warmup.

    With W = `warmup_steps`, T = W + `decay_steps`, peak = `warmup_target` (or `initial_learning_rate`, without a warmup):

        t < W:   initial + (peak - initial) * t / W
        t >= W:  peak * (alpha + (1 - alpha) * profile(x)),  x = min(t - W, decay_steps) / decay_steps

    The floor alpha * peak is reached at t = T and stays. `sample_every=k` reads the profile at every k-th step only and
    holds it in between; `sample_points` at the given fractions x of the decay. A step schedule is a profile that is
    sampled very rarely; the paper's "50-75" is `sample_points=(0.5, 0.75)`.

    The first six arguments are those of `keras.optimizers.schedules.CosineDecay`.

    Args:
        initial_learning_rate: The value at t = 0.
        decay_steps: Updates from the peak to the floor, a positive integer.
        alpha: The floor as a fraction of the peak, in [0, 1]. Defaults to `0.0`.
        name: A label. Defaults to the class name.
        warmup_target: The peak. Defaults to `None`: no warmup, the peak is `initial_learning_rate`.
        warmup_steps: Updates from `initial_learning_rate` to `warmup_target`. Defaults to `0`.
        profile: A `Profile`, its name or config. Defaults to `"linear"`. `"exponential"` and `"inverse_proportional"`
            end at `alpha` and need it above 0.
        sample_every: Read the profile at every k-th step of the decay. Defaults to `None`: at every step.
        sample_points: Read it at these fractions of the decay, increasing and in [0, 1); 0 is always among them. Defaults
            to `None`.

    Raises:
        ValueError: If an argument is out of its range, `warmup_steps` comes without `warmup_target`, or both kinds of
            sampling are given.

    Reference: arXiv:2107.04197.

    Example:

    >>> ProfileDecay(1.0, decay_steps=4, profile="one_minus_sqrt").values([0, 1, 4])
    array([1. , 0.5, 0. ])
    >>> ProfileDecay(1.0, decay_steps=4, sample_points=[0.5, 0.75]).values(5)
    array([1.  , 1.  , 0.5 , 0.25, 0.25])
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "ProfileDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
        profile: ProfileLike = "linear",
        sample_every: int | None = None,
        sample_points: Sequence[float] | None = None,
    ) -> None:
        self.decay_steps = validation.positive_int("decay_steps", decay_steps)
        self.alpha = validation.fraction("alpha", alpha)
        self.name = name
        self.initial_learning_rate, self.warmup_target, self.warmup_steps = checked_warmup(
            initial_learning_rate, warmup_target, warmup_steps
        )
        self.profile = profiles.get(profile, floor=self.alpha)
        self.sample_every, self.sample_points = _checked_sampling(sample_every, sample_points)
        peak = self.initial_learning_rate if self.warmup_target is None else self.warmup_target
        decay = Segment(self.decay_steps, peak, floor_of(peak, self.alpha, self.profile), self.profile)
        self.segments = [
            Segment(self.warmup_steps, self.initial_learning_rate, peak),
            *(_held(decay, self.sample_points) if self.sample_points else [decay]),
        ]

    def compute(self, step: Any, xp: Any) -> Any:
        if self.sample_every:
            since_peak = at_least(step - self.warmup_steps, 0, xp)
            step = step - since_peak % self.sample_every
        return super().compute(step, xp)

    @classmethod
    def for_budget(cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> Schedule:
        """A decay to the floor at the end of the budget."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        if warmup_steps:
            options = {"warmup_target": peak_learning_rate, "warmup_steps": warmup_steps, **options}
        return cls(0.0 if warmup_steps else peak_learning_rate, total_steps - warmup_steps, **options)


def checked_warmup(
    initial_learning_rate: float, warmup_target: float | None, warmup_steps: int
) -> tuple[float, float | None, int]:
    """The three arguments that `keras.optimizers.schedules.CosineDecay` has for its warmup, checked."""
    warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
    if warmup_target is not None:
        initial_learning_rate = validation.non_negative_float("initial_learning_rate", initial_learning_rate)
        return initial_learning_rate, validation.positive_float("warmup_target", warmup_target), warmup_steps
    if warmup_steps:
        raise ValueError(
            "`warmup_steps` needs a `warmup_target`, the value that the warmup rises to. "
            f"Received: warmup_steps={warmup_steps}, warmup_target=None"
        )
    return validation.positive_float("initial_learning_rate", initial_learning_rate), None, 0


def _checked_sampling(every: int | None, points: Sequence[float] | None) -> tuple[int | None, list[float] | None]:
    if every is not None and points is not None:
        raise ValueError(
            f"Give `sample_every` or `sample_points`, not both. Received: sample_every={every}, sample_points={points}"
        )
    if every is not None:
        return validation.positive_int("sample_every", every), None
    if points is None:
        return None, None
    fractions = validation.increasing("sample_points", points, validation.fraction)
    if not fractions or fractions[-1] == 1:
        raise ValueError(f"`sample_points` must be one or more fractions below 1. Received: sample_points={fractions}")
    return None, fractions


def _held(decay: Segment, points: Sequence[float]) -> list[Segment]:
    """The decay as constant segments: its value at each sample point, held until the next."""
    points = points if points[0] == 0 else [0.0, *points]
    values = [float(decay.value(x, 1 - x, np)) for x in map(np.float64, points)]
    lengths = [(right - left) * decay.steps for left, right in zip(points, [*points[1:], 1.0], strict=True)]
    return [Segment(length, value, value) for length, value in zip(lengths, values, strict=True)]

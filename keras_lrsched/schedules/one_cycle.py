"""1cycle: one rise to a large learning rate and one long fall, with momentum doing the opposite (Smith 2018)."""

import itertools
from collections.abc import Sequence
from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.profiles import ProfileLike
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment


@register(
    "one_cycle",
    title="1cycle",
    paper="arXiv:1708.07120",
    code=("pytorch/pytorch",),
    checked="vectors",
    against="`OneCycleLR` of PyTorch 2.13",
    deviations="the papers were not read",
    kind="learning rate",
    choices={
        "pct_start": ((0.1, 0.2, 0.3, 0.5), 0.3),
        "div_factor": ((5.0, 25.0, 100.0), 25.0),
        "anneal": (("cosine", "linear"), "cosine"),
        "three_phase": ((False, True), False),
    },
)
class OneCycle(PhasedSchedule):
    """The 1cycle policy in the two forms in use: fast.ai's two phases, and the paper's three.

    With T = `total_steps`, p = `pct_start`, initial = max / `div_factor` and floor = initial / `final_div_factor`, it goes
    along `anneal` through the points

        two phases:    (0, initial)  (p T - 1, max)  (T - 1, floor)
        three phases:  (0, initial)  (p T - 1, max)  (2 p T - 2, initial)  (T - 1, floor)

    as PyTorch's `OneCycleLR` does. The last update of the run uses the floor, which then stays.

    Args:
        peak_learning_rate: The peak, positive.
        total_steps: Updates in the run, T, a positive integer.
        pct_start: The fraction of the run until the peak. Defaults to `0.3`.
        div_factor: The peak over the first value, at least 1. Defaults to `25.0`.
        final_div_factor: The first value over the last, at least 1. Defaults to `1e4`.
        anneal: A `Profile`, its name or config, for every phase. Defaults to `"cosine"`.
        three_phase: Whether to fall back to the first value before the final descent. Defaults to `False`.
        name: A label. Defaults to `"OneCycle"`.

    Raises:
        ValueError: If an argument is out of its range or a phase would have no length.

    Reference: arXiv:1708.07120, arXiv:1803.09820; PyTorch's `OneCycleLR`.

    Example:

    >>> OneCycle(1.0, total_steps=100).values([0, 29, 99]).round(6)
    array([4.e-02, 1.e+00, 4.e-06])
    """

    total_steps: int

    def __init__(
        self,
        peak_learning_rate: float,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        anneal: ProfileLike = "cosine",
        three_phase: bool = False,
        name: str = "OneCycle",
    ) -> None:
        self.peak_learning_rate = peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
        self.div_factor = validation.at_least_one("div_factor", div_factor)
        self.final_div_factor = validation.at_least_one("final_div_factor", final_div_factor)
        self.anneal = profiles.get(anneal)
        self.three_phase = bool(validation.one_of("three_phase", three_phase, (False, True)))
        self.name = name
        initial = peak / self.div_factor
        floor = initial / self.final_div_factor
        values = [initial, peak, initial, floor] if three_phase else [initial, peak, floor]
        self.pct_start = validation.inner_fraction("pct_start", pct_start)
        self.segments = _cycle(total_steps, self.pct_start, values, self.anneal)
        self.total_steps = int(total_steps)

    def momentum(self, base_momentum: float = 0.85, max_momentum: float = 0.95) -> "OneCycleMomentum":
        """The momentum that goes with it: `base_momentum` where the learning rate peaks, `max_momentum` at both ends."""
        return OneCycleMomentum(self.total_steps, base_momentum, max_momentum, self.pct_start, self.anneal, self.three_phase)

    @classmethod
    def for_budget(cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> Schedule:
        """The cycle over the whole budget. Its rise is its warmup, so `warmup_steps` is only checked."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        return cls(peak_learning_rate, total_steps, **options)


@register(
    title="momentum of 1cycle",
    paper="arXiv:1708.07120",
    code=("pytorch/pytorch",),
    checked="vectors",
    against="`OneCycleLR` of PyTorch 2.13",
    deviations="the papers were not read",
    kind="momentum",
)
class OneCycleMomentum(PhasedSchedule):
    """The momentum of the 1cycle policy: high while the learning rate is low, and the other way round.

    It goes along `anneal` through the points (0, max), (p T - 1, base), (T - 1, max) in two phases, and through (0, max),
    (p T - 1, base), (2 p T - 2, max), (T - 1, max) in three.

    Args:
        total_steps: Updates in the run, T, a positive integer.
        base_momentum: The value where the learning rate peaks. Defaults to `0.85`.
        max_momentum: The value at the start and the end. Defaults to `0.95`.
        pct_start: The fraction of the run until the peak. Defaults to `0.3`.
        anneal: A `Profile`, its name or config. Defaults to `"cosine"`.
        three_phase: As in `OneCycle`. Defaults to `False`.
        name: A label. Defaults to `"OneCycleMomentum"`.

    Raises:
        ValueError: If an argument is out of its range or a phase would have no length.

    Reference: as `OneCycle`.

    Example:

    >>> OneCycle(1.0, total_steps=100).momentum().values([0, 29, 99])
    array([0.95, 0.85, 0.95])
    """

    def __init__(
        self,
        total_steps: int,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        pct_start: float = 0.3,
        anneal: ProfileLike = "cosine",
        three_phase: bool = False,
        name: str = "OneCycleMomentum",
    ) -> None:
        self.base_momentum = low = validation.fraction("base_momentum", base_momentum)
        self.max_momentum = high = validation.fraction("max_momentum", max_momentum)
        self.anneal = profiles.get(anneal)
        self.three_phase = bool(validation.one_of("three_phase", three_phase, (False, True)))
        self.name = name
        values = [high, low, high, high] if three_phase else [high, low, high]
        self.pct_start = validation.inner_fraction("pct_start", pct_start)
        self.segments = _cycle(total_steps, self.pct_start, values, self.anneal)
        self.total_steps = int(total_steps)


def _cycle(total_steps: int, pct_start: float, values: Sequence[float], anneal: profiles.Profile) -> list[Segment]:
    """The segments between three or four values. Their lengths need not be whole numbers of steps."""
    total_steps = validation.positive_int("total_steps", total_steps)
    rise = pct_start * total_steps - 1
    lengths = [rise] * (len(values) - 2)
    lengths.append(total_steps - 1 - sum(lengths))
    if min(lengths) <= 0:
        raise ValueError(
            "The run is too short for its phases, or `pct_start` too large. "
            f"Received: total_steps={total_steps}, pct_start={pct_start}"
        )
    return [Segment(steps, *ends, anneal) for steps, ends in zip(lengths, itertools.pairwise(values), strict=True)]

"""Power decay to zero: the optimum under the functional scaling law (arXiv:2602.06797)."""

from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.phased_schedule import PhasedSchedule
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment
from keras_lrsched.schedules.warmup_stable_decay import split_budget


@register(
    "power_to_zero",
    title="power decay to zero, by the capacity of the task",
    paper="arXiv:2602.06797",
    checked="read",
    against="the abstract, and our own derivation, which a search over schedules confirmed",
    deviations="no official code; warmup is an addition",
    kind="learning rate",
    choices={"capacity": ((1.0, 1.25, 1.5, 2.0), 1.5), "decay_fraction": ((0.1, 0.2, 0.4, 1.0), 1.0)},
)
class PowerDecayToZero(PhasedSchedule):
    """Decay by a power of what is left, which follows from the capacity of the task: the optimum of a theory of SGD.

    With W, S, D = `warmup_steps`, `stable_steps`, `decay_steps` and x = (t - W - S) / D:

        t < W:         peak * t / W
        W <= t < W+S:  peak
        t >= W + S:    peak * (1 - x)^(2 * capacity - 1), from t = W + S + D on 0

    The theory is that of kernel regression, where the eigenvalues fall as i^-capacity; `laws.FunctionalLaw` has its form for
    networks. On easy tasks, those with a source of at least 1 - 1 / capacity, the decay takes the whole run, and the best
    peak falls with its length (`laws.scaling.power_decay_exponents`). On hard ones the peak is the largest stable rate, held
    for all but a part of the run that shrinks with its length (`laws.scaling.power_decay_fraction`).

    The capacity of a network's task is not known: compare a few. 1 is `LinearDecay`, 1.5 a square. The power is a limit that
    is reached slowly: in the theory's own formula for a finite run, with source 1 and capacity 2, the best power is 1 for
    2,000 updates, 1.5 for 20,000 and 2 for 200,000, not 3. Each has its own best peak; at that of a line, all higher powers
    lose to it.

    Args:
        peak_learning_rate: The peak, positive.
        decay_steps: Updates of the decay, D, a positive integer.
        capacity: At least 1. Defaults to `1.5`.
        stable_steps: Updates at the peak, S. Defaults to `0`.
        warmup_steps: Updates until the peak, W. Defaults to `0`.
        name: A label. Defaults to `"PowerDecayToZero"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: arXiv:2602.06797.

    Example:

    >>> PowerDecayToZero(1.0, decay_steps=1000, capacity=2.0).values([0, 250, 500, 1000])
    array([1.      , 0.421875, 0.125   , 0.      ])
    """

    def __init__(
        self,
        peak_learning_rate: float,
        decay_steps: int,
        capacity: float = 1.5,
        stable_steps: int = 0,
        warmup_steps: int = 0,
        name: str = "PowerDecayToZero",
    ) -> None:
        self.peak_learning_rate = peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
        self.decay_steps = validation.positive_int("decay_steps", decay_steps)
        self.capacity = validation.at_least_one("capacity", capacity)
        self.stable_steps = validation.non_negative_int("stable_steps", stable_steps)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        self.name = name
        self.segments = [
            Segment(self.warmup_steps, 0.0, peak),
            Segment(self.stable_steps, peak, peak),
            Segment(self.decay_steps, peak, 0.0, profiles.polynomial(2 * self.capacity - 1)),
        ]

    @classmethod
    def for_budget(
        cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, decay_fraction: float = 1.0, **options: Any
    ) -> Schedule:
        """A decay over the last `decay_fraction` of the budget; by default over all that the warmup leaves."""
        warmup, stable, decay = split_budget(total_steps, warmup_steps, decay_fraction)
        return cls(peak_learning_rate, decay, stable_steps=stable, warmup_steps=warmup, **options)

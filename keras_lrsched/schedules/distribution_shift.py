"""Learning rates for a target that moves (after Fahrbach et al. 2023): our own greedy rule for linear regression."""

from collections.abc import Sequence
from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules.schedule import Schedule, Warmup
from keras_lrsched.schedules.tabulated import Tabulated


@register(
    "distribution_shift",
    title="greedy for a drifting target (ours)",
    paper="arXiv:2303.15634",
    deviations=(
        "the paper for the idea alone; its formulas were not available, and the authors' repository has no "
        "schedule: this rule is ours"
    ),
    kind="learning rate",
    choices={"drift": ((0.0, 0.01, 0.1), 0.01)},
)
class DistributionShift(Schedule):
    """The learning rate that is best for the next step of SGD on a linear regression whose solution drifts. Ours.

    For inputs of unit covariance in d dimensions, batches of B, label noise of variance s2, v_t = E |theta_t - target_t|^2:

        value(t) = scale * lr_t,   lr_t = v_t / (v_t * (1 + (d + 1) / B) + s2 * d / B)
        v_(t+1) = v_t * (1 - lr_t) + drift_t^2

    Without drift it falls like 1 / t; with a steady one to a plateau; after a jump of the target it rises. The recursion
    runs once, in float64, and is looked up: the schedule holds `total_steps` numbers.

    Args:
        total_steps: Updates in the run, a positive integer; the last value stays.
        dimension: d, a positive integer. Defaults to `10`.
        batch_size: B, a positive integer. Defaults to `8`.
        noise_variance: s2, positive. Defaults to `0.25`.
        initial_error: v_0, positive. Defaults to `1.0`.
        drift: How far the target moves after an update: a non-negative number, or a list of `total_steps` of them. Defaults
            to `0.0`.
        scale: A factor on all values, for problems whose covariance is not 1. Defaults to `1.0`.
        name: A label. Defaults to `"DistributionShift"`.

    Raises:
        ValueError: If an argument is out of its range, or the list has another length.

    Reference: arXiv:2303.15634, for the idea that the best learning rate rises when the distribution shifts.

    Example:

    >>> DistributionShift(200).values([0, 1, 10, 199]).round(6)
    array([0.372093, 0.348106, 0.125285, 0.005207])
    >>> DistributionShift(4, drift=[0, 1, 0, 0]).values(4).round(3)
    array([0.372, 0.348, 0.385, 0.366])
    """

    def __init__(
        self,
        total_steps: int,
        dimension: int = 10,
        batch_size: int = 8,
        noise_variance: float = 0.25,
        initial_error: float = 1.0,
        drift: float | Sequence[float] = 0.0,
        scale: float = 1.0,
        name: str = "DistributionShift",
    ) -> None:
        self.total_steps = steps = validation.positive_int("total_steps", total_steps)
        self.dimension = validation.positive_int("dimension", dimension)
        self.batch_size = validation.positive_int("batch_size", batch_size)
        self.noise_variance = validation.positive_float("noise_variance", noise_variance)
        self.initial_error = validation.positive_float("initial_error", initial_error)
        self.drift = _checked_drift(drift, steps)
        self.scale = validation.positive_float("scale", scale)
        self.name = name
        self._table = Tabulated(self._greedy(self.drift if isinstance(self.drift, list) else [self.drift] * steps))

    def _greedy(self, drifts: list[float]) -> list[float]:
        error = self.initial_error
        spread = 1 + (self.dimension + 1) / self.batch_size
        noise = self.noise_variance * self.dimension / self.batch_size
        rates = []
        for drift in drifts:
            rate = error / (error * spread + noise)
            rates.append(self.scale * rate)
            error = error * (1 - rate) + drift**2
        return rates

    def compute(self, step: Any, xp: Any) -> Any:
        return self._table.compute(step, xp)

    @classmethod
    def for_budget(cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> Schedule:
        """Scaled so that its largest value is the peak; behind a linear warmup, if there is one. No size is usual."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        peak = validation.positive_float("peak_learning_rate", peak_learning_rate)
        steps = total_steps - warmup_steps
        schedule = cls(steps, **{"scale": peak / max(cls(steps, **options).values(steps)), **options})
        return Warmup(schedule, warmup_steps) if warmup_steps else schedule


def _checked_drift(drift: float | Sequence[float], total_steps: int) -> float | list[float]:
    if not isinstance(drift, (list, tuple)):
        return validation.non_negative_float("drift", drift)
    if len(drift) != total_steps:
        raise ValueError(
            "`drift` must be a number, or a list of `total_steps` numbers. "
            f"Received: drift={drift!r:.200} of length {len(drift)}, total_steps={total_steps}"
        )
    return [validation.non_negative_float("drift", distance) for distance in drift]

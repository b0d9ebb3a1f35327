"""Steps behind a warmup: "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour" (Goyal et al. 2017)."""

from collections.abc import Sequence
from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules.chain import Chain
from keras_lrsched.schedules.schedule import Constant, Schedule, Warmup


@register(
    "step",
    title="steps behind a warmup",
    paper="arXiv:1706.02677",
    checked="memory",
    kind="learning rate",
    choices={"factor": ((0.1, 0.2, 0.5), 0.1)},
)
class StepDecayWithWarmup(Schedule):
    """The linear scaling rule: for a k times larger batch, warm up from the base value to k times it, then go down in steps.

    With W = `warmup_steps`, k = `batch_scale`:

        t < W:   base * (1 + (k - 1) * t / W)
        t >= W:  base * k * factor^m,  m = the number of boundaries b <= t

    The paper has k = batch / 256, 5 epochs of warmup, and boundaries at epochs 30, 60 and 80 of 90, warmup included. For
    Adam and its kin the usual rule is k = sqrt(batch / 256) (arXiv:2006.09092).

    Args:
        base_learning_rate: The value that suits the usual batch, and the first one; 0.1 in the paper.
        warmup_steps: Updates until the peak, W. May be `0`.
        boundaries: The steps at which the value falls, strictly increasing, all above W; they count from t = 0.
        batch_scale: k, at least 1. Defaults to `1.0`.
        factor: What each boundary multiplies the value by, in (0, 1). Defaults to `0.1`.
        name: A label. Defaults to `"StepDecayWithWarmup"`.

    Raises:
        ValueError: If an argument is out of its range, or the boundaries are out of order or not behind the warmup.

    Reference: arXiv:1706.02677.

    Example:

    >>> schedule = StepDecayWithWarmup(0.1, warmup_steps=50, boundaries=[300, 600, 800], batch_scale=32)
    >>> schedule.values([0, 25, 50, 299, 300, 600, 800])
    array([0.1   , 1.65  , 3.2   , 3.2   , 0.32  , 0.032 , 0.0032])
    """

    def __init__(
        self,
        base_learning_rate: float,
        warmup_steps: int,
        boundaries: Sequence[int],
        batch_scale: float = 1.0,
        factor: float = 0.1,
        name: str = "StepDecayWithWarmup",
    ) -> None:
        self.base_learning_rate = validation.positive_float("base_learning_rate", base_learning_rate)
        self.warmup_steps = validation.non_negative_int("warmup_steps", warmup_steps)
        self.boundaries = validation.increasing("boundaries", boundaries, validation.positive_int)
        if not self.boundaries or self.boundaries[0] <= self.warmup_steps:
            raise ValueError(
                "`boundaries` must be one or more steps, all above `warmup_steps`. "
                f"Received: boundaries={self.boundaries}, warmup_steps={self.warmup_steps}"
            )
        self.batch_scale = validation.at_least_one("batch_scale", batch_scale)
        self.factor = validation.inner_fraction("factor", factor)
        self.name = name
        peak = self.base_learning_rate * self.batch_scale
        levels = [Constant(peak * self.factor**n) for n in range(len(self.boundaries) + 1)]
        self._schedule = Chain(levels, [boundary - self.warmup_steps for boundary in self.boundaries])
        if self.warmup_steps:
            self._schedule = Warmup(self._schedule, self.warmup_steps, warmup_start=1 / self.batch_scale)

    def compute(self, step: Any, xp: Any) -> Any:
        return self._schedule.compute(step, xp)

    @classmethod
    def for_budget(
        cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, batch_scale: float = 32.0, **options: Any
    ) -> Schedule:
        """Steps at 3, 6 and 8 ninths of the budget, but behind the warmup, which rises from a 32nd of the peak."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        base = validation.positive_float("peak_learning_rate", peak_learning_rate) / validation.at_least_one(
            "batch_scale", batch_scale
        )
        boundaries = sorted({max(warmup_steps + 1, round(total_steps * ninths / 9)) for ninths in (3, 6, 8)})
        return cls(base, warmup_steps, **{"boundaries": boundaries, "batch_scale": batch_scale, **options})

"""Inverse-square-root decay, the schedule without an end of the first transformers."""

from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules._arrays import at_least, to_float
from keras_lrsched.schedules.profile_decay import checked_warmup
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.segment import Segment, progress


@register(
    "inverse_sqrt",
    title="inverse square root",
    paper="arXiv:1706.03762",
    code=("stanford-crfm/levanter",),
    checked="vectors",
    against="`inv_sqrt` of Levanter",
    deviations="the paper for the idea alone",
    kind="learning rate",
    choices={"alpha": ((0.0, 0.4, 0.6), 0.0)},
)
class InverseSqrtDecay(Schedule):
    """Decay with one over the square root of the update count, behind an optional linear warmup; it never ends.

    With W = `warmup_steps` and peak = `warmup_target` (or `initial_learning_rate`, without a warmup):

        t < W:   initial + (peak - initial) * t / W
        t >= W:  max(alpha * peak, peak * sqrt(min(1, decay_steps / t)))

    `decay_steps` is the time scale: the value stays at the peak until then, is half of it at four times as many updates,
    and a tenth at a hundred times. `decay_steps = warmup_steps` is the classical schedule peak * min(t / W, sqrt(W / t)).
    The count t includes the warmup.

    Args:
        initial_learning_rate: The value at t = 0.
        decay_steps: The time scale in updates, a positive integer, at least `warmup_steps`.
        alpha: The floor as a fraction of the peak, in [0, 1]. Defaults to `0.0`.
        name: A label. Defaults to `"InverseSqrtDecay"`.
        warmup_target: The peak. Defaults to `None`: no warmup, the peak is `initial_learning_rate`.
        warmup_steps: Updates from `initial_learning_rate` to `warmup_target`. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of its range, `warmup_steps` comes without `warmup_target` or is longer than
            `decay_steps`.

    Reference: arXiv:1706.03762, for the idea; `inv_sqrt` in stanford-crfm/levanter.

    Example:

    >>> InverseSqrtDecay(0.0, decay_steps=100, warmup_target=1.0, warmup_steps=100).values([0, 50, 100, 400, 10_000])
    array([0. , 0.5, 1. , 0.5, 0.1])
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "InverseSqrtDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.decay_steps = validation.positive_int("decay_steps", decay_steps)
        self.alpha = validation.fraction("alpha", alpha)
        self.name = name
        self.initial_learning_rate, self.warmup_target, self.warmup_steps = checked_warmup(
            initial_learning_rate, warmup_target, warmup_steps
        )
        if self.warmup_steps > self.decay_steps:
            raise ValueError(
                "`warmup_steps` must not exceed `decay_steps`, or the value would jump down when the warmup ends. "
                f"Received: warmup_steps={warmup_steps}, decay_steps={decay_steps}"
            )
        self._peak = self.initial_learning_rate if self.warmup_target is None else self.warmup_target
        self._rise = Segment(self.warmup_steps, self.initial_learning_rate, self._peak)

    def compute(self, step: Any, xp: Any) -> Any:
        count = to_float(at_least(step, self.decay_steps, xp), xp)
        value = self._peak * xp.sqrt(self.decay_steps / count)
        if self.alpha:
            value = at_least(value, self.alpha * self._peak, xp)
        if not self.warmup_steps:
            return value
        done, left = progress(step, 0, self.warmup_steps, xp)
        rise = self._rise.value(done, left, xp)
        return xp.where(step < self.warmup_steps, rise, value)

    @classmethod
    def for_budget(cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> Schedule:
        """A decay from the end of the warmup on; without one, from a tenth of the budget."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        if not warmup_steps:
            return cls(peak_learning_rate, max(1, total_steps // 10), **options)
        return cls(0.0, warmup_steps, warmup_target=peak_learning_rate, warmup_steps=warmup_steps, **options)

"""Noam, the schedule of "Attention Is All You Need" (Vaswani et al. 2017)."""

from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules._arrays import at_least
from keras_lrsched.schedules.inverse_sqrt_decay import InverseSqrtDecay
from keras_lrsched.schedules.schedule import Schedule


@register(
    "noam",
    title="Noam",
    paper="arXiv:1706.03762",
    code=("google/init2winit",),
    checked="read",
    against="`transformer_schedule` of init2winit",
    kind="learning rate",
)
class NoamDecay(InverseSqrtDecay):
    """A linear warmup and then one over the square root of the update count, with the width of the model as its scale.

    With s = t + 1, the number of the update that uses the value:

        scale * d_model^-0.5 * min(s^-0.5, s * warmup_steps^-1.5)

    The peak is scale / sqrt(d_model * warmup_steps), at t = warmup_steps - 1. The first update is not wasted on a 0.

    Args:
        d_model: The width of the model, a positive integer; 512 in the paper.
        warmup_steps: Updates until the peak, a positive integer. Defaults to `4000`, as in the paper.
        scale: A factor on all values. Defaults to `1.0`.
        name: A label. Defaults to `"NoamDecay"`.

    Raises:
        ValueError: If an argument is not positive.

    Reference: arXiv:1706.03762; s = t + 1 as in google/init2winit.

    Example:

    >>> NoamDecay(512).values([0, 399, 3999, 15_999])
    array([1.74692811e-07, 6.98771243e-05, 6.98771243e-04, 3.49385621e-04])
    """

    def __init__(self, d_model: int, warmup_steps: int = 4000, scale: float = 1.0, name: str = "NoamDecay") -> None:
        self.d_model = validation.positive_int("d_model", d_model)
        warmup_steps = validation.positive_int("warmup_steps", warmup_steps)
        self.scale = validation.positive_float("scale", scale)
        peak = self.scale * (self.d_model * warmup_steps) ** -0.5
        super().__init__(0.0, warmup_steps, name=name, warmup_target=peak, warmup_steps=warmup_steps)

    def compute(self, step: Any, xp: Any) -> Any:
        return super().compute(at_least(step, 0, xp) + 1, xp)

    @classmethod
    def for_budget(
        cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, d_model: int = 512, **options: Any
    ) -> Schedule:
        """The peak at t = `warmup_steps`. The schedule needs a warmup: `0` stands for a tenth of the budget."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        rise = (warmup_steps or total_steps // 10) + 1
        scale = validation.positive_float("peak_learning_rate", peak_learning_rate) * (d_model * rise) ** 0.5
        return cls(d_model, rise, **{"scale": scale, **options})

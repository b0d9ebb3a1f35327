"""The schedule of "Reuse, Don't Retrain" for continued pre-training (Parmar et al. 2024): no warmup, a deep cosine."""

import bisect
from typing import Any

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules.profile_decay import ProfileDecay
from keras_lrsched.schedules.schedule import Schedule, Warmup


@register(
    "continued_pretraining",
    title="cosine to a hundredth (Reuse, Don't Retrain)",
    paper="arXiv:2407.07263",
    checked="memory",
    against="two secondary notes, which agree on all numbers",
    deviations="no official code; the body of the paper was not read",
    kind="learning rate",
    choices={"alpha": ((0.0, 0.01, 0.1, 0.3), 0.01)},
)
class ContinuedPretraining(ProfileDecay):
    """A cosine from the last value of pre-training to a hundredth of it, without a warmup.

        initial * (alpha + (1 - alpha) * (1 + cos(pi * x)) / 2),  x = min(t, decay_steps) / decay_steps

    The data changes, too: from the general blend to the one with questions and answers, when the value has come down to a
    fifth of the first; `switch_step` returns that step. With `alpha=0.01` that is at x = 0.711313.

    Args:
        initial_learning_rate: The value at t = 0: the lowest value of pre-training, 4.5e-5 in the paper.
        decay_steps: Updates until the floor, a positive integer.
        alpha: The floor as a fraction of the first value, in [0, 1]. Defaults to `0.01`.
        name: A label. Defaults to `"ContinuedPretraining"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: arXiv:2407.07263.

    Example:

    >>> schedule = ContinuedPretraining(4.5e-5, decay_steps=1000)
    >>> schedule.values([0, 500, 1000])
    array([4.5000e-05, 2.2725e-05, 4.5000e-07])
    >>> schedule.switch_step()
    712
    """

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, alpha: float = 0.01, name: str = "ContinuedPretraining"
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps, alpha, name, profile="cosine")

    def switch_step(self, fraction: float = 0.2) -> int:
        """The first step whose value is at most `fraction` of the first: the one from which to train on the second blend.

        Raises:
            ValueError: If `fraction` lies below `alpha`: no step is worth so little.
        """
        fraction = validation.positive_fraction("fraction", fraction)
        if fraction < self.alpha:
            raise ValueError(f"`fraction` must not lie below `alpha`. Received: fraction={fraction}, alpha={self.alpha}")
        fallen = -fraction * self.initial_learning_rate
        return bisect.bisect_left(range(self.decay_steps), fallen, key=lambda step: -self.compute(step, np))

    @classmethod
    def for_budget(cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> Schedule:
        """A decay to the floor at the end of the budget. The paper has no warmup; `warmup_steps` come in front."""
        validation.shorter("warmup_steps", warmup_steps, "total_steps", total_steps)
        schedule = cls(peak_learning_rate, total_steps - warmup_steps, **options)
        return Warmup(schedule, warmup_steps) if warmup_steps else schedule

"""REX, the reflected exponential schedule for budgeted training (Chen, Wolfe & Kyrillidis, MLSys 2022)."""

from collections.abc import Sequence

from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.profile_decay import ProfileDecay


@register(
    "rex",
    title="REX",
    paper="arXiv:2107.04197",
    checked="read",
    against="three independent implementations",
    deviations="no official code; warmup is no part of the paper",
    kind="learning rate",
    choices={"a": ((0.1, 0.25, 0.5, 0.75, 0.9), 0.5), "alpha": ((0.0, 0.01, 0.1, 0.3), 0.0)},
)
class REXDecay(ProfileDecay):
    """REX: stays high for longer than a line and falls faster at the end, behind an optional linear warmup.

    With W = `warmup_steps`, T = W + `decay_steps`, peak = `warmup_target` (or `initial_learning_rate`, without a warmup):

        t < W:   initial + (peak - initial) * t / W
        t >= W:  peak * (alpha + (1 - alpha) * (1 - x) / (a + b * (1 - x))),  x = min(t - W, decay_steps) / decay_steps

    Two incompatible formulas circulate. The paper's, which is the default, has a = b = 1/2. Code by other hands often has
    `a=0.1, b=0.9`, which holds 0.91 instead of 0.67 of the peak at half time.

    Args:
        initial_learning_rate: The value at t = 0.
        decay_steps: Updates from the peak to the floor, a positive integer.
        alpha: The floor as a fraction of the peak, in [0, 1]. Defaults to `0.0`.
        name: A label. Defaults to `"REXDecay"`.
        warmup_target: The peak. Defaults to `None`: no warmup, the peak is `initial_learning_rate`. Warmup is no part of
            the paper.
        warmup_steps: Updates from `initial_learning_rate` to `warmup_target`. Defaults to `0`.
        a: Positive, and a + b = 1. Defaults to `0.5`.
        b: See `a`. Defaults to `0.5`.
        sample_every: Read the profile at every k-th step of the decay. Defaults to `None`: at every step, as the paper
            recommends.
        sample_points: Read it at these fractions of the decay only. Defaults to `None`.

    Raises:
        ValueError: If an argument is out of its range, or `warmup_steps` comes without `warmup_target`.

    Reference: arXiv:2107.04197.

    Example:

    >>> REXDecay(1.0, decay_steps=1000).values([0, 500, 750, 1000])
    array([1.        , 0.66666667, 0.4       , 0.        ])
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "REXDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
        a: float = 0.5,
        b: float = 0.5,
        sample_every: int | None = None,
        sample_points: Sequence[float] | None = None,
    ) -> None:
        profile = profiles.rex(a, b)
        self.a, self.b = profile.parameters["a"], profile.parameters["b"]
        super().__init__(
            initial_learning_rate,
            decay_steps,
            alpha,
            name,
            warmup_target,
            warmup_steps,
            profile=profile,
            sample_every=sample_every,
            sample_points=sample_points,
        )

"""Moderate decay for a curriculum: the best data comes last, so the learning rate must not be spent by then (2025)."""

from keras_lrsched._core.registry import register
from keras_lrsched.schedules.warmup_stable_decay import WarmupStableDecay


@register(
    "moderate",
    title="moderate decay for a curriculum",
    paper="arXiv:2511.18903",
    checked="memory",
    against="two secondary notes, which agree",
    deviations="neither text nor code was read",
    kind="learning rate",
    choices={
        "alpha": ((0.1, 0.2, 0.3333333333333333, 0.5), 0.3333333333333333),
        "decay_fraction": ((0.1, 0.2, 0.4, 0.8), 0.2),
    },
)
class ModerateDecay(WarmupStableDecay):
    """WSD that comes down to a third of the peak only, for training data that is sorted from poor to good.

    With W, S, D = `warmup_steps`, `stable_steps`, `decay_steps` and r = min(t - W - S, D) / D:

        t < W:           peak * (warmup_start + (1 - warmup_start) * t / W)
        W <= t < W + S:  peak
        t >= W + S:      peak * (1 - sqrt(r)) + alpha * peak * sqrt(r)

    The paper's pair is 3e-3 to 1e-3, where 3e-3 to 1e-5 is best for data in random order; it goes further with an average of
    the last checkpoints.

    Args:
        peak_learning_rate: The value of the stable phase, positive.
        warmup_steps: Updates until the peak, W. May be `0`.
        stable_steps: Updates at the peak, S. May be `0`.
        decay_steps: Updates of the decay, D, a positive integer.
        alpha: The floor as a fraction of the peak, in [0, 1]. Defaults to `1 / 3`.
        warmup_start: The value at t = 0 as a fraction of the peak, in [0, 1]. Defaults to `0.0`.
        name: A label. Defaults to `"ModerateDecay"`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: arXiv:2511.18903.

    Example:

    >>> ModerateDecay(3e-3, 0, 0, decay_steps=100).values([0, 25, 50, 100])
    array([0.003     , 0.002     , 0.00158579, 0.001     ])
    """

    def __init__(
        self,
        peak_learning_rate: float,
        warmup_steps: int,
        stable_steps: int,
        decay_steps: int,
        alpha: float = 1 / 3,
        warmup_start: float = 0.0,
        name: str = "ModerateDecay",
    ) -> None:
        super().__init__(
            peak_learning_rate, warmup_steps, stable_steps, decay_steps, "one_minus_sqrt", alpha, warmup_start, name
        )

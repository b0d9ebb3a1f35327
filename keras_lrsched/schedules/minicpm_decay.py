"""The schedule of MiniCPM (Hu et al. 2024): warmup, a constant, and a decay that is given by its half-life."""

from typing import Any

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.warmup_stable_decay import WarmupStableDecay, split_budget


@register(
    "minicpm",
    title="warmup-stable-decay with a half-life (MiniCPM)",
    paper="arXiv:2404.06395",
    checked="read",
    against="the paper, sections 4.2 and 6.2",
    deviations="no code; the half-life is our reading of a misprint",
    kind="learning rate",
    choices={"decay_fraction": ((0.05, 0.1, 0.2, 0.4), 0.1)},
)
class MiniCPMDecay(WarmupStableDecay):
    """WSD as its paper has it: the decay halves the value every `half_life` updates; it does not reach 0.

    With W, S, D, h = `warmup_steps`, `stable_steps`, `decay_steps`, `half_life`:

        t < W:              peak * (warmup_start + (1 - warmup_start) * t / W)
        W <= t < W + S:     peak
        t >= W + S:         peak * 0.5^((t - W - S) / h), from t = W + S + D on constant

    The paper prints 0.5^((s - S) / T) with S, the end of training, before which the exponent would be negative and the value
    above the peak; we read S as the start of the decay, the only sensible way, and T as the half-life.

    Args:
        peak_learning_rate: The value of the stable phase, positive; 0.01 in the paper, in units of muP.
        warmup_steps: Updates until the peak, W. May be `0`.
        stable_steps: Updates at the peak, S. May be `0`.
        decay_steps: Updates of the decay, D, a positive integer; in the paper a tenth of the run, as 2.5 % was too short.
        half_life: Updates in which the value falls to a half, h, at least a fortieth of D. Defaults to `5000.0`, as in the
            paper, where that is 20 billion tokens.
        warmup_start: The value at t = 0 as a fraction of the peak, in [0, 1]. Defaults to `0.0`.
        name: A label. Defaults to `"MiniCPMDecay"`.

    Raises:
        ValueError: If an argument is out of its range, or the decay has more than forty half-lives, or next to none.

    Reference: arXiv:2404.06395, sections 4.2 and 6.2.

    Example:

    >>> MiniCPMDecay(1.0, 0, 100, decay_steps=10_000).values([100, 5_100, 10_100, 20_000])
    array([1.  , 0.5 , 0.25, 0.25])
    """

    def __init__(
        self,
        peak_learning_rate: float,
        warmup_steps: int,
        stable_steps: int,
        decay_steps: int,
        half_life: float = 5000.0,
        warmup_start: float = 0.0,
        name: str = "MiniCPMDecay",
    ) -> None:
        self.half_life = validation.positive_float("half_life", half_life)
        half_lives = validation.positive_int("decay_steps", decay_steps) / self.half_life
        if not 1e-9 < half_lives <= 40:
            raise ValueError(
                "`decay_steps` must be at most 40 times `half_life`, and not a vanishing part of it. "
                f"Received: decay_steps={decay_steps}, half_life={half_life}"
            )
        cooldown = profiles.exponential(0.5**half_lives)
        super().__init__(
            peak_learning_rate, warmup_steps, stable_steps, decay_steps, cooldown, warmup_start=warmup_start, name=name
        )

    @classmethod
    def for_budget(
        cls, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, decay_fraction: float = 0.1, **options: Any
    ) -> Schedule:
        """A decay over the last tenth of the budget, to a sixteenth of the peak (four half-lives, which is our choice)."""
        steps = split_budget(total_steps, warmup_steps, decay_fraction)
        return cls(peak_learning_rate, *steps, **{"half_life": steps[-1] / 4, **options})

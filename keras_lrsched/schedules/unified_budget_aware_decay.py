"""UBA, the unified budget-aware schedule ("Stepsize anything", Tang et al., NeurIPS 2025)."""

from keras_lrsched._core.registry import register
from keras_lrsched.schedules import profiles
from keras_lrsched.schedules.profile_decay import ProfileDecay


@register(
    "uba",
    title="unified budget-aware (UBA)",
    paper="arXiv:2505.24452",
    checked="read",
    against="a third-party implementation",
    deviations=(
        'no official code found, and most public "UBA" code is another formula; the form with several cycles is '
        "not implemented; the ranges of phi are from memory"
    ),
    kind="learning rate",
    choices={"phi": ((0.25, 0.5, 1.0, 2.0, 5.0, 10.0), 1.0), "alpha": ((0.0, 0.01, 0.1, 0.3), 0.0)},
)
class UnifiedBudgetAwareDecay(ProfileDecay):
    """UBA: one parameter bends the decay from nearly constant over cosine to early and steep.

    With W = `warmup_steps`, T = W + `decay_steps`, peak = `warmup_target` (or `initial_learning_rate`, without a warmup):

        t < W:   initial + (peak - initial) * t / W
        t >= W:  peak * (alpha + (1 - alpha) * 2 c / (2 phi + (2 - phi) c)),
                 c = 1 + cos(pi * x),  x = min(t - W, decay_steps) / decay_steps

    phi = 2 is the cosine. The paper ties phi to the condition number: about 0.25 to 1 for SGD on vision, up to 5 or 10 for
    ill-conditioned problems and AdamW (these ranges are from memory, unverified).

    Args:
        initial_learning_rate: The value at t = 0.
        decay_steps: Updates from the peak to the floor, a positive integer.
        alpha: The floor as a fraction of the peak, in [0, 1]. Defaults to `0.0`.
        name: A label. Defaults to `"UnifiedBudgetAwareDecay"`.
        warmup_target: The peak. Defaults to `None`: no warmup, the peak is `initial_learning_rate`.
        warmup_steps: Updates from `initial_learning_rate` to `warmup_target`. Defaults to `0`.
        phi: The shape, a positive number. Defaults to `1.0`.

    Raises:
        ValueError: If an argument is out of its range, or `warmup_steps` comes without `warmup_target`.

    Reference: arXiv:2505.24452.

    Example:

    >>> UnifiedBudgetAwareDecay(1.0, decay_steps=1000, phi=0.5).values([0, 500, 1000])
    array([1. , 0.8, 0. ])
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "UnifiedBudgetAwareDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
        phi: float = 1.0,
    ) -> None:
        profile = profiles.uba(phi)
        self.phi = profile.parameters["phi"]
        super().__init__(initial_learning_rate, decay_steps, alpha, name, warmup_target, warmup_steps, profile=profile)

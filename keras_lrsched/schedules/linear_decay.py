"""Linear decay to zero, or to a floor."""

from keras_lrsched._core.registry import register
from keras_lrsched.schedules.profile_decay import ProfileDecay


@register(
    "linear",
    title="linear decay to zero (D2Z)",
    paper="arXiv:2502.15938",
    checked="memory",
    against="a detailed summary of the paper",
    kind="learning rate",
    choices={"alpha": ((0.0, 0.01, 0.1, 0.3), 0.0)},
)
class LinearDecay(ProfileDecay):
    """Linear decay, behind an optional linear warmup; to zero, which is what two papers recommend.

    With W = `warmup_steps`, T = W + `decay_steps`, peak = `warmup_target` (or `initial_learning_rate`, without a warmup):

        t < W:        initial + (peak - initial) * t / W
        W <= t <= T:  peak * (alpha + (1 - alpha) * (T - t) / decay_steps)
        t > T:        alpha * peak

    "Straight to Zero" (D2Z) finds `alpha=0` better than the customary 0.1 at 20 or more training tokens a parameter, and
    its best peak higher: tune the peak again. The schedule is also the worst-case optimum for the last iterate of convex
    problems. The last update uses peak / decay_steps, not 0. D2Z warms up over 10 % of the run.

    Args:
        initial_learning_rate: The value at t = 0.
        decay_steps: Updates from the peak to the floor, a positive integer.
        alpha: The floor as a fraction of the peak, in [0, 1]. Defaults to `0.0`.
        name: A label. Defaults to `"LinearDecay"`.
        warmup_target: The peak. Defaults to `None`: no warmup, the peak is `initial_learning_rate`.
        warmup_steps: Updates from `initial_learning_rate` to `warmup_target`. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of its range, or `warmup_steps` comes without `warmup_target`.

    Reference: arXiv:2502.15938 (D2Z), arXiv:2310.07831 (theory).

    Example:

    >>> LinearDecay(0.0, decay_steps=900, warmup_target=1.0, warmup_steps=100).values([0, 50, 100, 550, 1000])
    array([0. , 0.5, 1. , 0.5, 0. ])
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "LinearDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps, alpha, name, warmup_target, warmup_steps, profile="linear")

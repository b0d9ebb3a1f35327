"""The largest initial learning rate from which a fresh network still learns."""

from collections.abc import Callable

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register


@register(
    "maximal_learning_rate",
    title="maximal initial learning rate",
    paper="arXiv:2212.07295",
    checked="read",
    against="the abstract",
    deviations="a bisection in logarithms; a rate counts when half of the seeds succeed",
    kind="scaling rule",
)
def maximal_learning_rate(
    succeeds: Callable[[float, int], bool], low: float, high: float, seeds: int = 3, ratio: float = 1.1
) -> float:
    """The largest constant learning rate from which fresh networks reach a threshold within some updates.

    Geometric bisection between a rate that succeeds and one that does not, until their ratio is at most `ratio`; a rate
    succeeds if it does for at least half of the seeds. The returned rate is one that succeeded. The paper finds that it
    grows as a power of depth times width in ReLU networks whose input layer has a small rate of its own.

    Args:
        succeeds: A function `succeeds(learning_rate, seed)` that trains a new model and returns whether it has reached the
            threshold. A run that diverges must return `False`.
        low: A rate that succeeds.
        high: A rate that does not, above `low`.
        seeds: Runs for each rate, with the seeds 0, 1, ... Defaults to `3`.
        ratio: The precision, above 1. Defaults to `1.1`.

    Raises:
        ValueError: If an argument is out of its range, `low` does not succeed, or `high` does.

    Reference: Iyer et al. 2022, arXiv:2212.07295.

    Example: descent on x^2 / 2 diverges above a rate of 2.

    >>> 1.8 < maximal_learning_rate(lambda rate, seed: abs(1 - rate) < 1, low=0.01, high=100.0) < 2
    True
    """
    low, high = validation.positive_float("low", low), validation.positive_float("high", high)
    validation.below("low", low, "high", high)
    seeds, ratio = validation.positive_int("seeds", seeds), validation.at_least_one("ratio", ratio)
    if ratio == 1:
        raise ValueError(f"`ratio` must be above 1. Received: ratio={ratio}")

    def works(rate: float) -> bool:
        return 2 * sum(bool(succeeds(rate, seed)) for seed in range(seeds)) >= seeds

    if not works(low):
        raise ValueError(f"`low` must be a learning rate that succeeds. Received: low={low}")
    if works(high):
        raise ValueError(f"`high` must be a learning rate that does not succeed. Received: high={high}")
    while high > ratio * low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if works(middle) else (low, middle)
    return low

"""The mean number of parameters over a run with gradual pruning."""

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules.sparsity_ramp import step_shares


@register(
    "mean_parameters",
    title="mean number of parameters over a run with gradual pruning",
    paper="arXiv:2501.12486",
    checked="memory",
    against="the abstract; the mean of the ramp was derived and compared with its numeric mean",
    deviations="the paper's coefficients are not known: fit your own",
    kind="scaling rule",
)
def mean_parameters(
    parameters: float, sparsity: float, begin: float = 0.25, end: float = 0.75, of: str = "compute"
) -> float:
    """The mean number of parameters over the updates of a run in which they are pruned on the cubic ramp.

        mean / parameters = 1 - sparsity * (3/4 * (t1 - t0) + 1 - t1)

    with t0 and t1 the shares of the updates at which pruning begins and ends. A sparse run has about the loss that
    `ScalingLaw` gives for a dense model of this mean size and as many tokens.

    The paper begins after a quarter of the compute and ends after three quarters. An update costs in proportion to the
    parameters that are left, so a quarter of the compute is a smaller share of the updates at first than at the end:
    t0 = begin * mean / parameters, t1 = 1 - (1 - end) * mean / (parameters * (1 - sparsity)).
    `SparsityRamp.for_pretraining` is this ramp.

    Args:
        parameters: Parameters before pruning; those that are never pruned count, too.
        sparsity: The share of them that is pruned at the end, in [0, 1).
        begin: When pruning begins. Defaults to `0.25`.
        end: When it ends. Defaults to `0.75`.
        of: Whether `begin` and `end` are shares of the `"compute"` or of the `"steps"`. Defaults to `"compute"`.

    Raises:
        ValueError: If `sparsity` is not in [0, 1), `begin` is above `end`, or they are not in [0, 1].

    Reference: Jin et al. 2025, arXiv:2501.12486.

    Example:

    >>> mean_parameters(1e9, sparsity=0.5, of="steps")
    687500000.0
    >>> round(mean_parameters(1e9, sparsity=0.5))
    645161290
    """
    parameters = validation.positive_float("parameters", parameters)
    sparsity = validation.beta("sparsity", sparsity)
    first, last = step_shares(sparsity, begin, end, of)
    return parameters * (1 - sparsity * (0.75 * (last - first) + 1 - last))

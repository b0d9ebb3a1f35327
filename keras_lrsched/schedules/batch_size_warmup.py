"""Batch size warmup: larger batches when the gradients can use them (Merrill et al. 2025)."""

from collections.abc import Sequence
from typing import Self

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules.piecewise_constant import PiecewiseConstant
from keras_lrsched.schedules.schedule import Schedule


@register(
    "batch_size_warmup",
    title="batch size warmup",
    paper="arXiv:2505.23971",
    code=("allenai/OLMo-core",),
    checked="read",
    against="the official callback, `batch_size_scheduler.py`, for the factor of the learning rate",
    deviations="batch sizes and tokens from notes on the paper",
    kind="batch size",
)
class BatchSizeWarmup(PiecewiseConstant):
    """A batch size that grows in steps. Not a learning rate: the value is a number of examples, or of sequences.

        b_i <= t < b_(i+1):  B_i,  and the learning rate times (B_i / B_0)^(1/2)

    The paper doubles the batch when the critical batch size, measured by branching off short runs, has grown beyond twice
    the current one: 1024 sequences, 2048 from 168 billion tokens on, 4096 from 503 billion.

    Args:
        batch_sizes: A list of positive integers in strictly increasing order.
        boundaries: The updates from which on the second, third, ... holds; strictly increasing.
        name: A label. Defaults to `"BatchSizeWarmup"`.

    Raises:
        ValueError: If the lists are not increasing, or there is not one more of `batch_sizes` than of `boundaries`.

    Reference: arXiv:2505.23971; official code, allenai/OLMo-core.

    Example:

    >>> sizes = BatchSizeWarmup([1024, 2048, 4096], boundaries=[2, 4])
    >>> sizes.values(5)
    array([1024., 1024., 2048., 2048., 4096.])
    >>> (4e-4 * sizes.learning_rate_factor()).values([0, 2, 4])
    array([0.0004    , 0.00056569, 0.0008    ])
    """

    def __init__(self, batch_sizes: Sequence[int], boundaries: Sequence[int], name: str = "BatchSizeWarmup") -> None:
        self.batch_sizes = validation.increasing("batch_sizes", batch_sizes, validation.positive_int)
        self.name = name
        super().__init__(boundaries, self.batch_sizes)

    @classmethod
    def from_tokens(
        cls,
        batch_sizes: Sequence[int],
        token_boundaries: Sequence[float],
        tokens_per_example: float,
        name: str = "BatchSizeWarmup",
    ) -> Self:
        """The schedule with its boundaries in tokens seen, which it rounds up to whole updates."""
        sizes = validation.increasing("batch_sizes", batch_sizes, validation.positive_int)
        ends = validation.increasing("token_boundaries", token_boundaries, validation.positive_int)
        tokens = validation.positive_int("tokens_per_example", tokens_per_example)
        boundaries, seen, step = [], 0, 0
        for size, end in zip(sizes, ends, strict=False):
            steps = -(-(end - seen) // (size * tokens))
            step, seen = step + steps, seen + steps * size * tokens
            boundaries.append(step)
        return cls(sizes, boundaries + ends[len(boundaries) :], name)

    def learning_rate_factor(self, power: float = 0.5) -> Schedule:
        """(B_i / B_0)^power as a schedule, to be multiplied with that of the learning rate: 0.5 for Adam, 1 for SGD."""
        power = validation.non_negative_float("power", power)
        return PiecewiseConstant(self.boundaries, [(size / self.batch_sizes[0]) ** power for size in self.batch_sizes])

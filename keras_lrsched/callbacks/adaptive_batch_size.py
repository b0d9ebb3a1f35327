"""AdAdaGrad: the batch grows when the noise in its gradient is too large for it (Lau, Liu & Kolar 2024)."""

import math
from typing import Any, Literal

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.callbacks._batch_size import BatchSizeControl, MicroBatchController, unbiased
from keras_lrsched.data.scheduled_batches import LEAD


@register(
    title="AdAdaGrad norm test",
    paper="arXiv:2402.11215",
    code=("timlautk/AdAdaGrad",),
    checked="vectors",
    against="the norm test of the official code, which was run",
    deviations=(
        "averages over optimizer steps, `max_growth` and `powers_of_two` are additions; gradients of small batches "
        "stand for those of samples by the law of total variance"
    ),
    kind="controller",
)
class AdaptiveBatchSize(BatchSizeControl, MicroBatchController):
    """Batch size by the norm test: where the test fails, the next batch is as large as it should have been.

        V / b <= eta^2 |g|^2,  else  b = ceil(V / (eta^2 |g|^2))

    b is the batch of an update, g its gradient and V the variance of the gradient of one sample, summed over all weights. b
    never falls.

    V comes from the J = `gradient_accumulation_steps` small batches of m samples that make up an update, b = J m:

        V = m / (J - 1) * sum_j |g_j - g|^2

    With m = 1 these are the gradients of single samples, as in the paper; larger ones cost nothing more. `fit` is given
    `ScheduledBatches` of m samples, and m is what changes, at the beginning of an update a few batches later.

    The estimate is noisy when J is small, and a single one late in training, with g near 0, would take the batch to its
    limit: V and |g|^2 are averaged over updates, and the growth at once is limited. `momentum=0` with `max_growth=None` is
    the rule of the official code.

    On JAX, and with `jit_compile` on TensorFlow, each new size is compiled for; `powers_of_two` keeps these few.

    Args:
        eta: The noise that is accepted, positive. Defaults to `0.1`; the paper has up to 0.5.
        max_batch_size: Limit of b. Defaults to `None`, for the number of samples.
        momentum: Of the averages of V and |g|^2, at least 0 and below 1. Defaults to `0.9`.
        max_growth: Limit of the growth at once, above 1; `None` for none. Defaults to `2.0`.
        every: Updates from one test to the next. Defaults to `1`.
        powers_of_two: Whether b stays a power of two times what it was at first. Defaults to `False`.
        learning_rate_rule: `"none"`, `"sqrt"` or `"linear"`, as in `BatchSizeSchedule`. Defaults to `"none"`, as in the
            paper.

    Attributes:
        batch_size: A list of the samples that each small batch had, in all processes that train together. All sizes are
            those of the whole batch.
        history: A list of `[update, b, V, |g|^2]`, with the averages, one a test.

    Raises:
        ValueError: At construction, if an argument is out of its range. When `fit` begins, as `Controller`; if the
            optimizer accumulates no gradients, the data are no `ScheduledBatches` or have a schedule for their size, or
            `max_batch_size` is more than there are samples or less than the batch.

    Reference: arXiv:2402.11215; the norm test of the official code, timlautk/AdAdaGrad, was run. Averages, `max_growth` and
    `powers_of_two` are ours; the small batches follow the paper's law of total variance.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> from keras_lrsched.data import ScheduledBatches
    >>> x = np.random.default_rng(0).normal(size=(512, 2))
    >>> model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.Adagrad(0.05, gradient_accumulation_steps=4), loss="mse")
    >>> adaptive = AdaptiveBatchSize(eta=0.3)
    >>> history = model.fit(ScheduledBatches(x, x[:, :1], batch_size=2), verbose=0, callbacks=[adaptive])
    >>> adaptive.batch_size[0], adaptive.batch_size[-2] > 2
    (2, True)
    """

    saved = ("sizes", "batch_size", "requested", "history", "variance", "square", "weight", "first", "wanted")

    def __init__(
        self,
        eta: float = 0.1,
        max_batch_size: int | None = None,
        momentum: float = 0.9,
        max_growth: float | None = 2.0,
        every: int = 1,
        powers_of_two: bool = False,
        learning_rate_rule: Literal["none", "sqrt", "linear"] = "none",
    ) -> None:
        super().__init__(learning_rate_rule)
        self.eta = validation.positive_float("eta", eta)
        self.max_batch_size = None if max_batch_size is None else validation.positive_int("max_batch_size", max_batch_size)
        self.momentum = validation.beta("momentum", momentum)
        self.max_growth = None if max_growth is None else validation.positive_float("max_growth", max_growth)
        if self.max_growth is not None and self.max_growth <= 1:
            raise ValueError(f"`max_growth` must be above 1. Received: max_growth={max_growth}")
        self.every = validation.positive_int("every", every)
        self.powers_of_two = bool(powers_of_two)
        self.variance = self.square = self.weight = 0.0
        self.first: Any = None
        self.wanted: int | None = None
        self.history: list[list[float]] = []

    def begin(self) -> None:
        super().begin()
        samples, now = self._shares * self._batches.num_samples, self._parts * self._batches.batch_size
        self._limit = samples if self.max_batch_size is None else self.max_batch_size
        if not now <= self._limit <= samples:
            raise ValueError(
                f"`max_batch_size` must be from the batch of an update, {now}, to the number of samples, {samples}. "
                f"Received: max_batch_size={self.max_batch_size}"
            )
        self._batches.set_batch_size(self._batches.batch_size)  # refuses data that have a schedule
        if self.first is None:
            self.first = self._batches.batch_size

    def after_statistics(self, small_square: float, big_square: float, small_batch: float, big_batch: float) -> None:
        _, variance = unbiased(small_square, big_square, small_batch, big_batch)
        for name, value in {"variance": variance, "square": big_square, "weight": 1.0}.items():
            setattr(self, name, self.momentum * getattr(self, name) + (1 - self.momentum) * value)
        update = self.applied() // self.accumulation_steps
        has_grown = self.requested == self._shares * self._batches.batch_size
        if update % self.every == 0 and self.wanted is None and has_grown:
            self._test(update)

    def after_update(self) -> None:
        super().after_update()
        if self.wanted is not None and (self.applied() + LEAD) % self.accumulation_steps == 0:
            self._batches.set_batch_size(self.wanted)
            self.wanted = None

    def _test(self, update: int) -> None:
        variance, square, parts = self.variance / self.weight, self.square / self.weight, self._parts
        batch = self.accumulation_steps * self.requested
        self.history.append([update, batch, variance, square])
        needed = next_batch_size(variance, square, batch, self.eta)
        if self.max_growth is not None:
            needed = min(needed, math.floor(self.max_growth * batch))
        size = -(-needed // parts) if needed < self._limit else self._limit // parts
        size = min(size, self._limit // parts)
        if self.powers_of_two:
            size = self.first * 2 ** math.floor(math.log2(size / self.first))
        if size > self.requested // self._shares:
            self.wanted = size  # of a small batch in one process

    @property
    def _parts(self) -> int:
        """The number of small batches of processes in the batch of an update."""
        return self.accumulation_steps * self._shares


def next_batch_size(variance: float, square: float, batch_size: int, eta: float) -> int:
    """The batch size after a norm test: the same if it passes."""
    if not (math.isfinite(variance) and math.isfinite(square)) or variance / batch_size <= eta**2 * square:
        return batch_size
    return max(batch_size, math.ceil(min(variance / (eta**2 * square), 2**53))) if square > 0 else 2**53

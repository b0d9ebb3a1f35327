"""Masked language modeling: which tokens are masked, at a rate that follows a schedule (Ankner et al. 2023)."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.data._batch_stream import Entry
from keras_lrsched.data.scheduled_batches import ScheduledBatches
from keras_lrsched.schedules.schedule import as_schedule, compute

MASKED, REPLACED = 0.8, 0.1
"""Of the chosen tokens, how many become the mask and how many a random token; the others stay."""


@register(
    title="Dynamic masking rate",
    paper="arXiv:2305.15096",
    checked="memory",
    deviations="from secondary sources; no official code was seen; 80/10/10 is arXiv:1810.04805",
    kind="data",
)
class MaskedLanguageModelMasking(ScheduledBatches):
    """Batches of token sequences for `fit`, with tokens masked anew each time at the rate of a schedule.

    Each token of batch t is chosen with the probability masking_rate(t), t being the number of batches before. Of the chosen
    ones 80 % become the mask, 10 % a token drawn from the vocabulary, and 10 % stay; all of them count in the loss. A batch
    is `(inputs, tokens, weights)` with weights of 1 where a token was chosen and 0 elsewhere: compile with
    `SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")` for the mean over the chosen tokens.

    Whatever is drawn depends on the seed and t only. So the data themselves follow the schedule, without a callback; a
    resumed run (`TrainingState`) has the same masks; and `masked` does the same in a custom pipeline.

    Args:
        tokens: An array of integers, of shape (samples, length).
        masking_rate: A schedule such as `MaskingRate`, or a number, with values in [0, 1].
        mask_token: The number that stands for the mask.
        vocabulary_size: Random tokens are drawn from 0 to this, excluded.
        special_tokens: Tokens that are never chosen, such as padding. Defaults to `()`.
        batch_size: As in `ScheduledBatches`, like the arguments after it. Defaults to `32`.
        shuffle: Defaults to `True`.
        seed: Defaults to `0`.
        steps_per_epoch: Defaults to `None`.

    Raises:
        ValueError: If an argument is out of its range; at a batch, if its rate is outside of [0, 1].

    Reference: arXiv:2305.15096 for the falling rate, arXiv:1810.04805 for 80/10/10; no official code was seen.

    Example:

    >>> from keras_lrsched.schedules import MaskingRate
    >>> tokens = np.arange(200000).reshape(20, 10000)
    >>> options = {"mask_token": 0, "vocabulary_size": 200000, "batch_size": 10}
    >>> batches = MaskedLanguageModelMasking(tokens, MaskingRate(4), **options)
    >>> [round(float(weights.mean()), 2) for _, _, weights in batches]
    [0.3, 0.26]
    """

    def __init__(
        self,
        tokens: Any,
        masking_rate: LearningRateSchedule | float,
        mask_token: int,
        vocabulary_size: int,
        special_tokens: Sequence[int] = (),
        batch_size: int | Callable[[int], float] = 32,
        shuffle: bool = True,
        seed: int = 0,
        steps_per_epoch: int | None = None,
    ) -> None:
        tokens = np.asarray(keras.ops.convert_to_numpy(tokens))
        super().__init__(tokens, batch_size=batch_size, shuffle=shuffle, seed=seed, steps_per_epoch=steps_per_epoch)
        if tokens.dtype.kind not in "iu":
            raise ValueError(f"`tokens` must be integers. Received: tokens of dtype {tokens.dtype}")
        self.masking_rate = as_schedule("masking_rate", masking_rate)
        self.mask_token = validation.non_negative_int("mask_token", mask_token)
        self.vocabulary_size = validation.positive_int("vocabulary_size", vocabulary_size)
        self.special_tokens = validation.each("special_tokens", special_tokens, validation.non_negative_int)

    def rate_of(self, batch: int) -> float:
        """The masking rate of batch number `batch` of this epoch, for use in batch callbacks."""
        with self._changed:
            return self._rate(self._stream.entry(batch).number)

    def _rate(self, number: int) -> float:
        return validation.fraction("masking_rate", float(compute(self.masking_rate, np.asarray(number), np)))

    def _samples(self, entry: Entry) -> Any:
        tokens = super()._samples(entry)
        random = np.random.default_rng([self.seed, entry.number])
        return masked(
            tokens, self._rate(entry.number), self.mask_token, self.vocabulary_size, self.special_tokens, random=random
        )


def masked(
    tokens: Any,
    rate: float,
    mask_token: int,
    vocabulary_size: int,
    special_tokens: Sequence[int] = (),
    *,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inputs, targets and weights of the loss for an array of tokens, drawn from a `numpy.random.Generator`."""
    chosen = (random.random(tokens.shape) < rate) & ~np.isin(tokens, special_tokens)
    fate = random.random(tokens.shape)
    others = random.integers(vocabulary_size, size=tokens.shape, dtype=tokens.dtype)
    inputs = np.where(chosen & (fate < MASKED), np.asarray(mask_token, tokens.dtype), tokens)
    inputs = np.where(chosen & (fate >= 1 - REPLACED), others, inputs)
    return inputs, tokens, chosen.astype("float32")

"""Batch size warmup: boundaries in tokens, and the factor of the learning rate."""

import numpy as np
import pytest

from keras_lrsched.schedules import BatchSizeWarmup


def test_batch_size_warmup_from_tokens():
    schedule = BatchSizeWarmup.from_tokens([2, 4, 8], [100, 200], tokens_per_example=5)
    assert schedule.boundaries == [10, 15]
    late = BatchSizeWarmup.from_tokens([2, 4, 8], [101, 200], tokens_per_example=5)
    assert late.boundaries == [11, 16]  # 110 tokens are seen before the batch grows
    for bad in ([100], [100, 100], [100, 200, 300]):
        with pytest.raises(ValueError, match="Received: "):
            BatchSizeWarmup.from_tokens([2, 4, 8], bad, tokens_per_example=5)


def test_batch_size_warmup_factor_of_sgd():
    np.testing.assert_array_equal(BatchSizeWarmup([1, 4], [2]).learning_rate_factor(power=1).values(3), [1, 1, 4])

"""The batch size that follows a schedule, as the data had it, and the learning rate beside it."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import BatchSizeSchedule, LossRecorder
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.schedules import BatchSizeWarmup, LinearDecay
from tests.contract.backends import JIT, JIT_WAYS

X = np.ones((40, 1))
SIZES = BatchSizeWarmup([2, 4, 8], boundaries=[3, 5])


def model_with(learning_rate, jit=JIT[0]):
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(learning_rate), loss="mse", jit_compile=jit)
    return model


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize(("rule", "factors"), [("none", [1, 1, 1]), ("sqrt", [1, 2**0.5, 2]), ("linear", [1, 2, 4])])
def test_sizes_and_rates(rule, factors, jit):
    sizes, recorder = BatchSizeSchedule(SIZES, rule), LossRecorder()
    data = ScheduledBatches(X, X, batch_size=5)
    model_with(1e-3, jit).fit(data, epochs=2, verbose=0, callbacks=[sizes, recorder])
    expected = [2, 2, 2, 4, 4, 8, 8, 8, 2] + [8] * 5  # 40 samples a pass; the first ends with what is left of it
    assert sizes.batch_size == recorder.batch_size == expected
    rates = np.repeat(factors, [3, 2, 9]) * 1e-3
    np.testing.assert_allclose(recorder.learning_rate, rates, rtol=1e-5)


@pytest.mark.parametrize("schedule", [LinearDecay(1e-3, 20), 1e-3])
def test_learning_rate_may_be_a_schedule_if_it_is_let_alone(schedule):
    data = ScheduledBatches(X, X, batch_size=5)
    model_with(schedule).fit(data, verbose=0, callbacks=[sizes := BatchSizeSchedule(8)])
    assert sizes.batch_size == [8] * 5


def test_learning_rate_may_not_be_a_schedule_otherwise():
    with pytest.raises(ValueError, match="BatchSizeSchedule sets the learning rate"):
        model_with(LinearDecay(1e-3, 20)).fit(
            ScheduledBatches(X, X, batch_size=5), verbose=0, callbacks=[BatchSizeSchedule(8, "linear")]
        )


@pytest.mark.parametrize(("size", "message"), [(41, "at most the number of samples, 40"), (0, "a positive integer")])
def test_size_that_the_data_cannot_have(size, message):
    data = ScheduledBatches(X, X, batch_size=5)
    with pytest.raises(ValueError, match=f"{message}. Received: batch_size={size}"):
        model_with(1e-3).fit(data, verbose=0, callbacks=[BatchSizeSchedule(size)])


class Fixed(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return X[:10], X[:10]


@pytest.mark.parametrize(("data", "named"), [((X, X), "data that are no PyDataset"), ((Fixed(),), "Fixed")])
def test_data_whose_size_cannot_change(data, named):
    with pytest.raises(ValueError, match=rf"batch size can change: give `fit` ScheduledBatches. Received: {named}"):
        model_with(1e-3).fit(*data, verbose=0, callbacks=[BatchSizeSchedule(8)])


@pytest.mark.parametrize("options", [{"schedule": "large"}, {"schedule": 8, "learning_rate_rule": "square"}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match="Received"):
        BatchSizeSchedule(**options)


def test_processes_share_a_batch(monkeypatch):
    """As one of two processes sees it: half of each batch is its own, and all sizes are of the whole."""
    monkeypatch.setattr(BatchSizeSchedule, "processes", 2)
    grow = BatchSizeSchedule(BatchSizeWarmup([4, 8], boundaries=[2]), "linear")
    model, sizes = model_with(0.1), []
    batches = ScheduledBatches(X[:12], X[:12], batch_size=2)
    look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: sizes.append(batches.size_of(batch)))
    model.fit(batches, verbose=0, callbacks=[grow, look])
    assert sizes == [2, 2, 4, 4]
    assert grow.batch_size == [4, 4, 8, 8]
    assert grow.learning_rate == pytest.approx(0.2)
    odd = BatchSizeSchedule(BatchSizeWarmup([4, 5], boundaries=[1]))
    with pytest.raises(ValueError, match=r"multiple of the number of processes, 2. Received: 5 for batch 1"):
        model.fit(ScheduledBatches(X, X, batch_size=2), verbose=0, callbacks=[odd])

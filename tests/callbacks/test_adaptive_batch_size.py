"""The norm test: its reference numbers, also from training, and how the batch grows."""

import itertools

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import AdaptiveBatchSize
from keras_lrsched.callbacks.adaptive_batch_size import next_batch_size
from keras_lrsched.data import ScheduledBatches
from tests.callbacks.test_gradient_noise_scale import mean_model
from tests.contract.backends import BACKEND, JIT_WAYS
from tests.nightly import nightly

GRADIENTS = np.array([[1, 0, 2], [0.5, -0.5, 1], [1.5, 0.5, 3], [1, 1, 0]])
"""Of four samples: V = 2.25 and |g|^2 = 3.3125."""
OFFICIAL = {"momentum": 0.0, "max_growth": None}


@pytest.mark.parametrize(("eta", "expected"), [(0.1, 68), (0.5, 4), (1.0, 4)])
def test_reference_numbers(eta, expected):
    assert next_batch_size(2.25, 3.3125, 4, eta) == expected


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize(
    ("eta", "expected"), [(0.1, 68), pytest.param(0.5, 4, marks=nightly), pytest.param(1.0, 4, marks=nightly)]
)
def test_reference_numbers_in_training(eta, expected, jit):
    data = ScheduledBatches(np.tile(GRADIENTS, (40, 1)), np.zeros(160), batch_size=1, shuffle=False)
    adaptive = AdaptiveBatchSize(eta, **OFFICIAL)
    mean_model(jit).fit(data, verbose=0, callbacks=[adaptive])
    assert adaptive.history[0] == pytest.approx([1, 4, 2.25, 3.3125], rel=1e-5)
    assert adaptive.batch_size[:4] == [1] * 4
    assert adaptive.batch_size[8] == expected / 4


def test_processes_share_a_batch(monkeypatch):
    """As one of two processes sees it: half of each small batch is its own, and all sizes are of the whole."""
    monkeypatch.setattr(AdaptiveBatchSize, "processes", 2)
    data = ScheduledBatches(np.tile(GRADIENTS, (40, 1)), np.zeros(160), batch_size=1, shuffle=False)
    adaptive = AdaptiveBatchSize(0.1, **OFFICIAL)
    mean_model().fit(data, verbose=0, callbacks=[adaptive])
    assert adaptive.history[0][1] == 8  # 4 small batches of 1 sample in each process
    assert adaptive.batch_size[:4] == [2] * 4
    assert adaptive.batch_size[8] == 18  # 68 / 4, of which each process can have a half


def test_a_single_update_fails_the_test_when_the_gradient_is_zero():
    assert next_batch_size(1.0, 0.0, 4, 0.1) == 2**53
    assert next_batch_size(0.0, 0.0, 4, 0.1) == 4
    assert next_batch_size(np.nan, 1.0, 4, 0.1) == 4


def test_growth_is_limited_and_stops_at_the_limit():
    data = ScheduledBatches(np.tile(GRADIENTS, (100, 1)), np.zeros(400), batch_size=1)
    adaptive = AdaptiveBatchSize(0.01, max_batch_size=50, momentum=0.5)
    mean_model().fit(data, epochs=2, verbose=0, callbacks=[adaptive])
    asked = [batch for _, batch, _, _ in adaptive.history]
    assert asked == sorted(asked)
    assert set(asked) == {4, 8, 16, 32, 48}  # 4 * 12 <= 50
    assert max(adaptive.batch_size) == 12
    assert max(b / a for a, b in itertools.pairwise(asked)) == 2


def test_powers_of_two():
    data = ScheduledBatches(np.tile(GRADIENTS, (40, 1)), np.zeros(160), batch_size=1, shuffle=False)
    adaptive = AdaptiveBatchSize(0.1, powers_of_two=True, **OFFICIAL)
    mean_model().fit(data, verbose=0, callbacks=[adaptive])
    assert max(adaptive.batch_size) == 16  # 17 would be wanted


@pytest.mark.parametrize(("rule", "factor"), [pytest.param("none", 1, marks=nightly), ("sqrt", 17**0.5), ("linear", 17)])
def test_learning_rate_rule(rule, factor):
    data = ScheduledBatches(np.tile(GRADIENTS, (40, 1)), np.zeros(160), batch_size=1, shuffle=False)
    model = mean_model(learning_rate=1e-3)
    adaptive = AdaptiveBatchSize(0.1, learning_rate_rule=rule, max_batch_size=68, **OFFICIAL)
    model.fit(data, verbose=0, callbacks=[adaptive])
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == pytest.approx(1e-3 * factor, rel=1e-5)


@nightly
@pytest.mark.skipif(BACKEND == "jax", reason="compiles for each size")
def test_grows_late_in_training():
    """A linear fit with noise: the gradient dies out and the noise stays."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2000, 4))
    y = x @ np.ones((4, 1)) + random.normal(size=(2000, 1))
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05, gradient_accumulation_steps=4), loss="mse")
    adaptive = AdaptiveBatchSize(eta=0.5, max_batch_size=512)
    history = model.fit(ScheduledBatches(x, y, batch_size=2), epochs=4, verbose=0, callbacks=[adaptive])
    sizes = adaptive.batch_size
    assert np.mean(sizes[:40]) < 0.2 * max(sizes)
    assert history.history["batch_size"][-1] == sizes[-1]
    assert history.history["loss"][-1] < 1.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": 0}, "Received: eta=0"),
        ({"max_growth": 1}, "`max_growth` must be above 1. Received: max_growth=1"),
        ({"max_batch_size": 2.5}, "Received: max_batch_size=2.5"),
        ({"learning_rate_rule": "cubic"}, "Received: learning_rate_rule='cubic'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveBatchSize(**options)


@pytest.mark.parametrize("limit", [9, 2])
def test_limit_that_does_not_fit_the_data(limit):
    data = ScheduledBatches(GRADIENTS, np.zeros(4), batch_size=1)
    with pytest.raises(
        ValueError, match=f"from the batch of an update, 4, to .* samples, 4. Received: max_batch_size={limit}"
    ):
        mean_model().fit(data, verbose=0, callbacks=[AdaptiveBatchSize(max_batch_size=limit)])


def test_data_whose_size_cannot_change():
    with pytest.raises(ValueError, match=r"give `fit` ScheduledBatches. Received: data that are no PyDataset"):
        mean_model().fit(GRADIENTS, np.zeros(4), verbose=0, callbacks=[AdaptiveBatchSize()])
    data = ScheduledBatches(GRADIENTS, np.zeros(4), batch_size=lambda t: 1)
    with pytest.raises(ValueError, match="follows a schedule"):
        mean_model().fit(data, verbose=0, callbacks=[AdaptiveBatchSize()])

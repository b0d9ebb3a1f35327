"""BatchNorm's statistics against those of the data."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks._batch_norm_statistics import recompute_batch_norm
from keras_lrsched.data import ScheduledBatches

X = np.random.default_rng(0).normal(3, 2, size=(12, 4)).astype("float32")
BATCHES = [X[:4], X[4:8], X[8:]]


def network():
    layers = [keras.layers.Dropout(0.5, seed=1), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.BatchNormalization(), *layers])
    model.compile("sgd", loss="mse")
    return model


def values(model):
    return [np.array(variable.numpy()) for variable in model.variables]


@pytest.mark.parametrize(
    "data",
    [BATCHES, [(x, x[:, :1]) for x in BATCHES], ScheduledBatches(X, X, batch_size=4, shuffle=False)],
    ids=["inputs", "pairs", "PyDataset"],
)
def test_is_the_mean_over_batches(data):
    model = network()
    recompute_batch_norm(model, data)
    first = model.layers[0]
    np.testing.assert_allclose(first.moving_mean.numpy(), X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(first.moving_variance.numpy(), np.mean([x.var(0) for x in BATCHES], 0), rtol=1e-5)
    assert first.momentum == 0.99


def test_arrays_are_cut():
    model = network()
    recompute_batch_norm(model, np.concatenate([BATCHES[0]] * 17))  # 2 batches of 32, and 4 samples that fill none
    np.testing.assert_allclose(model.layers[0].moving_mean.numpy(), BATCHES[0].mean(0), rtol=1e-5)
    recompute_batch_norm(model, (X, None))
    np.testing.assert_allclose(model.layers[0].moving_mean.numpy(), X.mean(0), rtol=1e-5)


def test_changes_nothing_else_and_repeats():
    model = network()
    model.fit(X, X[:, :2], verbose=0)
    before = values(model)
    recompute_batch_norm(model, BATCHES)
    once = values(model)
    recompute_batch_norm(model, BATCHES)
    changed = [not np.array_equal(a, b) for a, b in zip(before, once, strict=True)]
    statistics = [any(part in v.path for part in ("moving_mean", "moving_variance")) for v in model.variables]
    assert changed == statistics
    for first, second in zip(once, values(model), strict=True):
        np.testing.assert_array_equal(first, second)


def test_frozen_layer_keeps_its_statistics():
    model = network()
    model.layers[0].trainable = False
    recompute_batch_norm(model, BATCHES)
    np.testing.assert_array_equal(model.layers[0].moving_mean.numpy(), 0)
    assert np.all(model.layers[2].moving_mean.numpy() != 0)


def test_no_batches():
    with pytest.raises(ValueError, match=r"at least one batch. Received: batch_norm_data=\[\]"):
        recompute_batch_norm(network(), [])

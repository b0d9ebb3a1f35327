"""Clusters of steps and their factors."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import GradientGrouping
from keras_lrsched.optimizers.gradient_grouping import clusters_of, median, spread
from tests.contract.optimizer_problem import gradients, variables
from tests.nightly import nightly


def test_clusters_are_those_of_k_means():
    """Three clouds of points that lie apart, in any order; and a border case of equal entries."""
    rng = np.random.default_rng(0)
    centers = rng.permutation(np.repeat([0, 1, 2], (20, 5, 10)))
    points = 10.0 * centers + rng.normal(size=35)
    np.testing.assert_array_equal(ops.convert_to_numpy(clusters_of(ops.convert_to_tensor(points), 3)), centers)
    same = ops.convert_to_numpy(clusters_of(ops.ones((4, 2)), 3))
    assert same.shape == (4, 2)
    assert len(np.unique(same)) == 1


def test_medians():
    inf = float("inf")
    for values, expected in (([3.0, 1.0, 2.0], 2.0), ([1.0, inf, 4.0], 2.5), ([inf, inf], inf)):
        assert float(median(ops.convert_to_tensor(values))) == expected
    m, labels = np.array([0.0, 1.0, 5.0, 6.0]), np.array([0.0, 0.0, 1.0, 1.0])
    distances = ops.convert_to_numpy(spread(ops.convert_to_tensor(m), ops.convert_to_tensor(labels, "float32"), 3))
    np.testing.assert_allclose(distances, [2.5, 2.5, inf])


def test_factors_follow_the_formula():
    """Three updates with clusterings after each second one, in NumPy."""
    weights = variables()
    optimizer = GradientGrouping(keras.optimizers.SGD(0.1), clusters=2, every=2, beta=0.5, beta_3=0.5)
    w, b = (np.array(ops.convert_to_numpy(v), "float64") for v in weights.values())
    m, s, labels = np.zeros((3, 4)), np.ones(2), np.zeros((3, 4), int)
    for t in range(1, 6):
        gw, gb = (np.array(ops.convert_to_numpy(g), "float64") for g in gradients(t))
        u = 0.1 * gw
        m = 0.5 * m + 0.5 * u
        if t % 2 == 0:
            labels = ops.convert_to_numpy(clusters_of(ops.convert_to_tensor(m), 2)).astype(int)
            d = np.array([np.median(np.abs(m - m.mean())[labels == c]) for c in range(2)])
            s = np.clip(0.5 * s + 0.5 * np.median(d) / (d + 1e-8), 0.1, 10)
        w, b = w - s[labels] * u, b - 0.1 * gb
        optimizer.apply(gradients(t), [*weights.values()])
        np.testing.assert_allclose(ops.convert_to_numpy(weights["kernel"]), w, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ops.convert_to_numpy(weights["bias"]), b, rtol=1e-6, atol=1e-6)
    assert abs(s[0] - s[1]) > 0.05


@nightly
def test_fit():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    model.compile(GradientGrouping(keras.optimizers.Adam(0.05), every=4, beta_3=0.9), "mse")
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    losses = model.fit(x, x[:, :1] * x[:, 1:2], batch_size=16, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert np.any(ops.convert_to_numpy(model.optimizer._factors) != 1)
    with pytest.raises(ValueError, match="averages no weights"):
        GradientGrouping(keras.optimizers.SGD(use_ema=True))


@pytest.mark.parametrize(
    "bad", [{"clusters": 1}, {"every": 0}, {"beta": 1}, {"beta_3": -0.1}, {"exclude_from_grouping": "b"}]
)
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        GradientGrouping(keras.optimizers.SGD(), **bad)

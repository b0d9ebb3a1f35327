"""The noise scale: its formula, the statistics that real training gives it, and its value where that is known."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import GradientNoiseScale
from keras_lrsched.callbacks._batch_size import unbiased
from keras_lrsched.data import ScheduledBatches
from tests.callbacks.own_step import OwnStep
from tests.contract.backends import JIT, JIT_WAYS
from tests.nightly import nightly

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 3)) + 1


def mean_model(jit=JIT[0], learning_rate=0.0, steps=4, scale=False):
    """Loss -w x, so that the gradient of a sample is -x."""
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    optimizer = keras.optimizers.SGD(learning_rate, gradient_accumulation_steps=steps)
    if scale:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)
    model.compile(optimizer, loss=lambda y, y_pred: -y_pred, jit_compile=jit)
    return model


def test_reference_numbers():
    square, variance = unbiased(2.0, 1.1, 32, 320)
    assert (square, variance, variance / square) == pytest.approx((1, 32, 32), rel=1e-12)
    square, variance = unbiased(5.0, 0.3, 1, 64)
    assert (square, variance) == pytest.approx((0.2253968254, 4.774603175), rel=1e-9)
    assert variance / square == pytest.approx(21.18309859, rel=1e-9)


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("scale", [False, True])
def test_statistics_of_each_update(jit, scale):
    noise = GradientNoiseScale(momentum=0.0)
    mean_model(jit, scale=scale).fit(X, X, batch_size=2, shuffle=False, verbose=0, callbacks=[noise])
    expected = []
    for part in X.reshape(3, 4, 2, 3):
        small = np.mean([np.sum(each.mean(0) ** 2) for each in part])
        square, variance = unbiased(small, np.sum(part.reshape(8, 3).mean(0) ** 2), 2, 8)
        expected.append(variance / square)
    assert [update for update, _ in noise.history] == [1, 2, 3]
    np.testing.assert_allclose([value for _, value in noise.history], expected, rtol=1e-4)


def test_batches_of_unequal_sizes():
    noise = GradientNoiseScale(momentum=0.0)
    mean_model(steps=2).fit(X[:5], X[:5], batch_size=3, shuffle=False, verbose=0, callbacks=[noise])
    means = [X[:3].mean(0), X[3:5].mean(0)]
    small, big = np.mean([np.sum(g**2) for g in means]), np.sum(np.mean(means, axis=0) ** 2)
    square, variance = unbiased(small, big, 2.4, 4.8)  # 2 / (1/3 + 1/2)
    assert (noise.square, noise.variance) == pytest.approx((square, variance), rel=1e-4)


@nightly
def test_known_noise_scale():
    """Variance 3 (one in each of three coordinates) over |G|^2 = 3 * 0.5^2."""
    x = np.random.default_rng(1).normal(size=(8000, 3)) + 0.5
    noise = GradientNoiseScale(momentum=0.999)
    history = mean_model().fit(ScheduledBatches(x, x, batch_size=4), epochs=1, verbose=0, callbacks=[noise])
    assert noise.noise_scale == pytest.approx(4.0, rel=0.15)
    assert history.history["gradient_noise_scale"] == [noise.noise_scale]


def test_not_a_number_while_the_gradient_is_lost_in_noise():
    x = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    mean_model(steps=2).fit(x, x, batch_size=1, shuffle=False, verbose=0, callbacks=[noise := GradientNoiseScale()])
    assert np.isnan(noise.noise_scale)


def test_a_train_step_of_ones_own():
    """Its scalar loss goes into a `Mean`, which counts 1 for each batch."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 64, 2)).astype("float32")
    dense = keras.layers.Dense(2, use_bias=False, kernel_initializer="zeros")
    found = []
    for model in (OwnStep(2), keras.Sequential([keras.Input((2,)), dense])):
        model.compile(
            keras.optimizers.SGD(0.01, gradient_accumulation_steps=2), None if isinstance(model, OwnStep) else "mse"
        )
        noise = GradientNoiseScale()
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[noise])
        found.append(noise.history)
    np.testing.assert_allclose(*found, rtol=1e-4)


def test_changes_nothing():
    def train(*callbacks):
        keras.utils.set_random_seed(0)
        model = mean_model(learning_rate=0.1)
        model.fit(X, X, batch_size=2, verbose=0, shuffle=False, callbacks=callbacks)
        return model.get_weights()[0]

    np.testing.assert_array_equal(train(GradientNoiseScale()), train())


def test_bad_arguments():
    with pytest.raises(ValueError, match="Received: momentum=1"):
        GradientNoiseScale(1)
    with pytest.raises(ValueError, match=r"of at least 2. Received: gradient_accumulation_steps=1"):
        mean_model(steps=None).fit(X, X, verbose=0, callbacks=[GradientNoiseScale()])

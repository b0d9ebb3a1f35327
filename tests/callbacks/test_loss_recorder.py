"""The recorded loss against a linear model in NumPy."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import LossRecorder
from keras_lrsched.schedules import LinearDecay
from tests.contract.backends import BACKEND, JIT

LINE = LinearDecay(0.05, 12)
RANDOM = np.random.default_rng(0)
X, Y, WEIGHTS = RANDOM.normal(size=(10, 3)), RANDOM.normal(size=(10, 1)), RANDOM.uniform(0.5, 2, size=10)
START = RANDOM.normal(size=(3, 1))


def linear_model(jit=False, **options):
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([START])
    model.compile(keras.optimizers.SGD(LINE), loss="mse", jit_compile=jit, **options)
    return model


def record(model, **options):
    recorder = LossRecorder()
    options = {"batch_size": 4, "epochs": 4, "shuffle": False, "verbose": 0, **options}
    model.fit(X, Y, callbacks=[recorder], **options)
    return recorder


def losses(weights=None, epochs=4):
    """The loss of each batch, of 4, 4 and 2 samples, before its update."""
    w, result = START, []
    for t in range(3 * epochs):
        part = slice(4 * (t % 3), 4 * (t % 3) + 4)
        error = X[part] @ w - Y[part]
        weight = 1.0 if weights is None else weights[part, None]
        result.append(np.mean(weight * error**2))
        w = w - LINE.values([t]) * 2 * X[part].T @ (weight * error) / len(error)
    return result


@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_loss_of_each_batch(weights, jit):
    recorder = record(linear_model(jit), sample_weight=weights)
    np.testing.assert_allclose(recorder.loss, losses(weights), rtol=2e-5)
    np.testing.assert_allclose(recorder.learning_rate, LINE.values(12), rtol=1e-6)


def test_agrees_with_train_on_batch():
    model = linear_model()
    parts = [slice(0, 4), slice(4, 8), slice(8, 10)]
    expected = []
    for part in parts:
        model.reset_metrics()
        expected.append(model.train_on_batch(X[part], Y[part]))
    np.testing.assert_allclose(record(linear_model(), epochs=1).loss, expected, rtol=2e-6)


def test_is_not_what_keras_logs():
    logged = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: logged.append(logs["loss"]))
    recorder = LossRecorder()
    linear_model().fit(X[:8], Y[:8], batch_size=4, shuffle=False, verbose=0, callbacks=[watch, recorder])
    assert logged[1] == pytest.approx(np.mean(recorder.loss), rel=1e-5)
    assert abs(logged[1] - recorder.loss[1]) > 1e-2


def test_with_validation_between_the_epochs():
    recorder = record(linear_model(), validation_data=(X, Y))
    np.testing.assert_allclose(recorder.loss, losses(), rtol=2e-5)


def test_learning_rate_without_a_schedule():
    model = linear_model()
    model.compile(keras.optimizers.SGD(0.125), loss="mse")
    assert record(model).learning_rate == [0.125] * 12


def test_without_the_private_tracker(monkeypatch):
    monkeypatch.setattr(LossRecorder, "_sums", lambda self, batch, logs: SUMS(Untracked, batch, logs))
    recorder = LossRecorder()
    linear_model().fit(X[:8], Y[:8], batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[recorder])
    tracked = LossRecorder()
    monkeypatch.undo()
    linear_model().fit(X[:8], Y[:8], batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[tracked])
    np.testing.assert_allclose(recorder.loss, tracked.loss, rtol=1e-5)  # equal batches, so it is exact


SUMS = LossRecorder._sums


class Untracked:
    """Stands for a callback whose model keeps no `_loss_tracker`."""

    model = object()


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses it itself on PyTorch")
def test_steps_per_execution_is_refused():
    with pytest.raises(ValueError, match="Received: steps_per_execution=2"):
        record(linear_model(steps_per_execution=2))

"""The recorded loss against a linear model in NumPy."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import LossRecorder
from keras_lrsched.laws import LossCurve
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


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses it itself on PyTorch")
def test_steps_per_execution_is_refused():
    with pytest.raises(ValueError, match="Received: steps_per_execution=2"):
        record(linear_model(steps_per_execution=2))


def test_file_while_and_after_training(tmp_path):
    path = tmp_path / "new" / "run.csv"
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(path.read_text().count("\n") - 1)
    )
    recorder = LossRecorder(path, flush_every=2)
    linear_model().fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[recorder, look])
    assert seen == [0, 2, 2, 3, 5, 5]  # every two updates, and at the end of an epoch
    curve = LossCurve.load(path)
    assert curve.step.tolist() == list(range(6))
    assert curve.loss.tolist() == recorder.loss
    assert curve.rates.tolist() == recorder.learning_rate
    assert curve.batch_size.tolist() == recorder.batch_size == [4, 4, 2, 4, 4, 2]
    assert curve.tokens is None


def test_resumed_run_adds_to_the_file(tmp_path):
    path = tmp_path / "run.csv"
    model = linear_model()
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[LossRecorder(path)])
    with path.open("a") as file:
        file.write("3,0.12")  # what a killed run may leave
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[LossRecorder(path)])
    curve = LossCurve.load(path)
    np.testing.assert_allclose(curve.loss, losses(epochs=2), rtol=2e-5)
    np.testing.assert_allclose(curve.rates, LINE.values(6), rtol=1e-6)


def test_two_fits_with_one_recorder(tmp_path):
    recorder = LossRecorder(tmp_path / "run.csv")
    model = linear_model()
    for _ in range(2):
        model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[recorder])
    assert LossCurve.load(tmp_path / "run.csv").loss.tolist() == recorder.loss


def test_foreign_file_is_refused(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("epoch,loss\n0,1.0\n")
    with pytest.raises(ValueError, match=r"Received: path=.*with 'epoch,loss'"):
        linear_model().fit(X, Y, verbose=0, callbacks=[LossRecorder(path)])
    assert path.read_text() == "epoch,loss\n0,1.0\n"


@pytest.mark.parametrize(("given", "tokens"), [(None, [20, 10]), (7, [28, 14])])
def test_tokens(given, tokens, tmp_path):
    model = keras.Sequential([keras.layers.Input((5,), dtype="int32"), keras.layers.Embedding(3, 2)])
    model.compile("sgd", loss="mse")
    recorder = LossRecorder(tmp_path / "run.csv", tokens_per_example=given)
    model.fit(np.zeros((6, 5), "int32"), np.zeros((6, 5, 2)), batch_size=4, verbose=0, callbacks=[recorder])
    assert LossCurve.load(tmp_path / "run.csv").tokens.tolist() == tokens


@pytest.mark.parametrize("options", [{"flush_every": 0}, {"tokens_per_example": 1.5}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match=r"must be a positive integer\. Received"):
        LossRecorder(**options)


def test_accumulated_gradients_hold_the_rate():
    model = linear_model()
    model.compile(keras.optimizers.SGD(LINE, gradient_accumulation_steps=2), loss="mse")
    assert record(model, epochs=2).learning_rate == pytest.approx(LINE.values(3).repeat(2).tolist(), rel=1e-6)

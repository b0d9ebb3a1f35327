"""Settings of layers, losses and models: what they do when scheduled, how they are found, what is refused."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import ScheduleHyperparameter
from keras_lrsched.callbacks._settings import Setting
from keras_lrsched.schedules import LinearDecay, Tabulated
from tests.callbacks.linear_regression import W, X, Y, fit, jit, linear_model
from tests.contract.backends import BACKEND
from tests.nightly import some


def wide_model(layer, jit, loss="mse", optimizer=None):
    """All ones to `layer` to a sum of 4096: what a random layer lets through can be read off the gradient."""
    total = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.layers.Input((4096,)), layer, total])
    model.compile(optimizer or keras.optimizers.SGD(1.0), loss=loss, jit_compile=jit)
    return model


@jit
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_dropout_rate(policy, jit):
    rates = [0.25, 0.0, 0.75, 0.5]
    dropout = keras.layers.Dropout(0.1, seed=1, name="drop", dtype=policy)
    model = wide_model(dropout, jit, loss=lambda y, y_pred: -y_pred)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(model.get_weights()[0].ravel()))
    scheduled = ScheduleHyperparameter("layers.drop.rate", Tabulated(rates))
    model.fit(np.ones((1, 4096)), np.ones((1, 1)), epochs=4, verbose=0, callbacks=[scheduled, watch])
    for rate, let_through in zip(rates, np.diff(seen, axis=0, prepend=np.zeros((1, 4096))), strict=True):
        kept = let_through[let_through > 0.5]
        np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=1e-2 if policy != "float32" else 1e-6)
        assert 1 - len(kept) / 4096 == pytest.approx(rate, abs=0.04)  # 5 standard deviations
    assert dropout.rate == 0.5


@jit
def test_gaussian_noise(jit):
    model = wide_model(keras.layers.GaussianNoise(1.0, seed=1, name="noise"), jit, loss=lambda y, y_pred: -y_pred)
    scheduled = ScheduleHyperparameter("layers.noise.stddev", LinearDecay(0.5, 1))
    model.fit(np.ones((1, 4096)), np.ones((1, 1)), verbose=0, callbacks=[scheduled])
    assert np.std(model.get_weights()[0]) == pytest.approx(0.5, rel=0.05)
    before = model.get_weights()[0]
    model.fit(np.ones((1, 4096)), np.ones((1, 1)), verbose=0, callbacks=[scheduled])
    np.testing.assert_allclose(model.get_weights()[0] - before, 1, rtol=1e-6)


@jit
@pytest.mark.parametrize("start", some([0.3, 0]))
def test_label_smoothing(start, jit):
    values = [0.0, 0.2, 1.0, 0.5]
    loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=start)
    model = linear_model(keras.optimizers.SGD(0.1), jit, loss)
    labels = np.array([[1.0], [0.0]], "float32")
    smoothing = ScheduleHyperparameter("loss.label_smoothing", Tabulated(values))
    history = model.fit(
        X, labels, batch_size=2, epochs=4, verbose=0, callbacks=[smoothing], validation_data=(X, labels), shuffle=False
    )
    w, expected = W, []
    for value in values:
        smooth = labels * (1 - value) + 0.5 * value
        w = w - 0.1 * X.T.astype("float64") @ (1 / (1 + np.exp(-X @ w)) - smooth) / 2
        expected.append(np.mean(np.logaddexp(0, X @ w) - smooth * (X @ w)))
    np.testing.assert_allclose(model.get_weights()[0], w, rtol=2e-6)
    np.testing.assert_allclose(history.history["val_loss"], expected, rtol=1e-5)  # with the value of the last update
    assert loss.get_config()["label_smoothing"] == loss.label_smoothing == 0.5
    np.testing.assert_allclose(model.evaluate(X, labels, verbose=0), expected[-1], rtol=1e-5)


@jit
def test_regularizer_and_list_of_losses(jit):
    layer = keras.layers.Dense(1, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.5), name="dense")
    model = keras.Sequential([keras.layers.Input((2,)), layer])
    model.set_weights([W])
    model.compile(keras.optimizers.SGD(0.1), loss=[keras.losses.Huber(1.0)], jit_compile=jit)
    strength = ScheduleHyperparameter("layers.dense.kernel_regularizer.l2", Tabulated([0.25, 0.0]))
    delta = ScheduleHyperparameter("loss.0.delta", Tabulated([0.5, 2.0]))
    w = W
    for l2, delta_ in [(0.25, 0.5), (0.0, 2.0)]:
        error = X @ w - Y
        w = w - 0.1 * (2 * l2 * w + X.T.astype("float64") @ np.clip(error, -delta_, delta_) / 2)
    np.testing.assert_allclose(fit(model, strength, delta, epochs=2), w, rtol=2e-6)


@jit
def test_variable_of_a_custom_model(jit):
    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.temperature = self.add_weight(shape=(), initializer="ones", trainable=False, name="temperature")
            self.dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")

        def call(self, x):
            return self.dense(x) * self.temperature

    model = Scaled()
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, y_pred: -y_pred, jit_compile=jit)
    scheduled = ScheduleHyperparameter("temperature", Tabulated([1.0, 4.0, 0.5]))
    ones = np.ones((1, 2))
    model.fit(ones, ones[:, :1], epochs=3, verbose=0, callbacks=[scheduled])
    np.testing.assert_allclose(model.dense.get_weights()[0], 5.5, rtol=1e-6)
    np.testing.assert_allclose(model.predict(ones, verbose=0), 11 * 0.5, rtol=1e-6)


def test_a_path_through_models_lists_and_dictionaries():
    encoder = keras.Sequential([keras.layers.Dropout(0.25, name="drop")], name="encoder")
    model = keras.Sequential([keras.layers.Input((2, 1)), encoder, keras.layers.LSTM(1, dropout=0.5, name="lstm")])
    model.compile(loss={"a": keras.losses.Huber(1.5), "b": keras.losses.Huber(2.5)})
    for path, value in {
        "layers.encoder.layers.drop.rate": 0.25,
        "layers.0.layers.0.rate": 0.125,  # the same one, written just before
        "layers.lstm.cell.dropout": 0.5,
        "loss.b.delta": 2.5,
    }.items():
        setting = Setting(model, path)
        assert setting.value == value
        setting.write(0.125)
        assert Setting(model, path).value == 0.125


REFUSED = {
    "optimizer.beta1": "no numeric setting `beta1` in Adam. Did you mean `beta_1`. "
    "It has: beta_1, beta_2, ema_momentum, epsilon, learning_rate, weight_decay",
    "optimiser.beta_1": "no part `optimiser` in Sequential. "  # codespell:ignore optimiser
    "Did you mean `optimizer`. It has: ",
    "layers.drop.rat": "no numeric setting `rat` in Dropout. Did you mean `rate`",
    "layers.dropp.rate": "no part `dropp` in list. Did you mean `drop`. It has: dense, drop, off",
    "layers.dense.units": "is not a number that may change in training: construct Dense with a float. Received: units=1",
    "layers.off.rate": "must not start at 0: Dropout is then built without",
    "optimizer.amsgrad": "is not a number that may change",
    "optimizer.clipnorm": "construct Adam with a float. Received: clipnorm=None",
    "optimizer.gradient_accumulation_steps": "is not a number that may change",
    "loss.label_smoothing": "Compile the model with an object",
    "optimizer.ema_momentum": "The training step never reads `optimizer.ema_momentum`",
}


@pytest.mark.parametrize("target", REFUSED)
def test_refuses_a_target(target):
    of_step = "never reads" in REFUSED[target]
    if BACKEND == "torch" and of_step:
        pytest.skip("a float that is not read leaves no trace")
    layers = [keras.layers.Dropout(0.5, name="drop"), keras.layers.Dropout(0.0, name="off")]
    model = keras.Sequential([keras.layers.Input((2,)), *layers, keras.layers.Dense(1, name="dense")])
    model.compile(keras.optimizers.Adam(0.1), loss="mse", run_eagerly=BACKEND == "tensorflow" and not of_step)
    with pytest.raises(ValueError, match=REFUSED[target].replace("(", r"\(").replace(" `", " .")):
        fit(model, ScheduleHyperparameter(target, 0.1))
    assert model.optimizer.beta_1 == 0.9
    fit(model)


def test_refuses_momentum_that_was_zero_and_a_second_schedule():
    with pytest.raises(ValueError, match="must not start at 0: SGD is then built"):
        fit(linear_model(keras.optimizers.SGD(0.1)), ScheduleHyperparameter("optimizer.momentum", 0.9))
    model = linear_model(keras.optimizers.SGD(LinearDecay(0.1, 4)))
    with pytest.raises(ValueError, match="already follows a schedule: give SGD a float"):
        fit(model, ScheduleHyperparameter("optimizer.learning_rate", 0.9))

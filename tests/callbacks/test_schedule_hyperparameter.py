"""A scheduled setting against the plain formula: weights after a few updates, what is saved, what is refused."""

import copy

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import ScheduleHyperparameter
from keras_lrsched.schedules import Constant, LinearDecay, Tabulated
from tests.contract.backends import BACKEND, JIT

STEPS = 4
X = np.array([[1.0, -2.0], [0.5, 1.5]], "float32")
Y = np.array([[3.0], [-1.0]], "float32")
W = np.array([[0.75], [-1.25]])
jit = pytest.mark.parametrize("jit", JIT)


def linear_model(optimizer, jit=False, loss="mse", **options):
    """A linear map whose gradient can be written down; all data are one batch."""
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, use_bias=False, name="dense")])
    model.set_weights([W])
    model.compile(optimizer, loss=loss, jit_compile=jit, **options)
    return model


def fit(model, *callbacks, epochs=STEPS, **options):
    model.fit(X, Y, batch_size=2, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks), **options)
    return model.get_weights()[0]


def gradient(w):
    return 2 / len(X) * X.T.astype("float64") @ (X @ w - Y)


def sgd(values, learning_rate=0.1, momentum=0.0, nesterov=False, weight_decay=0.0, clipnorm=np.inf, scheduled="momentum"):
    w, m = W, 0 * W
    for value in values:
        s = {"momentum": momentum, "weight_decay": weight_decay, "learning_rate": learning_rate, "clipnorm": clipnorm}
        s[scheduled] = value
        g = gradient(w)
        g = g * min(1, s["clipnorm"] / np.linalg.norm(g))
        w = w * (1 - s["weight_decay"] * s["learning_rate"])
        m = s["momentum"] * m - s["learning_rate"] * g
        w = w + (s["momentum"] * m - s["learning_rate"] * g if nesterov else m)
    return w


def adam(values, scheduled, learning_rate=0.1, weight_decay=0.0):
    w, m, v = W, 0 * W, 0 * W
    for t, value in enumerate(values, 1):
        s = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": weight_decay, scheduled: value}
        g = gradient(w)
        w = w * (1 - s["weight_decay"] * learning_rate)
        m = m + (1 - s["beta_1"]) * (g - m)
        v = v + (1 - s["beta_2"]) * (g**2 - v)
        alpha = learning_rate * np.sqrt(1 - s["beta_2"] ** t) / (1 - s["beta_1"] ** t)
        w = w - alpha * m / (np.sqrt(v) + s["epsilon"])
    return w


SGD_CASES = {  # the setting: what the optimizer starts with, what is scheduled
    "momentum": ({"momentum": 0.5}, [0.9, 0.6, 0.0, 0.3]),
    "weight_decay": ({"weight_decay": 0.5}, [0.5, 0.25, 0.0, 0.125]),
    "learning_rate": ({}, [0.1, 0.2, 0.0, 0.05]),
    "clipnorm": ({"clipnorm": 9.0}, [0.5, 1.0, 2.0, 0.25]),
}


@jit
@pytest.mark.parametrize("name", SGD_CASES)
def test_sgd_by_the_formula(name, jit):
    start, values = SGD_CASES[name]
    model = linear_model(keras.optimizers.SGD(0.1, **start), jit)
    weights = fit(model, ScheduleHyperparameter(f"optimizer.{name}", Tabulated(values)))
    np.testing.assert_allclose(weights, sgd(values, scheduled=name), rtol=2e-6)
    assert float(getattr(model.optimizer, name)) == pytest.approx(values[-1])


@jit
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_passes_through_zero(nesterov, jit):
    values = [0.9, 0.0, 0.9, 0.9]  # Keras asks `if momentum != 0`; the velocity must not stand still meanwhile
    model = linear_model(keras.optimizers.SGD(0.1, momentum=0.9, nesterov=nesterov), jit)
    weights = fit(model, ScheduleHyperparameter("optimizer.momentum", Tabulated(values)))
    np.testing.assert_allclose(weights, sgd(values, nesterov=nesterov), rtol=2e-6)


ADAM_CASES = {
    "beta_1": [0.9, 0.5, 0.0, 0.8],
    "beta_2": [0.9, 0.99, 0.5, 0.999],
    "epsilon": [1e-7, 0.1, 1.0, 10.0],
    "weight_decay": [0.5, 0.0, 1.0, 0.25],
}


@jit
@pytest.mark.parametrize("name", ADAM_CASES)
def test_adam_by_the_formula(name, jit):
    values = ADAM_CASES[name]
    kind = keras.optimizers.AdamW if name == "weight_decay" else keras.optimizers.Adam
    model = linear_model(kind(0.1), jit)
    weights = fit(model, ScheduleHyperparameter(f"optimizer.{name}", Tabulated(values)))
    np.testing.assert_allclose(weights, adam(values, name), rtol=5e-6)


@jit
def test_weight_decay_that_was_off(jit):
    model = linear_model(keras.optimizers.Adam(0.1), jit)
    weights = fit(model, ScheduleHyperparameter("optimizer.weight_decay", 0.5))
    np.testing.assert_allclose(weights, adam([0.5] * STEPS, "weight_decay"), rtol=5e-6)
    assert model.optimizer.weight_decay == 0.5


@jit
def test_two_settings_at_once_and_one_schedule_of_keras(jit):
    rates = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    decays = [0.5, 0.25, 0.0, 0.125]
    callbacks = [
        ScheduleHyperparameter("optimizer.learning_rate", rates),
        ScheduleHyperparameter("optimizer.weight_decay", Tabulated(decays)),
    ]
    model = linear_model(keras.optimizers.SGD(7.0, weight_decay=7.0), jit)
    w = W
    for t, decay in enumerate(decays):
        w = w * (1 - decay * 0.1 * 0.5**t) - 0.1 * 0.5**t * gradient(w)
    np.testing.assert_allclose(fit(model, *callbacks), w, rtol=2e-6)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1 * 0.5**3)


@jit
def test_gradient_accumulation_counts_updates(jit):
    values = [0.5, 0.25, 0.0]
    model = linear_model(keras.optimizers.SGD(0.1, weight_decay=0.5, gradient_accumulation_steps=2), jit)
    weights = fit(model, ScheduleHyperparameter("optimizer.weight_decay", Tabulated(values)), epochs=6)
    np.testing.assert_allclose(weights, sgd(values, scheduled="weight_decay"), rtol=2e-6)


@jit
def test_loss_scale_optimizer(jit):
    values = [0.9, 0.6, 0.0, 0.3]
    inner = keras.optimizers.SGD(0.1, momentum=0.5)
    model = linear_model(keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0), jit)
    weights = fit(model, ScheduleHyperparameter("optimizer.momentum", Tabulated(values)))
    np.testing.assert_allclose(weights, sgd(values), rtol=2e-6)
    assert inner.momentum == pytest.approx(0.3)


@jit
def test_multi_optimizer(jit):
    values = [0.9, 0.6, 0.0, 0.3]
    inner = keras.optimizers.SGD(0.1, momentum=0.5, name="inner")
    model = linear_model(keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(inner)), jit)
    weights = fit(model, ScheduleHyperparameter("optimizer.optimizers.inner.momentum", Tabulated(values)))
    np.testing.assert_allclose(weights, sgd(values), rtol=2e-6)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses steps_per_execution on PyTorch")
@jit
def test_steps_per_execution(jit):
    values = [0.9, 0.6, 0.0, 0.3]
    model = linear_model(keras.optimizers.SGD(0.1, momentum=0.5), jit, steps_per_execution=4)
    momentum = ScheduleHyperparameter("optimizer.momentum", Tabulated(values))
    model.fit(np.tile(X, (4, 1)), np.tile(Y, (4, 1)), batch_size=2, shuffle=False, verbose=0, callbacks=[momentum])
    np.testing.assert_allclose(model.get_weights()[0], sgd(values), rtol=2e-6)


def test_step_by_step():
    values = [0.9, 0.6, 0.0, 0.3]
    model = linear_model(keras.optimizers.SGD(0.1, momentum=0.5), run_eagerly=True)
    momentum = ScheduleHyperparameter("optimizer.momentum", Tabulated(values))
    rate = ScheduleHyperparameter("optimizer.learning_rate", 0.1)
    np.testing.assert_allclose(fit(model, momentum, rate), sgd(values), rtol=2e-6)


@jit
def test_resumes_at_the_step_of_the_optimizer(jit):
    values = [0.9, 0.6, 0.0, 0.3]
    model = linear_model(keras.optimizers.SGD(0.1, momentum=0.5), jit)
    momentum = ScheduleHyperparameter("optimizer.momentum", Tabulated(values))
    fit(model, momentum, epochs=1)
    fit(model, copy.deepcopy(ScheduleHyperparameter("optimizer.momentum", Tabulated(values))), epochs=1)
    np.testing.assert_allclose(fit(model, momentum, epochs=2), sgd(values), rtol=2e-6)


@jit
def test_a_step_after_training_uses_the_last_value(jit):
    model = linear_model(keras.optimizers.SGD(0.1, momentum=0.5), jit)
    fit(model, ScheduleHyperparameter("optimizer.momentum", Tabulated([0.9, 0.6])), epochs=2)
    assert isinstance(model.optimizer.momentum, float)
    np.testing.assert_allclose(fit(model, epochs=1), sgd([0.9, 0.6, 0.6]), rtol=2e-6)
    assert "train_step" not in vars(model)


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
@pytest.mark.parametrize("start", [0.3, 0])
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


@jit
def test_saved_while_training(jit, tmp_path):
    model = linear_model(keras.optimizers.AdamW(0.1, weight_decay=9.0), jit)
    names = [v.path for v in model.optimizer.variables]
    values = [0.5, 0.25, 0.125, 0.0625]
    decay = ScheduleHyperparameter("optimizer.weight_decay", Tabulated(values))
    rate = ScheduleHyperparameter("optimizer.learning_rate", Tabulated([0.1, 0.2, 0.3, 0.4]))
    save = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    weights = fit(model, decay, rate, save)
    assert [v.path for v in model.optimizer.variables][: len(names)] == names
    for epoch, value in enumerate(values, 1):
        saved = keras.models.load_model(tmp_path / f"{epoch}.keras")
        assert saved.optimizer.get_config()["weight_decay"] == value
        assert saved.optimizer.get_config()["learning_rate"] == pytest.approx(0.1 * epoch)
        assert len(saved.optimizer.variables) == len(model.optimizer.variables)
    np.testing.assert_array_equal(saved.get_weights()[0], weights)
    resumed = keras.models.load_model(tmp_path / "2.keras")
    np.testing.assert_allclose(fit(resumed, decay, rate, epochs=2), weights, rtol=1e-6)
    config = keras.optimizers.serialize(model.optimizer)
    assert keras.optimizers.deserialize(config).get_config() == model.optimizer.get_config()


@jit
def test_backup_and_restore(jit, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise InterruptedError

    values = [0.9, 0.6, 0.0, 0.3]
    for stop in ([Stop()], []):
        model = linear_model(keras.optimizers.SGD(0.1, momentum=0.5), jit)
        callbacks = [
            ScheduleHyperparameter("optimizer.momentum", Tabulated(values)),
            keras.callbacks.BackupAndRestore(tmp_path),
            *stop,
        ]
        if stop:
            with pytest.raises(InterruptedError):
                fit(model, *callbacks)
    np.testing.assert_allclose(fit(model, *callbacks), sgd(values), rtol=2e-6)


def test_after_an_interruption_another_schedule_takes_over():
    def stop(epoch, logs):
        raise InterruptedError

    model = linear_model(keras.optimizers.SGD(0.1, momentum=0.5))
    first = ScheduleHyperparameter("optimizer.momentum", Constant(0.9))
    with pytest.raises(InterruptedError):
        fit(model, first, keras.callbacks.LambdaCallback(on_epoch_end=stop))
    weights = fit(model, ScheduleHyperparameter("optimizer.momentum", Constant(0.2)), epochs=1)
    np.testing.assert_allclose(weights, sgd([0.9, 0.2]), rtol=2e-6)
    assert "train_step" not in vars(model)


@pytest.mark.parametrize("target", ["", ".", "optimizer.", "optimizer..momentum", None, 3])
def test_refuses_a_path(target):
    with pytest.raises(ValueError, match="Received: target="):
        ScheduleHyperparameter(target, 0.1)


@pytest.mark.parametrize("schedule", ["0.1", None, -1.0, float("nan")])
def test_refuses_a_schedule(schedule):
    with pytest.raises(ValueError, match="Received: schedule="):
        ScheduleHyperparameter("optimizer.momentum", schedule)


REFUSED = {
    "optimizer.beta1": "no numeric setting `beta1` in Adam. Did you mean `beta_1`. It has: beta_1, beta_2, ema_momentum, epsilon, learning_rate, weight_decay",
    "optimiser.beta_1": "no part `optimiser` in Sequential. Did you mean `optimizer`. It has: ",
    "layers.drop.rat": "no numeric setting `rat` in Dropout. Did you mean `rate`",
    "layers.dropp.rate": "no part `dropp` in list. Did you mean `drop`. It has: dense, drop, off",
    "layers.dense.units": "is not a number that may change in training: construct Dense with a float. Received: units=1",
    "layers.off.rate": "must not start at 0: Keras then builds Dropout without",
    "optimizer.amsgrad": "is not a number that may change",
    "optimizer.clipnorm": "construct Adam with a float. Received: clipnorm=None",
    "optimizer.gradient_accumulation_steps": "is not a number that may change",
    "loss.label_smoothing": "Compile the model with an object",
    "optimizer.ema_momentum": "The training step never reads `optimizer.ema_momentum`",
}


@pytest.mark.parametrize("target", REFUSED)
def test_refuses_a_target(target):
    if BACKEND == "torch" and "never reads" in REFUSED[target]:
        pytest.skip("a float that is not read leaves no trace")
    layers = [keras.layers.Dropout(0.5, name="drop"), keras.layers.Dropout(0.0, name="off")]
    model = keras.Sequential([keras.layers.Input((2,)), *layers, keras.layers.Dense(1, name="dense")])
    model.compile(keras.optimizers.Adam(0.1), loss="mse")
    with pytest.raises(ValueError, match=REFUSED[target].replace("(", r"\(").replace(" `", " .")):
        fit(model, ScheduleHyperparameter(target, 0.1))
    assert model.optimizer.beta_1 == 0.9
    fit(model)


def test_refuses_momentum_that_was_zero_and_a_second_schedule():
    with pytest.raises(ValueError, match="must not start at 0: Keras then builds SGD"):
        fit(linear_model(keras.optimizers.SGD(0.1)), ScheduleHyperparameter("optimizer.momentum", 0.9))
    model = linear_model(keras.optimizers.SGD(LinearDecay(0.1, 4)))
    with pytest.raises(ValueError, match="already follows a schedule: give SGD a float"):
        fit(model, ScheduleHyperparameter("optimizer.learning_rate", 0.9))


def test_refuses_what_cannot_work(monkeypatch):
    model = linear_model(keras.optimizers.SGD(0.1, momentum=0.5))
    callback = ScheduleHyperparameter("optimizer.momentum", 0.9)
    if BACKEND == "torch":
        model.jit_compile = True
        with pytest.raises(ValueError, match="Received: jit_compile=True"):
            fit(model, callback)
    if BACKEND == "tensorflow":

        class Strategy:
            num_replicas_in_sync = 2

        monkeypatch.setattr(type(model), "distribute_strategy", Strategy())
        callback.set_model(model)
        with pytest.raises(ValueError, match="Received: num_replicas_in_sync=2"):
            callback.on_train_begin()

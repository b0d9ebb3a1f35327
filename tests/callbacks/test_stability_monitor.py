"""The logs and actions of the monitor, on linear models whose sharpness is known."""

import copy

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import LossRecorder, TrainingState
from keras_lrsched.callbacks._probe import Probe
from keras_lrsched.callbacks.stability_monitor import StabilityMonitor
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.schedules import LinearDecay
from tests.contract.backends import JIT_WAYS
from tests.nightly import nightly

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(24, 3)).astype("float32"), RANDOM.normal(size=(24, 1)).astype("float32")
SHARPNESS = np.linalg.eigvalsh(2 * X.T @ X / 24)[-1]
NAMES = {"sharpness", "max_logit", "log_sum_exp", "gradient_norm", "gradient_noise", "instabilities"}


def network(rate=0.01, jit=False, optimizer=keras.optimizers.SGD):
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(optimizer(rate), loss="mse", jit_compile=jit)
    return model


def fit(model, *callbacks, y=Y, **options):
    options = {"batch_size": 4, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, y, callbacks=list(callbacks), **options).history


class Seen(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(dict(logs))


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_logs_and_history(jit):
    seen, model = Seen(), network(jit=jit)
    monitor = StabilityMonitor((X, Y), every=4, power_iterations=50)
    history = fit(model, monitor, seen, epochs=2)
    assert set(history) >= NAMES
    assert history["sharpness"] == pytest.approx([SHARPNESS] * 2, rel=1e-4)
    logits = [logs["max_logit"] for logs in seen.logs]
    assert [logits.index(value) + 1 for value in dict.fromkeys(logits)] == [1, 4, 8, 12]
    assert logits[-1] == pytest.approx(np.abs(model.predict(X, verbose=0)).max(), rel=1e-5)
    residual = X @ model.get_weights()[0] - Y
    assert seen.logs[-1]["gradient_norm"] == pytest.approx(np.linalg.norm(2 * X.T @ residual / 24), rel=1e-4)
    assert monitor.instabilities == 0


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_training_does_not_notice(jit):
    plain, model = network(jit=jit), network(jit=jit)
    fit(plain, epochs=2)
    history = fit(model, StabilityMonitor((X, Y), every=1), epochs=2, validation_data=(X, Y))
    np.testing.assert_array_equal(model.get_weights()[0], plain.get_weights()[0])
    assert history["loss"] == pytest.approx(fit(network(jit=jit), epochs=2)["loss"], rel=1e-6)


def test_warm_start_finds_the_largest():
    monitor = StabilityMonitor((X, Y), every=1, power_iterations=1)
    fit(network(), monitor, epochs=8)
    assert monitor.measured["sharpness"] == pytest.approx(SHARPNESS, rel=1e-4)


def test_stops_above_a_limit():
    monitor = StabilityMonitor((X, Y), every=2, power_iterations=50, max_sharpness=0.99 * SHARPNESS, action="stop")
    history = fit(network(), monitor, epochs=5)
    assert len(history["loss"]) == 1
    assert monitor.step == 1
    monitor = StabilityMonitor((X, Y), power_iterations=50, max_sharpness=1.01 * SHARPNESS, action="stop")
    assert len(fit(network(), monitor, epochs=5)["loss"]) == 5


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_lowers_the_rate_at_each_measurement_above_a_limit(jit):
    model = network(0.08, jit)
    monitor = StabilityMonitor((X, Y), every=2, max_logit=1e-3, action="lower", factor=0.25)
    history = fit(model, monitor)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.08 * 0.25**4)
    assert history["instabilities"] == [4]


def test_without_action_it_counts():
    model = network(0.08)
    monitor = StabilityMonitor((X, Y), every=2, max_logit=1e-3)
    fit(model, monitor)
    assert monitor.instabilities == 4
    assert float(model.optimizer.learning_rate) == pytest.approx(0.08)


def broken(at):
    y = Y.copy()
    y[4 * at] = np.nan
    return y


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_stops_at_the_first_batch_that_is_not_finite(jit):
    monitor = StabilityMonitor((X, Y), action="stop")
    fit(network(jit=jit), monitor, y=broken(at=3), epochs=2)
    assert monitor.step == 4
    assert monitor.instabilities == 1


def test_lower_alone_stops():
    monitor, model = StabilityMonitor((X, Y), action="lower"), network(0.08)
    fit(model, monitor, y=broken(at=3), epochs=2)
    assert monitor.step == 4
    assert float(model.optimizer.learning_rate) == pytest.approx(0.08)


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("action", ["lower", None])
def test_rollback(action, jit):
    """The broken batch is number 4 of 6: its update and that of number 3 are undone."""
    model = network(0.08, jit)
    monitor = StabilityMonitor((X, Y), every=2, action=action, rollback=True)
    history = fit(model, monitor, y=broken(at=3))
    expected = network(0.08, jit)
    rate = 0.04 if action else 0.08
    for batch in (0, 1, 4, 5):
        if batch == 4:
            expected.optimizer.learning_rate = rate
        part = slice(4 * batch, 4 * batch + 4)
        expected.train_on_batch(X[part], Y[part])
    np.testing.assert_allclose(model.get_weights()[0], expected.get_weights()[0], rtol=1e-5)
    assert float(model.optimizer.learning_rate) == pytest.approx(rate)
    assert int(model.optimizer.iterations) == 4
    assert monitor.instabilities == 1
    assert np.isfinite(history["loss"]).all()


def test_rolls_back_to_the_start():
    model = network(0.08)
    monitor = StabilityMonitor((X, Y), action="stop", rollback=True)
    fit(model, monitor, y=broken(at=0))
    np.testing.assert_array_equal(model.get_weights()[0], 1)


@nightly
def test_diverging_run_is_saved():
    """The sharpness is 1 in each direction, so plain gradient descent diverges above a rate of 2."""
    x = np.linalg.qr(X)[0] * 12**0.5
    model = network(40.0)
    monitor = StabilityMonitor((x, Y), every=5, action="lower", factor=0.25, rollback=True)
    model.fit(x, Y, batch_size=24, epochs=120, verbose=0, callbacks=[monitor])
    assert monitor.measured["sharpness"] == pytest.approx(1)
    assert float(model.optimizer.learning_rate) == pytest.approx(40 / 4**monitor.instabilities)
    assert monitor.instabilities == 3
    np.testing.assert_allclose(model.get_weights()[0], np.linalg.lstsq(x, Y)[0], atol=1e-5)


def test_schedule_is_allowed_unless_the_rate_is_set():
    fit(network(LinearDecay(0.1, 10)), StabilityMonitor((X, Y), action="stop"))
    with pytest.raises(ValueError, match="StabilityMonitor sets the learning rate"):
        fit(network(LinearDecay(0.1, 10)), StabilityMonitor((X, Y), action="lower"))


@nightly
def test_two_inputs_and_outputs():
    a, b = keras.Input((3,)), keras.Input((3,))
    model = keras.Model({"a": a, "b": b}, [keras.layers.Dense(1)(a), keras.layers.Dense(2)(b)])
    model.compile("sgd", loss=["mse", "mae"])
    x, y = {"a": X, "b": X}, [Y, np.tile(Y, 2)]
    monitor, recorder = StabilityMonitor((x, y), every=1), LossRecorder()
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[monitor, recorder])
    assert set(monitor.measured) | {"instabilities"} == NAMES
    outputs = np.concatenate([np.abs(output).ravel() for output in model.predict(x, verbose=0)])
    assert monitor.measured["max_logit"] == pytest.approx(outputs.max(), rel=1e-5)


@nightly
def test_resumed_run(tmp_path):
    def script(path, epochs):
        keras.utils.set_random_seed(1)
        model = network(0.3, optimizer=keras.optimizers.Adam)
        batches = ScheduledBatches(X, Y, batch_size=4, seed=2)
        monitor = StabilityMonitor((X, Y), every=2, max_logit=0.5, action="lower", rollback=True, power_iterations=1)
        model.fit(batches, epochs=epochs, verbose=0, callbacks=[monitor, TrainingState(path, every=1)])
        return monitor, model.get_weights()[0]

    script(tmp_path / "two", 2)
    (whole, expected), (resumed, weights) = script(tmp_path / "one", 3), script(tmp_path / "two", 3)
    np.testing.assert_array_equal(weights, expected)
    assert resumed.measured == whole.measured
    assert resumed.instabilities == whole.instabilities


@nightly
def test_copy():
    monitor = copy.deepcopy(StabilityMonitor((X, Y)))
    fit(network(), monitor)
    again = copy.deepcopy(monitor)
    fit(network(), again)
    assert again.step == 6  # a copy begins anew


def test_weights_in_16_bits():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, use_bias=False, dtype="bfloat16")])
    model.compile("sgd", "mse")
    history = fit(model, StabilityMonitor((X, Y), power_iterations=20))
    assert history["sharpness"] == pytest.approx([SHARPNESS], rel=0.05)


@nightly
def test_model_without_input_and_further_fits():
    model = keras.Sequential([keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    monitor = StabilityMonitor((X, Y), every=4, rollback=True)
    for _ in range(2):
        assert set(fit(model, monitor)) >= NAMES
    assert monitor.step == 12


def without_call():
    """A model that is trained by a step of its own, and so far as is built."""
    model = keras.Model()
    model.part = network()
    model.built = True
    return model


@pytest.mark.parametrize(
    ("model", "data", "loss"),
    [
        (network, (X[:, :2], Y), "mse"),
        (network, (X, np.ones((24, 5, 5))), "mse"),
        (without_call, (X, Y), "mse"),
    ],
    ids=["inputs", "targets", "call"],
)
def test_what_cannot_be_evaluated_is_refused(model, data, loss):
    model = model()
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match=r"To be measured.*Received: .* data of the shapes"):
        Probe(model, data).check()


def test_data_that_do_not_fit_are_refused_before_training():
    model = network()
    with pytest.raises(ValueError, match=r"Received: Sequential 'sequential.*', data of the shapes {'x': \(24, 2\)"):
        fit(model, StabilityMonitor((X[:, :2], Y)))
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 0


def test_watches_another_value():
    model = network()
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanMetricWrapper(lambda y, p: np.nan * p, name="ratio")])
    monitor = StabilityMonitor((X, Y), action="stop", monitor="ratio")
    fit(model, monitor, epochs=2)
    assert (monitor.step, monitor.instabilities) == (1, 1)
    with pytest.raises(ValueError, match=r"Received: 'd_loss'. StabilityMonitor watches what its argument `monitor`"):
        fit(model, StabilityMonitor((X, Y), monitor="d_loss"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": X}, "`data` must be a tuple of inputs, targets"),
        ({"data": (X[:1], Y[:1])}, "at least two samples. Received: data="),
        ({"every": 0}, "`every` must be a positive integer. Received: every=0"),
        ({"power_iterations": 0}, "`power_iterations` must be a positive integer"),
        ({"max_sharpness": 0}, "`max_sharpness` must be a positive number. Received: max_sharpness=0"),
        ({"max_logit": -1}, "`max_logit` must be a positive number. Received: max_logit=-1"),
        ({"action": "raise"}, "`action` must be one of None, 'stop', 'lower'. Received: action='raise'"),
        ({"factor": 1}, "`factor` must be a number between 0 and 1, both excluded"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        StabilityMonitor(**{"data": (X, Y), **options})

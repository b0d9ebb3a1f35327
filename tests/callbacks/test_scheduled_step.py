"""The step in which settings are scheduled: how it is run, resumed, saved, and left."""

import copy

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import ScheduleHyperparameter
from keras_lrsched.schedules import Constant, Tabulated
from tests.callbacks.linear_regression import X, Y, fit, jit, linear_model, sgd
from tests.contract.backends import BACKEND


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

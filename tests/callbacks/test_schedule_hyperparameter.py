"""A scheduled setting of the optimizer against the plain formula, after a few updates."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import ScheduleHyperparameter
from keras_lrsched.schedules import Tabulated
from tests.callbacks.linear_regression import STEPS, W, adam, fit, gradient, jit, linear_model, sgd
from tests.contract.backends import BACKEND

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


@pytest.mark.parametrize("target", ["", ".", "optimizer.", "optimizer..momentum", None, 3])
def test_refuses_a_path(target):
    with pytest.raises(ValueError, match="Received: target="):
        ScheduleHyperparameter(target, 0.1)


@pytest.mark.parametrize("schedule", ["0.1", None, -1.0, float("nan")])
def test_refuses_a_schedule(schedule):
    with pytest.raises(ValueError, match="Received: schedule="):
        ScheduleHyperparameter("optimizer.momentum", schedule)


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

"""Cyclical learning rates: functions as scales, and what TensorFlow Addons is used to."""

import inspect
import json

import keras
import numpy as np
import pytest

from keras_lrsched import schedules
from keras_lrsched.schedules import CyclicalLearningRate
from tests.contract.backends import traced

CLR = {"initial_learning_rate": 0.1, "maximal_learning_rate": 0.5, "step_size": 3}
STEPS = np.arange(25)


@keras.saving.register_keras_serializable(package="tests")
def halved(count):
    return 1 / (2.0 ** (count - 1))


@keras.saving.register_keras_serializable(package="tests")
def halved_by_keras(count):
    return keras.ops.power(2.0, 1 - keras.ops.convert_to_tensor(count))


@pytest.mark.parametrize("function", [halved, halved_by_keras])
def test_function(function):
    named = CyclicalLearningRate(**CLR, scale_fn="triangular2")
    given = CyclicalLearningRate(**CLR, scale_fn=function)
    np.testing.assert_allclose(given.values(STEPS), named.values(STEPS), rtol=1e-6)
    np.testing.assert_allclose(traced(given, STEPS), named.values(STEPS), rtol=3e-6)
    np.testing.assert_allclose(given(7), named.values(STEPS)[7], rtol=3e-6)
    config = json.loads(json.dumps(keras.optimizers.schedules.serialize(given)))
    assert config["config"]["scale_fn"] == f"tests>{function.__name__}"
    again = keras.optimizers.schedules.deserialize(config)
    assert again.scale_fn is function
    np.testing.assert_array_equal(again.values(STEPS), given.values(STEPS))


def test_function_of_the_iteration():
    given = CyclicalLearningRate(**CLR, scale_fn=lambda t: 1 / (1 + t), scale_mode="iterations")
    plain = CyclicalLearningRate(**CLR, scale_fn="triangular")
    np.testing.assert_allclose(given.values(STEPS), 0.1 + (plain.values(STEPS) - 0.1) / (1 + STEPS), rtol=1e-12)


def test_constant_function():
    given = CyclicalLearningRate(**CLR, scale_fn=lambda cycle: 1.0)
    np.testing.assert_array_equal(given.values(STEPS), CyclicalLearningRate(**CLR, scale_fn="triangular").values(STEPS))
    np.testing.assert_allclose(traced(given, STEPS), given.values(STEPS), rtol=3e-6)


def test_function_that_is_not_registered():
    def scale(cycle):
        return 1.0

    with pytest.raises(ValueError, match=r"register_keras_serializable.*Received: scale_fn=<function"):
        CyclicalLearningRate(**CLR, scale_fn=scale).get_config()
    with keras.saving.custom_object_scope({"scale": scale}):
        config = CyclicalLearningRate(**CLR, scale_fn=scale).get_config()
        assert CyclicalLearningRate.from_config(config).scale_fn is scale
    with pytest.raises(ValueError, match="Received: scale_fn='scale'"):
        CyclicalLearningRate.from_config(config)


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "CyclicalLearningRate": ["scale_fn", "scale_mode", "name", "gamma"],
        "TriangularCyclicalLearningRate": ["scale_mode", "name"],
        "Triangular2CyclicalLearningRate": ["scale_mode", "name"],
        "ExponentialCyclicalLearningRate": ["scale_mode", "gamma", "name"],
    }.items(),
)
def test_arguments_of_tensorflow_addons(name, expected):
    parameters = inspect.signature(getattr(schedules, name)).parameters
    assert [*parameters] == [*CLR, *expected]
    assert parameters["scale_mode"].default == ("iterations" if name.startswith("Exponential") else "cycle")
    assert parameters["name"].default == name


@pytest.mark.parametrize("name", ["triangular2", "exp_range"])
def test_cycles_do_not_merge_late_in_a_run(name):
    """TensorFlow Addons counts in float32: above 2^24 iterations its triangles lose their corners."""
    schedule = CyclicalLearningRate(0.0, 1.0, step_size=2**24 + 1, scale_fn=name, gamma=0.5 if name == "exp_range" else 1.0)
    steps = 2**24 + np.arange(3)
    values = traced(schedule, steps)
    assert values[1] == values.max()
    np.testing.assert_allclose(values, schedule.values(steps), rtol=3e-6)


@pytest.mark.parametrize("name", ["Triangular2CyclicalLearningRate", "ExponentialCyclicalLearningRate"])
def test_before_the_first_step_is_the_first_value(name):
    """However long before: cycles do not grow without a bound."""
    schedule = getattr(schedules, name)(1e-4, 1e-2, step_size=2)
    steps = np.array([-(10**9), -(10**6), -1, 0])
    np.testing.assert_array_equal(schedule.values(steps), [1e-4] * 4)
    np.testing.assert_allclose(traced(schedule, steps), [1e-4] * 4, rtol=1e-6)

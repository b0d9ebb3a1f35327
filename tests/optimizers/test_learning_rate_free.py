"""Prodigy, D-Adaptation, COCOB: what the contract of all optimizers does not know about them."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import COCOB, DAdaptAdam, DAdaptLion, DAdaptSGD, Prodigy
from keras_lrsched.schedules import LinearDecay
from tests.contract.backends import BACKEND

DISTANCE = [Prodigy, DAdaptSGD, DAdaptAdam, DAdaptLion]
START, TARGET = np.array([3.0, -1.0, 0.5, 2.0], "float32"), np.array([0.0, 1.0, 0.5, -2.0], "float32")


def number(variable):
    return np.array(ops.convert_to_numpy(variable))


def descend(optimizer, weights, targets, steps=40):
    for _ in range(steps):
        optimizer.apply([w - target for w, target in zip(weights, targets, strict=True)], weights)


@pytest.mark.parametrize("method", [*DISTANCE, COCOB])
@pytest.mark.parametrize("rate", [1e-3, 0, 100])
def test_learning_rate_of_another_method_is_warned_of(method, rate):
    with pytest.warns(
        UserWarning, match=rf"{method.__name__} .* should be near 1. Received: learning_rate={rate}"
    ) as caught:
        method(learning_rate=rate)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("method", [*DISTANCE, COCOB])
def test_other_learning_rates_are_not_warned_of(method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rate in (1, 1.0, 0.5, 2, LinearDecay(1.0, 10), LinearDecay(1e-3, 10)):
            method(learning_rate=rate)


@pytest.mark.parametrize("method", DISTANCE)
def test_d_belongs_to_all_variables(method):
    """One vector, or the same in two parts."""
    whole, parts = [keras.Variable(START)], [keras.Variable(START[:1], name="a"), keras.Variable(START[1:], name="b")]
    one, two = method(d0=1e-2), method(d0=1e-2)
    descend(one, whole, [TARGET])
    descend(two, parts, [TARGET[:1], TARGET[1:]])
    assert 0.1 < number(one.d) < 10
    np.testing.assert_allclose(number(two.d), number(one.d), rtol=1e-4)
    np.testing.assert_allclose(np.concatenate([number(w) for w in parts]), number(whole[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", DISTANCE)
def test_d_starts_at_d0_and_is_saved(method):
    w, again = keras.Variable(START), keras.Variable(START)
    optimizer, other = method(d0=0.125), method(d0=0.5)
    assert optimizer.d is None
    optimizer.build([w])
    assert number(optimizer.d) == 0.125
    descend(optimizer, [w], [TARGET], 20)
    other.build([again])
    state: dict = {}
    optimizer.save_own_variables(state)
    other.load_own_variables({name: np.array(value) for name, value in state.items()})
    assert number(other.d) == number(optimizer.d) > 0.125


@pytest.mark.parametrize("method", DISTANCE)
def test_growth_is_limited(method):
    w, optimizer = keras.Variable(START), method(d0=1e-3, growth_rate=1.1)
    for t in range(20):
        before = number(optimizer.d) if t else 1e-3
        descend(optimizer, [w], [TARGET], 1)
        is_first_growth = method is Prodigy and before == np.float32(1e-3)
        assert before <= number(optimizer.d) <= (np.inf if is_first_growth else 1.1 * before * (1 + 1e-6))
    assert number(optimizer.d) > 1e-3


@pytest.mark.parametrize("method", [DAdaptSGD, DAdaptAdam])
def test_decay_of_some_variables(method):
    """Where d cannot grow, each variable is on its own; these two cannot show it in the contract."""

    def trained(**options):
        weights = [keras.Variable(START, name="first"), keras.Variable(START, name="second")]
        descend(method(d0=0.5, growth_rate=1, **options), weights, [TARGET, TARGET], 5)
        return [number(w) for w in weights]

    none, every = trained(), trained(weight_decay=0.5)
    first, second = trained(weight_decay=0.5, exclude_from_weight_decay=["second"])
    assert np.any(none[1] != every[1])
    np.testing.assert_array_equal(first, every[0])
    np.testing.assert_array_equal(second, none[1])


def test_first_gradient_of_zero_is_not_the_scale_of_sgd():
    """The official code divides by it."""
    late, early = keras.Variable(START), keras.Variable(START)
    optimizer, other = DAdaptSGD(d0=0.1), DAdaptSGD(d0=0.1)
    optimizer.apply([ops.zeros(4)], [late])
    descend(optimizer, [late], [TARGET])
    descend(other, [early], [TARGET])
    np.testing.assert_array_equal(number(late), number(early))


def test_prodigy_knows_the_way_from_the_start_in_all_digits():
    """1e-6 of steps from a weight of 1000 is below the rounding of float32, yet d grows as it does from 0."""
    estimates = []
    for offset in (0.0, 1000.0):
        w, optimizer = keras.Variable(START + offset), Prodigy()
        for _ in range(10):
            optimizer.apply([ops.convert_to_tensor(START - TARGET)], [w])
        estimates.append(number(optimizer.d))
    assert estimates[0] > 1e-5
    assert estimates[0] == estimates[1]


@pytest.mark.parametrize("slice_p", [1, 3, 11])
def test_prodigy_has_less_state_with_slices(slice_p):
    optimizer = Prodigy(slice_p=slice_p)
    optimizer.build([keras.Variable(np.zeros((11, 30)), dtype="float32", name="kernel")])
    assert optimizer.state_bytes() == 330 * 8 + 330 // slice_p * 8 + 4 * 4


@pytest.mark.skipif(BACKEND != "tensorflow", reason="float64 needs no switch there")
@pytest.mark.parametrize("method", [*DISTANCE, COCOB])
def test_variables_in_float64(method):
    weights = [keras.Variable(START, dtype="float64", name="double"), keras.Variable(START, name="single")]
    options = {} if method is COCOB else {"d0": 0.1}
    optimizer = method(**options, weight_decay=0.1)
    for _ in range(5):
        optimizer.apply([ops.cast(w, w.dtype) - ops.cast(TARGET, w.dtype) for w in weights], weights)
    np.testing.assert_allclose(number(weights[0]), number(weights[1]), rtol=1e-5, atol=1e-6)
    assert np.all(number(weights[0])[:2] != START[:2])

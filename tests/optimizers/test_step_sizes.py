"""DoG, DoWG and Polyak steps: their step sizes, where the reference runs do not show them."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import DoG, DoWG, PolyakMomentum


def number(tensor):
    return np.array(ops.convert_to_numpy(tensor))


def descend(optimizer, steps):
    """The weights on the way down 0.5 w^2 from 1."""
    w, history = keras.Variable([1.0]), []
    for _ in range(steps):
        if isinstance(optimizer, PolyakMomentum):
            optimizer.set_loss(0.5 * float(number(w)[0]) ** 2)
        optimizer.apply([ops.convert_to_tensor(w) + 0.0], [w])
        history.append(float(number(w)[0]))
    return history


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"learning_rate": 1.0}, [0.5, 0.4107142857, 0.3602310206, 0.3254200847, 0.2989839461, 0.2777164818]),
        ({}, [0.9, 0.72, 0.6092307692, 0.5408825952, 0.4918718511, 0.4538073953]),
        ({"method": "shb"}, [0.9, 0.72, 0.486, 0.243, 0.0243, -0.17253]),
    ],
)
def test_polyak_steps_down_a_parabola(options, expected):
    np.testing.assert_allclose(descend(PolyakMomentum(**options), 6), expected, rtol=1e-5)


@pytest.mark.parametrize("method", ["smag", "shb"])
def test_polyak_steps_are_not_negative(method):
    """Below the lower bound, and against a heavy ball that climbs."""
    optimizer, w = PolyakMomentum(lb=1.0, method=method), keras.Variable([1.0, 2.0])
    optimizer.set_loss(0.5)
    optimizer.apply([ops.ones(2)], [w])
    np.testing.assert_array_equal(number(w), [1.0, 2.0])
    optimizer.set_loss(float("nan"))
    optimizer.apply([ops.ones(2)], [w])
    assert np.all(np.isnan(number(w)))


def test_polyak_multipliers_divide_one_step_size():
    """A variable with a multiplier goes as many times farther along the momentum; norms are over both."""
    one, two = keras.Variable([0.0], name="one"), keras.Variable([0.0], name="two")
    optimizer = PolyakMomentum(10.0, learning_rate_multipliers={"two": 0.5})
    optimizer.set_loss(4.0)
    optimizer.apply([ops.ones(1), ops.ones(1)], [one, two])
    np.testing.assert_allclose([number(one)[0], number(two)[0]], [-2.0, -1.0], rtol=1e-6)


def test_polyak_steps_in_fit():
    """The compiled step has the loss of each batch: of w^2, a quarter of the gradient 2 w goes to half of w."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(PolyakMomentum(1.0, momentum=0.0), "mse")
    model.fit(np.ones((6, 1)), np.zeros((6, 1)), batch_size=2, verbose=0)
    np.testing.assert_allclose(number(layer.kernel), [[0.125]], rtol=1e-5)


def distance_over_gradients(gradients, start, reps_rel):
    w, r, s = start, reps_rel * (1 + np.linalg.norm(start)), 1e-8
    for g in gradients:
        r, s = max(r, np.linalg.norm(w - start)), s + np.sum(g**2)
        w = w - r / np.sqrt(s) * g
    return w


def test_dog_by_layer():
    """Each variable as if alone; together they have one distance and one sum."""
    rng = np.random.default_rng(0)
    starts, gradients = rng.normal(size=(2, 3)), rng.normal(size=(6, 2, 3))
    for layerwise in (False, True):
        weights = [keras.Variable(start, dtype="float32") for start in starts]
        optimizer = DoG(reps_rel=0.1, layerwise=layerwise)
        for each in gradients:
            optimizer.apply([ops.convert_to_tensor(g, "float32") for g in each], weights)
        if layerwise:
            expected = [distance_over_gradients(gradients[:, i], starts[i], 0.1) for i in range(2)]
        else:
            expected = distance_over_gradients(gradients.reshape(6, 6), starts.ravel(), 0.1).reshape(2, 3)
        np.testing.assert_allclose([number(w) for w in weights], expected, rtol=1e-5)


@pytest.mark.parametrize("make", [lambda: DoG(reps_rel=1e-8), lambda: DoWG(init_estim_sq_dist=1e-16, epsilon=1e-12)])
def test_first_steps_below_the_digits_of_the_weights_count(make):
    """A distance of 1e-8 is no difference of float32 weights of size 1, and still grows."""
    optimizer, w = make(), keras.Variable([1.0, 1.0])
    for _ in range(50):
        optimizer.apply([ops.ones(2)], [w])
    assert number(optimizer._scalars["r"]) > 4 * 1e-16
    assert np.linalg.norm(number(optimizer._states[0]["travelled"])) > 2e-8


def test_a_resting_variable_counts_in_the_distance():
    w, v = keras.Variable([1.0]), keras.Variable([1.0])
    optimizer = DoG(reps_rel=1.0)
    optimizer.apply([ops.ones(1), ops.ones(1)], [w, v])
    r = 1 + np.sqrt(2.0)
    np.testing.assert_allclose(number(v), 1 - r / np.sqrt(2.0), rtol=1e-5)
    optimizer._states[1]["travelled"].assign([-10.0])
    optimizer.apply([ops.ones(1)], [w])
    np.testing.assert_allclose(number(optimizer._scalars["r"]), np.sqrt(100 + r**2 / 2), rtol=1e-5)


@pytest.mark.parametrize("kind", [DoG, DoWG])
def test_learning_rate_for_another_method(kind):
    with pytest.warns(UserWarning, match="should be near 1. Received: learning_rate=0.001"):
        kind(0.001)

"""Conditional gradient with the nuclear norm, and proximal Adagrad with L1."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import ConditionalGradient, ProximalAdagrad
from keras_lrsched.optimizers.conditional_gradient import first_singular_vectors
from keras_lrsched.schedules import LinearDecay


def number(tensor):
    return np.array(ops.convert_to_numpy(tensor))


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 3, 4)])
def test_first_singular_vectors(shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    u, _, v = np.linalg.svd(x.reshape(-1, shape[-1]), full_matrices=False)
    expected = np.outer(u[:, 0], v[0]).reshape(shape)
    np.testing.assert_allclose(number(first_singular_vectors(ops.convert_to_tensor(x))), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_both_norms_are_one_for_vectors(shape):
    g, weights = np.random.default_rng(1).normal(size=shape), []
    for ord in ("fro", "nuclear"):
        w = keras.Variable(np.ones(shape), dtype="float32")
        ConditionalGradient(0.5, ord=ord).apply([ops.convert_to_tensor(g, "float32")], [w])
        weights.append(number(w))
    np.testing.assert_allclose(*weights, rtol=1e-6)


@pytest.mark.parametrize("ord", ["fro", "nuclear"])
def test_weights_stay_in_the_ball_and_reach_its_best_point(ord):
    """Of a linear loss <g, w>, with the rate of Frank-Wolfe, 2 / (t + 2)."""
    g, w = np.array([[3.0, 0.0], [0.0, 1.0]], "float32"), keras.Variable(np.zeros((2, 2)), dtype="float32")
    optimizer = ConditionalGradient(0.0, lambda_=2.0, ord=ord)
    for t in range(20):
        optimizer.learning_rate = 1 - 2 / (t + 2)
        optimizer.apply([ops.convert_to_tensor(g)], [w])
        assert np.linalg.norm(number(w), "nuc" if ord == "nuclear" else "fro") < 2.0 + 1e-5
    best = {"fro": -2.0 * g / np.sqrt(10.0), "nuclear": np.array([[-2.0, 0.0], [0.0, 0.0]])}[ord]
    np.testing.assert_allclose(number(w), best, atol=1e-5)


def test_schedule_of_the_share_that_remains():
    optimizer, w = ConditionalGradient(LinearDecay(1.0, 2), lambda_=1.0), keras.Variable([4.0])
    for expected in (4.0, 0.5 * 4.0 - 0.5, -1.0):
        optimizer.apply([ops.ones(1)], [w])
        np.testing.assert_allclose(number(w), [expected], rtol=1e-6)


def test_proximal_adagrad_sets_weights_to_zero_and_keeps_them():
    """Where the gradient is smaller than l1."""
    optimizer, w = ProximalAdagrad(0.5, l1_regularization_strength=0.2), keras.Variable([0.3, 0.3])
    for _ in range(30):
        optimizer.apply([ops.convert_to_tensor([0.1, -0.5])], [w])
    assert number(w)[0] == 0
    assert number(w)[1] > 1

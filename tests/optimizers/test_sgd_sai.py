"""The signal-to-noise ratio of SGD-SaI where its definition ends."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import SGDSaI


def moves(gradients, start, **options):
    """By how much one variable moves in each update, over the learning rate."""
    w, optimizer = keras.Variable(start, name="w"), SGDSaI(learning_rate=0.5, weight_decay=None, **options)
    history = []
    for gradient in gradients:
        before = ops.convert_to_numpy(w) + 0
        optimizer.apply([ops.convert_to_tensor(gradient, "float32")], [w])
        history.append((before - ops.convert_to_numpy(w)) / 0.5)
    return history


@pytest.mark.parametrize("gradient", [0.5, [0.5], [[0.5]], [0.1] * 7, [-3.0] * 100])
def test_no_noise_is_a_ratio_of_one(gradient):
    np.testing.assert_allclose(moves([gradient], np.zeros(np.shape(gradient)))[0], gradient, rtol=1e-6)


def test_ratio_is_that_of_the_first_gradient():
    gradients = [[1.0, 2.0, 3.0], [4.0, -1.0, 0.0]]
    snr = np.linalg.norm(gradients[0]) / np.std(gradients[0], ddof=1)
    first, second = moves(gradients, [0.0, 0.0, 0.0])
    np.testing.assert_allclose(first, snr * np.array(gradients[0]), rtol=1e-6)
    np.testing.assert_allclose(second, snr * (0.9 * np.array(gradients[0]) + 0.1 * np.array(gradients[1])), rtol=1e-5)


def test_zero_gradients_are_waited_for():
    zero, gradients = [0.0, 0.0], [[3.0, -1.0], [1.0, 1.0]]
    late, early = moves([zero, zero, *gradients], zero), moves(gradients, zero)
    np.testing.assert_array_equal(late[:2], np.zeros((2, 2)))
    np.testing.assert_array_equal(late[2:], early)


def test_a_variable_whose_gradients_come_later():
    optimizer = SGDSaI(learning_rate=0.5, weight_decay=None)
    one, other = (keras.Variable([0.0, 0.0], name=name) for name in ("one", "other"))
    gradient = ops.convert_to_tensor([3.0, -1.0])
    optimizer.build([one, other])
    optimizer.apply([gradient], [one])
    optimizer.apply([gradient], [other])
    np.testing.assert_array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))


def test_without_momentum():
    first, second = moves([[3.0, -3.0], [1.0, 0.0]], [0.0, 0.0], momentum=0.0)
    np.testing.assert_allclose([first, second], [[3.0, -3.0], [1.0, 0.0]], rtol=1e-6)

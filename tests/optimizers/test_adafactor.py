"""The memory of Adafactor and AdaLomo, and how their learning rates are limited."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import Adafactor, AdaLomo


@pytest.mark.parametrize("optimizer", [Adafactor, AdaLomo])
def test_state_is_rows_and_columns(optimizer):
    for shape, numbers in (((256, 512), 768), ((3, 3, 64, 64), 9 * 128), ((7,), 7), ((), 1)):
        instance = optimizer()
        instance.build([keras.Variable(np.zeros(shape), dtype="float32", name="w")])
        assert instance.state_bytes() == 4 * numbers
    instance = optimizer()
    instance.build([keras.Variable(np.zeros((256, 512)), dtype="float32", name="w")])
    assert instance.state_bytes_per_parameter() < 0.1


def test_short_axes_are_not_factored():
    """As in optax, whose default is 128: a kernel of a convolution has few channels, or many."""
    sizes = {(256, 128): 384, (256, 127): 256 * 127, (3, 3, 64, 128): 9 * 64 * 128, (5,): 5}
    for shape, numbers in sizes.items():
        optimizer = Adafactor(min_dim_size_to_factor=128)
        optimizer.build([keras.Variable(np.zeros(shape), dtype="float32", name="w")])
        assert optimizer.state_bytes() == 4 * numbers
    whole, factored = (keras.Variable(np.ones((2, 3)), dtype="float32") for _ in range(2))
    g = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    for w, least in ((whole, 3), (factored, 2)):
        optimizer = Adafactor(0.1, relative_step=False, scale_parameter=False, min_dim_size_to_factor=least)
        optimizer.apply([ops.convert_to_tensor(g, "float32")], [w])
    np.testing.assert_allclose(ops.convert_to_numpy(whole), 1 - 0.1, rtol=1e-6)  # each entry over its own root
    assert np.ptp(ops.convert_to_numpy(factored)) > 0.05


def test_a_mean_of_updates_costs_a_whole_slot():
    optimizer = Adafactor(beta_1=0.9)
    optimizer.build([keras.Variable(np.zeros((256, 512)), dtype="float32", name="w")])
    assert optimizer.state_bytes() == 4 * (768 + 256 * 512)


def step_lengths(steps=30, **options):
    """Of the updates by a constant gradient, which are the learning rate."""
    optimizer, w = Adafactor(scale_parameter=False, **options), keras.Variable([[0.0]])
    lengths = []
    for _ in range(steps):
        before = float(w.value[0, 0])
        optimizer.apply([ops.convert_to_tensor([[-2.0]])], [w])
        lengths.append(float(w.value[0, 0]) - before)
    return lengths


def test_relative_step_is_a_limit():
    t = np.arange(1, 31)
    np.testing.assert_allclose(step_lengths(learning_rate=0.25), np.minimum(0.25, t**-0.5), rtol=1e-4)


def test_without_relative_step_there_is_none():
    np.testing.assert_allclose(step_lengths(learning_rate=0.25, relative_step=False), 0.25, rtol=1e-4)


def test_warmup_init():
    np.testing.assert_allclose(step_lengths(warmup_init=True), 1e-6 * np.arange(1, 31), rtol=1e-4)


def test_stack_of_matrices_is_each_by_itself():
    stack = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    options = {"scale_parameter": False, "clip_threshold": 1e9}
    together = keras.Variable(np.zeros_like(stack), name="w")
    Adafactor(**options).apply([ops.convert_to_tensor(stack)], [together])
    for part, matrix in zip(ops.convert_to_numpy(together), stack, strict=True):
        alone = keras.Variable(np.zeros_like(matrix), name="w")
        Adafactor(**options).apply([ops.convert_to_tensor(matrix)], [alone])
        np.testing.assert_allclose(part, ops.convert_to_numpy(alone), rtol=1e-6)


@pytest.mark.parametrize("optimizer", [Adafactor, AdaLomo])
@pytest.mark.parametrize("size", [3e19, 3e38])
@pytest.mark.parametrize("shape", [(400, 4), (5,)])
def test_gradients_whose_squares_are_no_float32(optimizer, size, shape):
    """They are scaled down together, so that the update is what it is for smaller ones."""
    rng, ends = np.random.default_rng(0), []
    gradient = rng.uniform(0.1, 1.0, shape)
    for scale in (1.0, size):
        w = keras.Variable(np.ones(shape), dtype="float32")
        optimizer(learning_rate=0.01).apply([ops.convert_to_tensor(scale * gradient, "float32")], [w])
        ends.append(ops.convert_to_numpy(w))
    np.testing.assert_allclose(*ends, rtol=1e-5)
    assert np.all(ends[0] != 1)

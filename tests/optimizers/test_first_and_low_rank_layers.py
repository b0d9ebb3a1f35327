"""Layers with gradients of their own: TrAct and ALLoRA."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core import backends
from keras_lrsched.optimizers import ALLoRADense, TrAct
from tests.contract.optimizer_problem import MORE, RUNS

RNG = np.random.default_rng(0)


def gradients_of(layer, x, z):
    """Of sum(z y) in the trainable weights, in training."""
    values = [ops.convert_to_tensor(v.value) + 0.0 for v in layer.trainable_variables]

    def loss(at):
        with keras.StatelessScope([*zip(layer.trainable_variables, at, strict=True)]):
            return ops.sum(ops.convert_to_tensor(z, "float32") * layer(ops.convert_to_tensor(x, "float32"), training=True))

    return [ops.convert_to_numpy(g) for g in backends.gradient(loss, values)]


@pytest.mark.parametrize("size", [4, 2])
def test_tract_to_the_authors(size):
    run = RUNS[f"tract_linear_b{size}"]
    i, j = np.indices((size, 3))
    x = np.sin(0.5 + 0.7 * (3 * i + j))
    i, j = np.indices((size, 2))
    z = np.cos(0.3 + 0.4 * (2 * i + j))
    layer = TrAct(keras.layers.Dense(2))
    layer.build((size, 3))
    kernel, bias = gradients_of(layer, x, z)
    np.testing.assert_allclose(kernel.T.ravel(), run["traj"][0]["gradW"], rtol=2e-5)
    np.testing.assert_allclose(bias, z.sum(0), rtol=1e-6)


@pytest.mark.parametrize(("strides", "padding"), [(1, "valid"), (2, "same")])
def test_tract_of_a_convolution(strides, padding):
    """By its patches, in NumPy; outputs are those of the layer."""
    plain = keras.layers.Conv2D(3, (2, 3), strides=strides, padding=padding)
    layer = TrAct(plain, regularization=0.2)
    x = RNG.normal(size=(2, 5, 6, 2)).astype("float32")
    layer.build(x.shape)
    y = ops.convert_to_numpy(layer(x, training=True))
    np.testing.assert_allclose(y, ops.convert_to_numpy(layer(x, training=False)), rtol=1e-5, atol=1e-5)
    z = RNG.normal(size=y.shape).astype("float32")
    patches = ops.convert_to_numpy(ops.image.extract_patches(x, (2, 3), strides, padding=padding)).reshape(-1, 12)
    gram = patches.T @ patches / len(patches) + 0.2 * np.eye(12)
    kernel, bias = gradients_of(layer, x, z)
    np.testing.assert_allclose(
        kernel.reshape(12, 3), np.linalg.solve(gram, patches.T @ z.reshape(-1, 3)), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(bias, z.reshape(-1, 3).sum(0), rtol=1e-4, atol=1e-5)


def test_tract_in_a_model(tmp_path):
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), TrAct(keras.layers.Conv2D(2, 3, activation="relu")), keras.layers.Flatten()]
    )
    model.compile("sgd", "mse")
    x = RNG.normal(size=(8, 4, 4, 1)).astype("float32")
    model.fit(x, np.ones((8, 8)), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(again(x)), ops.convert_to_numpy(model(x)), rtol=1e-6)


@pytest.mark.parametrize(
    "layer", [keras.layers.Conv2D(4, 3, groups=2), keras.layers.Conv1D(4, 3), keras.layers.Embedding(3, 2)]
)
def test_tract_around_other_layers(layer):
    with pytest.raises(ValueError, match="`layer` must be a Dense"):
        TrAct(layer)


def test_allora_to_its_numbers():
    numbers = MORE["allora"]
    layer = ALLoRADense(3, use_bias=False, eta=numbers["eta"])
    layer.build((None, 4))
    layer.enable_lora(2)
    layer.lora_kernel_a.assign(numbers["A"])
    layer.lora_kernel_b.assign(numbers["B"])
    before = ops.convert_to_numpy(layer(np.eye(4, dtype="float32")))
    product = np.array(numbers["A"]) @ np.array(numbers["B"])
    np.testing.assert_allclose(before, ops.convert_to_numpy(layer._kernel) + product, rtol=1e-5, atol=1e-6)
    a, b = gradients_of(layer, np.eye(4), numbers["Gd"])
    np.testing.assert_allclose(a, numbers["gA"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b, numbers["gB"], rtol=1e-5, atol=1e-6)


def test_allora_without_factors_and_in_files(tmp_path):
    layer = ALLoRADense(2, eta=3.0)
    model = keras.Sequential([keras.Input((4,)), layer])
    x = RNG.normal(size=(5, 4)).astype("float32")
    expected = x @ layer.get_weights()[0]
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, rtol=1e-5)
    layer.enable_lora(1)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[-1].eta == 3.0
    with pytest.raises(ValueError, match="`eta` must be"):
        ALLoRADense(2, eta=0)

"""Every recipe trains a small network of convolutions, batch normalizations and a head."""

import keras
import numpy as np
import pytest

from keras_lrsched.precision import get_recipe, quantize_model, recipe_names
from keras_lrsched.precision.model import quantized_layers
from tests.nightly import some

SETTINGS = {"aqt_int4": {"statistics_steps": 2}, "wta_crs": {"roles": ("convolution",)}}
"""So that recipes do in a few steps on convolutions what they are for."""


def small_network():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = image
    for filters, strides in ((8, 1), (8, 2), (16, 1)):
        x = keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(image, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("name", some(recipe_names(), chosen=lambda name: name in ("fp8_delayed", "mxfp8")))
def test_the_loss_falls(name):
    rng = np.random.default_rng(0)
    labels = np.arange(8) % 4
    images = (rng.standard_normal((8, 8, 8, 3)) + rng.standard_normal((4, 1, 1, 3))[labels]).astype("float32")
    model = small_network()
    quantize_model(model, get_recipe(name, **SETTINGS.get(name, {})))
    assert any(layer.context.role == "convolution" and layer.gemm is not None for layer in quantized_layers(model))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Eagerly, but for JAX, which then is slow: no step is worth its compilation here.
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, run_eagerly=keras.backend.backend() != "jax")
    losses = [float(model.train_on_batch(images, labels)) for _ in range(5)]
    assert losses[-1] < 0.8 * losses[0]

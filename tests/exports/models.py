"""A small model with each kind of layer that is converted, and how it is exported."""

import keras
import numpy as np
from keras import layers

from keras_lrsched.precision import quantize_model
from keras_lrsched.precision.recipe import get_recipe, recipe_names

SETTINGS = {"aqt_int4": {"statistics_steps": 2}}
"""Settings with which a recipe computes in low precision after two steps."""

X = np.random.default_rng(0).normal(size=(11, 6, 6, 8)).astype("float32")


def trained(name):
    """A model after two steps with a recipe."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    inputs = keras.Input(X.shape[1:])
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(32, 3, strides=2, padding="same")(x)
    x = layers.Reshape((9, 32))(x)
    x = x + layers.MultiHeadAttention(2, 16)(x, x)
    x = layers.Dense(80, activation="tanh")(x)
    x = layers.Dense(32, activation="relu")(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, layers.Dense(3)(x))
    quantize_model(model, get_recipe(name, **SETTINGS.get(name, {})))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(X, np.zeros((len(X), 3)), epochs=2, batch_size=len(X), verbose=0)
    return model


NAMES = recipe_names()

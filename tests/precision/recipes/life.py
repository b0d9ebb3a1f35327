"""The life of every recipe: training, saving in the middle of it, and being switched off."""

import keras
import numpy as np
from keras import ops

from keras_lrsched.precision import quantize_model, restore_model, switch_recipe


def tiny_model(recipe, optimizer="adam", loss="mse", **options):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((6,)), dense(8, activation="relu"), dense(8), dense(3)])
    model.compile(optimizer, loss, **options)
    quantize_model(model, recipe)
    return model


def batches(number, size=16):
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((size, 6), "float32"), rng.standard_normal((size, 3), "float32")) for _ in range(number)]


def values(variables):
    return [ops.convert_to_numpy(variable) for variable in variables]


def check_life(recipe, path):
    """Trains, saves and loads; the next step of both models must agree in every bit. -> the trained model."""
    model = tiny_model(recipe, run_eagerly=keras.backend.backend() != "jax")  # no graph is worth a few steps
    data = batches(5)
    losses = [float(model.train_on_batch(*batch)) for batch in data[:4]]
    assert np.isfinite(losses).all()
    model.save(path / "model.keras")
    loaded = keras.models.load_model(path / "model.keras")
    assert loaded.layers[1].recipe == recipe
    for each in (model, loaded):
        each.train_on_batch(*data[4])
    everything = [values([*each.weights, *each.optimizer.variables]) for each in (model, loaded)]
    for ours, theirs in zip(*everything, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(model.predict(data[0][0], verbose=0), loaded.predict(data[0][0], verbose=0))
    switch_recipe(loaded, None)
    plain = loaded.predict(data[0][0], verbose=0)
    restore_model(loaded)
    np.testing.assert_array_equal(plain, loaded.predict(data[0][0], verbose=0))
    return model

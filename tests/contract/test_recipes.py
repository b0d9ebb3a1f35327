"""The contract of every recipe: compute almost what full precision does, train, be saved, and be switched off."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import (
    LayerContext,
    get_recipe,
    layers,
    quantize_model,
    recipe_names,
    restore_model,
    switch_recipe,
)
from tests.contract.backends import JIT
from tests.nightly import some

CONTEXT = LayerContext(index=1, count=4)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 128)).astype("float32")
Y = np.tanh(X @ RNG.normal(size=(128, 1)) / 4).astype("float32")

LARGEST_ERROR = {  # of a product of normal numbers, relative to its size
    "double_rounding": 0.3,
    "fp4_dge": 0.2,
    "fp4_target_precision": 0.2,
    "forward_only": 0.2,
    "nvfp4": 0.2,
    "aqt_int4": 0.3,
    "quartet_mxfp4": 0.25,
    "quest": 0.2,
}
EXACT_FORWARD = ("wta_crs",)


OF_EACH_KIND = ("fp8_delayed", "nvfp4")
"""With state of its own, and with random numbers; at night also with trained scales, and with another product."""


@pytest.fixture(params=recipe_names())
def name(request):
    return request.param


of_each_kind = pytest.mark.parametrize("name", some(recipe_names(), chosen=OF_EACH_KIND.__contains__), indirect=True)
"""For what traces the step of a model once or more: the others at night."""


def network(jit=JIT[0], width=128):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((width,))
    x = keras.layers.Dense(64, "relu", name="first")(inputs)
    x = keras.layers.Dense(64, "relu", name="second")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(x))
    model.compile(keras.optimizers.Adam(3e-3), loss="mse", jit_compile=jit)
    return model


def fit(model, epochs=1, x=X):
    if not model.optimizer.built:  # within the first step, TensorFlow would trace the step twice
        model.optimizer.build(model.trainable_variables)
    return model.fit(x, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def weights(model):
    return [ops.convert_to_numpy(w).copy() for w in model.weights]


def test_products_are_near(name):
    """The error is small, and is there."""
    layer = layers.QuantizedDense(64, use_bias=False, recipe=name, context=CONTEXT)
    y = ops.convert_to_numpy(layer(ops.convert_to_tensor(X), training=True))
    exact = X @ ops.convert_to_numpy(layer.kernel)
    error = np.linalg.norm(y - exact) / np.linalg.norm(exact)
    if name in EXACT_FORWARD:
        np.testing.assert_allclose(y, exact, rtol=1e-4, atol=1e-5)
    else:
        assert 1e-3 < error < LARGEST_ERROR.get(name, 0.06)


@of_each_kind
def test_it_trains(name):
    model = network()
    quantize_model(model, name)
    losses = fit(model, 12)
    assert np.all(np.isfinite(losses))
    assert losses[-1] < 0.5 * losses[0]


@of_each_kind
def test_numbers_that_fill_no_block(name):
    """37 inputs and 5 tokens: zeros fill the blocks, and nothing of them is seen."""
    model = network(width=37)
    quantize_model(model, name)
    before = weights(model)
    model.train_on_batch(X[:5, :37], Y[:5])
    after = weights(model)
    assert [w.shape for w in before] == [w.shape for w in after]
    assert all(np.all(np.isfinite(w)) for w in after)
    assert not np.array_equal(before[0], after[0])


def test_zeros_give_zeros(name):
    layer = layers.QuantizedDense(8, use_bias=False, recipe=name, context=CONTEXT)
    y = ops.convert_to_numpy(layer(ops.zeros((4, 32))))
    limit = 1e-3 if name == "quest" else 0  # its grid has no zero; its step is 1e-8 at least
    assert np.max(np.abs(y)) <= limit


@of_each_kind
def test_saved_it_goes_on_alike(name, tmp_path):
    model = network()
    quantize_model(model, name)
    fit(model)
    model.save(tmp_path / "model.keras")
    other = keras.models.load_model(tmp_path / "model.keras")
    assert fit(model) == fit(other)
    for one, another in zip(weights(model), weights(other), strict=True):
        np.testing.assert_array_equal(one, another)


@functools.cache
def plain_model():
    """The losses of the model that is not quantized, and the paths of its weights."""
    plain = network()
    return fit(plain), [w.path for w in plain.weights]


@of_each_kind
def test_switched_off_it_is_the_plain_model(name):
    model = network()
    quantize_model(model, name)
    switch_recipe(model, None)
    losses, paths = plain_model()
    assert fit(model) == losses
    restore_model(model)
    assert [w.path for w in model.weights] == paths


@pytest.mark.slow
def test_compiled_it_is_the_same(name):
    """The order of sums differs; a number on the edge between two codes may fall to either side."""
    histories = []
    for jit in JIT:
        model = network(jit)
        quantize_model(model, name)
        histories.append(fit(model, 2))
    np.testing.assert_allclose(histories[0], histories[-1], rtol=2e-2)


def test_configurations(name):
    recipe = get_recipe(name)
    config = keras.saving.serialize_keras_object(recipe)
    assert keras.saving.deserialize_keras_object(config) == recipe
    assert get_recipe(config) == recipe
    assert recipe.name == name
    assert f"{type(recipe).__name__}(" in repr(recipe)


def test_docstrings(name):
    text = type(get_recipe(name)).__doc__
    assert all(part in text for part in ("Args:", "Reference:", "arXiv:", "Example:", ">>> "))


def test_large_numbers_under_float16(name):
    """Products are computed in float32, and only their result is cast."""
    layer = layers.QuantizedDense(8, use_bias=False, recipe=name, context=CONTEXT, dtype="mixed_float16")
    layer.build((None, 32))
    layer.kernel.assign(np.full((32, 8), 1e-4, "float32"))
    y = ops.convert_to_numpy(ops.cast(layer(np.full((4, 32), 60000.0, "float32")), "float32"))
    assert np.all(np.isfinite(y))

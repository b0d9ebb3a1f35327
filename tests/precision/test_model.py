"""Models in few bits and back: which layers, saving and loading, switching, and what is refused."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched import precision
from keras_lrsched.precision import Conversion, Recipe, get_recipe, quantize_model, restore_model, switch_recipe
from keras_lrsched.precision.product import Rule
from tests.contract.backends import JIT

RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 20, (24, 6)), RNG.integers(0, 20, (24, 6))


def transformer():
    """A block with each of the layers that have a quantized form, and some that need none."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(20, 32, name="embedding")(inputs)
    x = x + keras.layers.MultiHeadAttention(2, 16, name="attention")(x, x)
    x = x + keras.layers.Dense(32, "gelu", name="feed_forward")(keras.layers.LayerNormalization(name="norm")(x))
    x = keras.layers.Conv1D(32, 3, padding="causal", name="conv")(x)
    x = keras.layers.EinsumDense("abc,cd->abd", (None, 32), name="einsum")(x)
    outputs = keras.layers.Softmax(name="softmax")(keras.layers.Dense(20, name="head")(x))
    return keras.Model(inputs, outputs)


def compiled(model, jit=JIT[0]):
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", jit_compile=jit)
    return model


def fit(model, epochs=1):
    return model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def predictions(model):
    return ops.convert_to_numpy(model(X, training=False))


def kinds(model):
    return {layer.name: type(layer).__name__ for layer in model.layers}


def test_which_layers_compute_in_few_bits():
    model = transformer()
    conversion = quantize_model(model, "int8_jetfire")
    assert conversion.quantized == ("attention", "feed_forward", "conv", "einsum")
    assert conversion.kept == ("head",)
    assert conversion.unsupported == ()
    assert [layer.place.role for layer in map(model.get_layer, [*conversion.quantized, "head"])] == [
        *["attention", "linear", "convolution", "linear", "head"]
    ]
    assert {type(layer).__name__ for layer in model.get_layer("attention").projections} == {"QuantizedEinsumDense"}
    assert model.get_layer("head").product is None
    assert model.get_layer("embedding").__class__ is keras.layers.Embedding


def test_weights_stay_and_results_change_a_little():
    model = transformer()
    before, plain = model.get_weights(), predictions(model)
    quantize_model(model, "int8_jetfire")
    for one, other in zip(before, [w for w in model.weights if "calls" not in w.path], strict=True):
        np.testing.assert_array_equal(one, ops.convert_to_numpy(other))
    assert 0 < np.max(np.abs(predictions(model) - plain)) < 0.02 * np.max(plain)


def test_undone():
    model, other = compiled(transformer()), compiled(transformer())
    names = kinds(model)
    quantize_model(model, "mxfp8")
    fit(model)
    restore_model(model)
    assert kinds(model) == names
    assert [w.path for w in model.weights] == [w.path for w in other.weights]
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(predictions(model), predictions(other))
    quantize_model(model, "mxfp8")  # and once more


def test_a_switch_to_none_computes_as_before():
    model = compiled(transformer())
    plain = predictions(model)
    quantize_model(model, "quest")
    switch_recipe(model, None)
    np.testing.assert_array_equal(predictions(model), plain)
    switch_recipe(model, get_recipe("quest", bits=2))
    assert not np.array_equal(predictions(model), plain)
    assert model.get_layer("einsum").recipe.bits == 2


@pytest.mark.parametrize("recipe", ["nvfp4_2025", "fp8_delayed", "fp4_zhou2025"])
def test_saved_in_training_it_goes_on_alike(recipe, tmp_path):
    model = compiled(transformer())
    quantize_model(model, recipe)
    fit(model)
    model.save(tmp_path / "model.keras")
    other = keras.models.load_model(tmp_path / "model.keras")
    assert kinds(other) == kinds(model)
    assert other.get_layer("attention").recipe == get_recipe(recipe)
    assert other.get_layer("attention").place == model.get_layer("attention").place
    assert fit(model) == fit(other)
    np.testing.assert_array_equal(predictions(model), predictions(other))


def test_layers_within_layers():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(8)])

        def call(self, x):
            return x + self.inner(x)

    model = keras.Sequential([keras.Input((8,)), Block(), keras.layers.Dense(2)])
    conversion = quantize_model(model, "int8_switchback")
    assert len(conversion.quantized) == 2
    assert len(conversion.kept) == 1
    restore_model(model)
    assert {type(layer) for layer in model.layers[0].inner.layers} == {keras.layers.Dense}


@pytest.mark.parametrize("jit", JIT)
def test_it_trains_as_without_up_to_rounding(jit):
    plain, narrow = compiled(transformer(), jit), compiled(transformer(), jit)
    quantize_model(narrow, "fp8_current")
    losses = fit(plain, 4), fit(narrow, 4)
    np.testing.assert_allclose(*losses, rtol=0.05)
    assert losses[0] != losses[1]
    assert losses[1][-1] < 0.8 * losses[1][0]


def test_kept_by_name():
    model = transformer()
    conversion = quantize_model(model, "mxfp8", keep=["attention", "einsum$"])
    assert conversion.quantized == ("feed_forward", "conv")
    assert type(model.get_layer("attention")) is keras.layers.MultiHeadAttention
    with pytest.raises(ValueError, match=r"'absent' is found in none of the paths .*feed_forward"):
        quantize_model(transformer(), "mxfp8", keep="absent")


def recurrent():
    inputs = keras.Input((6, 4))
    x = keras.layers.Conv1D(8, 3, groups=2, name="grouped")(keras.layers.LSTM(8, return_sequences=True, name="lstm")(inputs))
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(keras.layers.Dense(8, name="dense")(x)))


def test_unsupported_layers_are_named_together():
    model = recurrent()
    with pytest.raises(ValueError, match=r"lstm.*\(LSTMCell\), grouped \(Conv1D\)"):
        quantize_model(model, "mxfp8")
    assert type(model.get_layer("dense")) is keras.layers.Dense
    with pytest.warns(UserWarning, match="stay as they are: lstm.*, grouped"):
        conversion = quantize_model(model, "mxfp8", strict=False)
    assert isinstance(conversion, Conversion)
    assert conversion.quantized == ("dense",)
    assert len(conversion.unsupported) == 2


def test_a_model_is_quantized_once():
    model = transformer()
    quantize_model(model, "mxfp8")
    with pytest.raises(ValueError, match=r"quantized already: attention \(QuantizedMultiHeadAttention\)"):
        quantize_model(model, "mxfp8")
    by_keras = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    by_keras.quantize("int8")
    with pytest.raises(ValueError, match="quantized already"):
        quantize_model(by_keras, "mxfp8")


def test_what_is_no_recipe_or_model():
    with pytest.raises(ValueError, match=r"one of coat, .*wta_crs.*Received: recipe='fp5'"):
        quantize_model(transformer(), "fp5")
    with pytest.raises(ValueError, match="build it first"):
        quantize_model(keras.Sequential([keras.layers.Dense(3)]), "mxfp8")
    for function in (restore_model, lambda model: switch_recipe(model, "mxfp8")):
        with pytest.raises(ValueError, match="no quantized layers"):
            function(transformer())
    with pytest.raises(ValueError, match="`seed`"):
        quantize_model(transformer(), "mxfp8", seed=-1)


def test_an_optimizer_learns_of_no_new_variables():
    @dataclasses.dataclass(frozen=True)
    class Scaled(Rule):
        def variables(self, layer):
            return {"scale": {"shape": (), "initializer": "ones"}}

        def __call__(self, x, w, variables, seed, training):
            return ops.matmul(x, w) * variables["scale"]

    class Learned(Recipe):
        name = "learned"

        def rule(self, place):
            return Scaled()

    model = compiled(transformer())
    quantize_model(model, Learned())
    fit(model)
    assert all(float(w) != 1 for w in model.trainable_variables if "scale" in w.path)
    model = compiled(transformer())
    fit(model)
    with pytest.raises(ValueError, match=r"learned has trainable variables.*layer=attention"):
        quantize_model(model, Learned())


def test_the_seed_chooses_the_random_numbers():
    def trained(seed):
        model = compiled(transformer())
        quantize_model(model, "int8_jetfire", seed=seed)
        return fit(model, 2)

    assert trained(1) == trained(1) != trained(2)


def test_all_recipes_are_exported():
    assert {kind.__name__ for kind in precision.RECIPES.values()} == set(precision.recipes.__all__)

"""Quantized models in files: they come back with the same outputs, and weights fit into float models and back."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import get_recipe, quantize_model, restore_model, switch_recipe
from tests.nightly import nightly, some

X = np.random.default_rng(0).normal(size=(8, 4, 32)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    """Makes its layers itself, some in `build`; its configuration has none of them."""

    def __init__(self, size=32, **options):
        super().__init__(**options)
        self.size = size
        self.ffn = keras.Sequential([keras.layers.Dense(32, "relu"), keras.layers.Dense(32)])

    def build(self, shape):
        self.ffn.build(shape)
        self.others = [keras.layers.Dense(self.size), keras.layers.LayerNormalization()]
        for layer in self.others:
            layer.build((*shape[:-1], self.size))
        self.built = True

    def call(self, x):
        return self.others[1](self.others[0](self.ffn(x)))

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable("tests")
class Attention(keras.layers.MultiHeadAttention):
    """As that of KerasHub, which has a cache."""

    def call(self, query, value, key=None, cache=None):
        del cache
        return super().call(query, value, key)


@keras.saving.register_keras_serializable("tests")
class Projection(keras.layers.Dense):
    pass


@keras.saving.register_keras_serializable("tests")
class Backbone(keras.Model):
    """Functional, with a configuration of its own."""

    def __init__(self, size=32, **options):
        inputs = keras.Input((4, 32))
        x = Block(name="first")(inputs)
        x = Attention(2, 16, name="attention")(x, x)
        super().__init__(inputs, Projection(size, name="last")(x), **options)
        self.size = size

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable, "size": self.size}


@keras.saving.register_keras_serializable("tests")
class Task(keras.Model):
    def __init__(self, backbone, **options):
        super().__init__(backbone.input, keras.layers.Dense(2, name="head")(backbone.output), **options)
        self.backbone = backbone

    def get_config(self):
        return {"name": self.name, "backbone": keras.saving.serialize_keras_object(self.backbone)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "backbone": keras.saving.deserialize_keras_object(config["backbone"])})


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.parts = [keras.layers.Dense(32), Block()]

    def call(self, x):
        return self.parts[1](self.parts[0](x))


def functional():
    inputs = keras.Input((4, 32))
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(Block()(inputs)))


def task():
    return Task(Backbone())


def subclassed():
    model = Subclassed()
    model(X)
    return model


MODELS = [functional, task, subclassed]


def converted(make, recipe="mxfp8"):
    keras.utils.set_random_seed(0)
    model = make()
    quantize_model(model, recipe, head="head" if make is not subclassed else ())
    return model


def outputs(model):
    return ops.convert_to_numpy(model(X))


def quantized(model):
    return [layer.path for layer in model._flatten_layers() if getattr(layer, "recipe", None) is not None]


@pytest.mark.parametrize("make", some(MODELS, chosen=lambda make: make is not functional))
def test_a_saved_model_comes_back_with_the_same_outputs(make, tmp_path):
    model = converted(make)
    model.save(tmp_path / "model.keras")
    other = keras.models.load_model(tmp_path / "model.keras")
    assert len(quantized(other)) == len(quantized(model))
    np.testing.assert_array_equal(outputs(model), outputs(other))
    other.save(tmp_path / "again.keras")
    np.testing.assert_array_equal(outputs(model), outputs(keras.models.load_model(tmp_path / "again.keras")))
    restore_model(other)
    assert type(other) is type(make())
    assert not quantized(other)
    assert np.any(outputs(model) != outputs(other))


@pytest.mark.parametrize("make", some(MODELS, chosen=lambda make: make is task))
def test_clones_compute_by_the_recipe(make):
    model = converted(make)
    other = keras.models.clone_model(model) if make is not subclassed else type(model).from_config(model.get_config())
    other(X)
    assert len(quantized(other)) == len(quantized(model))
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(outputs(model), outputs(other))


@nightly
def test_in_training_it_goes_on_alike(tmp_path):
    model = converted(task, "fp8_delayed")
    model.compile("adam", "mse", run_eagerly=keras.backend.backend() != "jax")
    model.fit(X, X[..., :2], verbose=0)
    model.save(tmp_path / "model.keras")
    other = keras.models.load_model(tmp_path / "model.keras")
    losses = [each.fit(X, X[..., :2], epochs=2, verbose=0, shuffle=False).history["loss"] for each in (model, other)]
    assert losses[0] == losses[1]


def test_what_a_block_has_become_is_refused_with_the_remedy(tmp_path, monkeypatch):
    model = converted(functional)
    model.save(tmp_path / "model.keras")
    build = Block.build

    def another(self, shape):
        self.ffn = keras.layers.Dense(32)
        build(self, shape)

    with monkeypatch.context() as patched:
        patched.setattr(Block, "build", another)
        with pytest.raises((TypeError, ValueError), match="convert it with `quantize_model`"):
            keras.models.load_model(tmp_path / "model.keras")
    other = converted(functional)
    other.load_weights(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(model), outputs(other))


@pytest.mark.parametrize(
    "pair",
    some(
        [(None, "mxfp8"), ("fp8_delayed", "mxfp8"), ("mxfp8", "fp8_delayed"), ("mxfp8", None), ("mxfp8", "fp8_current")],
        first=3,
    ),
)
@pytest.mark.parametrize("suffix", some([".weights.h5", ".keras"]))
def test_weights_of_one_load_into_the_other(pair, suffix, tmp_path):
    one, other = (task() if recipe is None else converted(task, recipe) for recipe in pair)
    path = tmp_path / f"model{suffix}"
    (one.save_weights if suffix != ".keras" else one.save)(path)
    other.load_weights(path)
    for weight, value in zip(other.weights, one.weights, strict=False):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), ops.convert_to_numpy(value))


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupQueryAttention"])
@pytest.mark.parametrize("pair", [(None, "mxfp8"), ("mxfp8", None)])
def test_weights_of_attention_load_into_the_other(kind, pair, tmp_path):
    def make(recipe):
        inputs = keras.Input((4, 32))
        arguments = {"MultiHeadAttention": (2, 16), "GroupQueryAttention": (16, 2, 1)}[kind]
        model = keras.Model(inputs, getattr(keras.layers, kind)(*arguments)(inputs, inputs))
        if recipe is not None:
            quantize_model(model, recipe, head=())
        return model

    one, other = map(make, pair)
    one.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    for weight, value in zip(other.weights, one.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), ops.convert_to_numpy(value))


def test_states_of_other_settings_are_refused(tmp_path):
    model = converted(task, get_recipe("fp8_delayed", amax_history_length=4))
    model.save_weights(tmp_path / "model.weights.h5")
    other = converted(task, get_recipe("fp8_delayed", amax_history_length=8))
    with pytest.raises(ValueError, match="recipe with other settings"):
        other.load_weights(tmp_path / "model.weights.h5")
    switch_recipe(other, get_recipe("fp8_delayed", amax_history_length=4))
    other.load_weights(tmp_path / "model.weights.h5")


@pytest.mark.parametrize("recipe", some(["mxfp8", "fp8_delayed", "double_rounding"], first=2))
def test_what_recipes_add_comes_after_all_weights(recipe):
    plain = task()
    model = converted(task, recipe)
    n = len(plain.weights)
    assert [w.path.split("/")[-1] for w in model.weights[:n]] == [w.path.split("/")[-1] for w in plain.weights]
    added = {id(w) for layer in model._flatten_layers() for w in getattr(layer, "recipe_variables", ())}
    assert added
    assert {id(w) for w in model.variables} == added | {id(w) for w in model.weights[:n]}
    assert all(w.trainable and id(w) in added for w in model.weights[n:])
    assert bool(model.weights[n:]) == (recipe != "mxfp8")
    assert len(list(model._flatten_layers())) == len(list(plain._flatten_layers()))
    if recipe == "mxfp8":
        model.set_weights(plain.get_weights())
        plain.set_weights(model.get_weights())

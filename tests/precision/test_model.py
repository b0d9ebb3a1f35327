"""Models in low precision and back: which layers, saving and loading, switching, and what is refused."""

import contextlib
import dataclasses
import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched import precision
from keras_lrsched._core import registry
from keras_lrsched.precision import (
    QuantizationReport,
    Recipe,
    get_recipe,
    quantize_model,
    recipe_names,
    restore_model,
    switch_recipe,
)
from keras_lrsched.precision._gemms import Rule
from keras_lrsched.precision.layers import projections
from tests.contract.backends import BACKEND, JIT, JIT_WAYS
from tests.nightly import nightly, some

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


def compiled(model, jit=None):
    """Without `jit`, steps run eagerly, but for JAX: few are worth a graph of so many small operations."""
    options = {"run_eagerly": BACKEND != "jax", "jit_compile": JIT[0]} if jit is None else {"jit_compile": jit}
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", **options)
    return model


def fit(model, epochs=1):
    if not model.optimizer.built:  # within the first step, TensorFlow would trace the step twice
        model.optimizer.build(model.trainable_variables)
    return model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def predictions(model):
    return ops.convert_to_numpy(model(X, training=False))


def kinds(model):
    return {layer.name: type(layer).__qualname__ for layer in model.layers}


def test_which_layers_compute_in_few_bits():
    model = transformer()
    conversion = quantize_model(model, "int8_jetfire")
    assert conversion.quantized == ("attention", "feed_forward", "conv", "einsum")
    assert conversion.kept == ("embedding", "head")
    assert conversion.unsupported == ()
    assert [layer.context.role for layer in map(model.get_layer, [*conversion.quantized, "head"])] == [
        *["attention", "linear", "convolution", "linear", "head"]
    ]
    assert {type(layer).__qualname__ for layer in projections(model.get_layer("attention"))} == {"QuantizedEinsumDense"}
    assert model.get_layer("head").gemm is None
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


@pytest.mark.parametrize("recipe", some(["fp8_delayed", "nvfp4", "fp4_target_precision"]))
def test_saved_in_training_it_goes_on_alike(recipe, tmp_path):
    model = compiled(transformer())
    quantize_model(model, recipe)
    fit(model)
    model.save(tmp_path / "model.keras")
    other = keras.models.load_model(tmp_path / "model.keras")
    assert kinds(other) == kinds(model)
    assert other.get_layer("attention").recipe == get_recipe(recipe)
    assert other.get_layer("attention").context == model.get_layer("attention").context
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


@pytest.mark.parametrize("jit", JIT_WAYS)
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
    assert isinstance(conversion, QuantizationReport)
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
    with pytest.raises(ValueError, match=r"Known: aqt_int4, coat, .*wta_crs.*Received: recipe='fp5'"):
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

        def rule(self, context):
            return Scaled()

    model = compiled(transformer())
    quantize_model(model, Learned())
    fit(model)
    assert all(float(w) != 1 for w in model.trainable_variables if "scale" in w.path)
    model = compiled(transformer())
    fit(model)
    with pytest.raises(ValueError, match=r"learned has trainable variables.*layer=attention"):
        quantize_model(model, Learned())


@nightly
def test_the_seed_chooses_the_random_numbers():
    def trained(seed):
        model = compiled(transformer())
        quantize_model(model, "int8_jetfire", seed=seed)
        return fit(model)

    assert trained(1) == trained(1) != trained(2)


def test_all_recipes_are_exported():
    registered = {entry.target for entry in registry.entries("precision", "recipe")}
    ours = {kind.__name__ for kind in registered if kind.__module__.startswith("keras_lrsched.")}
    assert ours == set(precision.recipes.__all__)
    assert {type(get_recipe(name)) for name in recipe_names()} == registered


def names(paths):
    return [path.split("/")[-1] for path in paths]


def test_heads_that_no_graph_shows_are_asked_for():
    class Trainer(keras.Model):
        def __init__(self):
            super().__init__()
            self.net = keras.Sequential(
                [keras.Input((32,)), keras.layers.Dense(32, name="a"), keras.layers.Dense(10, name="b")]
            )

        def call(self, x):
            return self.net(x)

    def made():
        model = Trainer()
        model(np.ones((1, 32)))
        return model

    with pytest.raises(ValueError, match=r"Name them in `head`.*trainer.* layers .*a, .*b"):
        quantize_model(made(), "mxfp8")
    assert names(quantize_model(made(), "mxfp8", head="b$").kept) == ["b"]
    assert names(quantize_model(made(), "mxfp8", head=()).quantized) == ["a", "b"]
    assert names(quantize_model(made(), get_recipe("fp8_current", head=True)).quantized) == ["a", "b"]
    with pytest.raises(ValueError, match="`head`: 'c' is found in none"):
        quantize_model(made(), "mxfp8", head="c")
    inputs = keras.Input((32,))
    nested = keras.Model(inputs, keras.Sequential([made().net, keras.layers.Softmax()])(inputs))
    assert names(quantize_model(nested, "mxfp8").kept) == ["b"]


class Patches(keras.layers.Layer):
    def build(self, shape):
        self.token = self.add_weight(shape=(1, 32), name="mask_token")
        self.position = self.add_weight(shape=(4, 32), name="position_embedding")
        if self.name == "own":
            self.matrix = self.add_weight(shape=(32, 32), name="matrix")
        self.project = keras.layers.Dense(32, name="project")
        self.project.build(shape)
        self.built = True

    def call(self, x):
        x = self.project(x + self.token + self.position)
        return ops.matmul(x, self.matrix) if self.name == "own" else x


@pytest.mark.parametrize("name", ["patches", "own"])
def test_tables_are_no_products(name):
    inputs = keras.Input((4, 32))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(Patches(name=name)(inputs)))
    if name == "own":
        with pytest.raises(ValueError, match=r"own \(Patches\)"):
            quantize_model(model, "mxfp8")
    conversion = quantize_model(model, "mxfp8", keep=[name])
    assert conversion.quantized == (f"{name}/project",)
    assert conversion.kept == (name, "head")


def test_a_rule_keeps_all_within_a_layer_without_a_product_of_its_own():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.inner = keras.Sequential([keras.layers.Dense(8, name="first"), keras.layers.Dense(8, name="second")])

        def call(self, x):
            return self.inner(x)

    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(8, name="dense"), Block(), keras.layers.Dense(2, name="head")]
    )
    assert len(quantize_model(model, "mxfp8", keep="block").kept) == 3


def test_a_conversion_that_quantizes_nothing_is_an_error():
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(8)])
    with pytest.raises(ValueError, match="No layer of the model would compute by fp8_current"):
        quantize_model(model, "fp8_current", strict=False)
    with pytest.raises(ValueError, match=r"No layer of the model .*kept=\('.*dense.*',\)"):
        quantize_model(keras.Sequential([keras.Input((32,)), keras.layers.Dense(32)]), "mxfp8")


def test_layers_that_were_never_built_are_named():
    class Lazy(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4, name="lazy")
            self.built = True

    with pytest.raises(ValueError, match=r"no weights yet.*lazy \(Dense\)"):
        quantize_model(Lazy(), "mxfp8")


def test_layers_that_are_never_called_are_named_in_keep():
    class Spare(keras.layers.Layer):
        def build(self, shape):
            self.used, self.spare = keras.layers.Dense(4, name="used"), keras.layers.Dense(4, name="spare")
            self.used.build(shape)

        def call(self, x):
            return self.used(x)

    model = keras.Sequential([keras.Input((4,)), Spare(name="around")])
    with pytest.raises(ValueError, match=r"never calls in `keep`.*spare"):
        quantize_model(model, "mxfp8", head=())
    assert quantize_model(model, "mxfp8", keep="spare", head=()).kept == ("spare",)


def test_a_layer_that_multiplies_with_the_kernel_of_another_is_warned_of():
    class Around(keras.layers.Layer):
        def build(self, shape):
            self.dense = keras.layers.Dense(4, use_bias=False, name="dense")
            self.dense.build(shape)

        def call(self, x):
            return ops.matmul(self.dense(x), self.dense.kernel)

    model = keras.Sequential([keras.Input((4,)), Around(name="around")])
    quantize_model(model, "mxfp8", head=())
    with pytest.warns(UserWarning, match=r"around/dense reads its kernel.*in `keep`"):
        model(np.ones((1, 4)))
    restore_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(np.ones((1, 4)))
        quantize_model(model, "mxfp8", head=())
        assert model.layers[0].dense.kernel.shape == (4, 4)


class CachedAttention(keras.layers.MultiHeadAttention):
    """As that of KerasHub."""

    def call(self, query, value, key=None, cache=None, training=None):
        del cache
        query, key, value = self._query_dense(query), self._key_dense(value), self._value_dense(value)
        return self._output_dense(self._compute_attention(query, key, value, training=training)[0])


class HubEmbedding(keras.layers.ReversibleEmbedding):
    """As that of KerasHub."""


class Doubled(keras.layers.Dense):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


class Lookup(keras.layers.Embedding):
    def call(self, inputs, reverse=False):
        return ops.matmul(inputs, ops.transpose(self.embeddings)) if reverse else super().call(inputs)

    def compute_output_spec(self, inputs, reverse=False):
        return keras.KerasTensor((*inputs.shape[:2], 20) if reverse else (*inputs.shape, 32))


def language_model():
    keras.utils.set_random_seed(0)
    tokens = keras.Input((6,), dtype="int32")
    table = HubEmbedding(20, 32, name="table")
    x = table(tokens)
    x = CachedAttention(2, 16, name="attention")(x, x)
    return keras.Model(tokens, table(keras.layers.Dense(32, name="dense")(x), reverse=True))


@pytest.mark.parametrize("head", [False, True])
def test_subclasses_of_other_libraries(head):
    model, plain = language_model(), language_model()
    plain.set_weights(model.get_weights())
    conversion = quantize_model(model, get_recipe("fp8_current", head=head))
    projections = ["attention_output", "key", "query", "value"]
    assert sorted(names(conversion.quantized)) == sorted([*projections, "dense", *["table"] * head])
    assert conversion.kept == () if head else ("table",)
    assert {layer.context.role for layer in model.get_layer("attention")._layers if hasattr(layer, "context")} == {
        "attention"
    }
    assert 0 < np.max(np.abs(predictions(model) - predictions(plain))) < 0.2 * np.max(np.abs(predictions(plain)))
    restore_model(model)
    assert list(kinds(model).values()) == list(kinds(plain).values())
    np.testing.assert_allclose(predictions(model), predictions(plain), rtol=1e-5, atol=1e-6)


def test_subclasses_with_a_computation_of_their_own_are_refused():
    inputs = keras.Input((32,))
    x = Doubled(32, name="doubled")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Dense(32)(x)))
    with pytest.raises(ValueError, match=r"cannot be quantized: doubled \(Doubled\)"):
        quantize_model(model, "mxfp8")
    tokens = keras.Input((6,), dtype="int32")
    table = Lookup(20, 32, name="lookup")
    model = keras.Model(tokens, table(keras.layers.Dense(32)(table(tokens)), reverse=True))
    with pytest.raises(ValueError, match=r"cannot be quantized: lookup \(Lookup\)"):
        quantize_model(model, "mxfp8")


def test_every_trained_matrix_is_in_one_of_the_lists():
    for model in (transformer(), language_model(), recurrent()):
        with pytest.warns(UserWarning, match="stay as they are") if "lstm" in kinds(model) else contextlib.nullcontext():
            conversion = quantize_model(model, get_recipe("fp8_current", head=True), strict=False)
        listed = [*conversion.quantized, *conversion.kept, *conversion.unsupported]
        for weight in model.trainable_weights:
            if len(weight.shape) > 1:
                assert any(weight.path.startswith(f"{path}/") for path in listed), weight.path


@nightly
@pytest.mark.parametrize("settings", some([("fp8_delayed", {"amax_history_length": 16}), ("quest", {"bits": 2})]))
def test_a_switch_to_other_settings_in_training(settings):
    name, others = settings
    model = compiled(transformer())
    quantize_model(model, name)
    fit(model)
    n = len(model.weights)
    before = [ops.convert_to_numpy(w) for w in model.weights]
    switch_recipe(model, get_recipe(name, **others))
    assert len(model.weights) == n  # what is trained goes on
    for one, other in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(one, ops.convert_to_numpy(other))
    fit(model)


def test_settings_whose_trained_scales_do_not_fit_are_refused():
    model = compiled(transformer())
    quantize_model(model, "double_rounding")
    fit(model)
    with pytest.raises(ValueError, match="double_rounding has trainable variables"):
        switch_recipe(model, get_recipe("double_rounding", bits=(8, 4)))
    fit(model)
    compiled(model)  # with an optimizer that has not seen them
    with pytest.warns(UserWarning, match="weight_scale_moves, input_scale_moves do not fit the new settings"):
        switch_recipe(model, get_recipe("double_rounding", bits=(8, 4)))


def lora_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 32))
    x = keras.layers.Dense(32, name="dense")(inputs)
    x = keras.layers.EinsumDense("abc,dc->abd", (8, 32), name="einsum")(x)
    x = keras.layers.EinsumDense("abc,cde->abde", (8, 4, 8), name="heads")(x)
    x = keras.layers.Conv2D(16, 2, padding="same", name="conv2")(x)
    x = keras.layers.Conv1D(16, 3, padding="causal", name="conv1")(keras.layers.Reshape((8, 64))(x))
    return keras.Model(inputs, x)


@pytest.mark.parametrize("before", [True, False])
def test_adapters_are_added_in_the_compute_dtype(before):
    """The base alone is quantized: what an adapter adds to the outputs of a layer is what it adds to a plain one."""
    model, plain = lora_model(), lora_model()
    layers = ["dense", "einsum", "heads", "conv2", "conv1"]

    def enable(model):
        for name in layers:
            model.get_layer(name).enable_lora(2)

    enable(plain)
    if before:
        enable(model)
    quantize_model(model, "fp8_current", head=())
    if not before:
        enable(model)
    rng = np.random.default_rng(0)
    for name in layers:
        one, other = model.get_layer(name), plain.get_layer(name)
        x = rng.normal(size=(2, *one.input.shape[1:])).astype("float32")
        outputs = [[ops.convert_to_numpy(layer(x))] for layer in (one, other)]
        a, b = (0.02 * rng.normal(size=w.shape) for w in (one.lora_kernel_a, one.lora_kernel_b))
        for layer, both in zip((one, other), outputs, strict=True):
            layer.lora_kernel_a.assign(a)
            layer.lora_kernel_b.assign(b)
            both.append(ops.convert_to_numpy(layer(x)))
        assert np.any(outputs[0][0] != outputs[1][0])
        np.testing.assert_allclose(*(both[1] - both[0] for both in outputs), atol=1e-5)


def test_the_adapter_of_a_tied_head():
    tokens = keras.Input((6,), dtype="int32")
    table = keras.layers.ReversibleEmbedding(20, 32)
    model = keras.Model(tokens, table(keras.layers.Dense(32)(table(tokens)), reverse=True))
    quantize_model(model, get_recipe("fp8_current", head=True))
    table.enable_lora(2)
    x = RNG.normal(size=(3, 32)).astype("float32")
    without = table(x, reverse=True)
    a, b = RNG.normal(size=(20, 2)) * 0.02, RNG.normal(size=(2, 32)) * 0.02
    table.lora_embeddings_a.assign(a)
    table.lora_embeddings_b.assign(b)
    added = ops.convert_to_numpy(table(x, reverse=True)) - ops.convert_to_numpy(without)
    np.testing.assert_allclose(added, x @ (a @ b).T, atol=1e-5)


@pytest.mark.parametrize("recipe", some(["nvfp4", "quest"]))
def test_no_function_goes_on_with_the_old_form(recipe):
    x = RNG.normal(size=(8, 32)).astype("float32")
    inner = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32), keras.layers.Dense(3)])
    inputs = keras.Input((32,))
    outer = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))
    outer.compile("sgd", "mse")

    def check():
        seen = []
        for model in (inner, outer):
            seen.append(model.predict(x, verbose=0))
            np.testing.assert_allclose(seen[-1], ops.convert_to_numpy(model(x)), rtol=1e-5, atol=1e-6)
        return seen[0]

    outer.fit(x, x[:, :2], verbose=0)
    states = [check()]
    quantize_model(inner, recipe)
    states.append(check())
    outer.fit(x, x[:, :2], verbose=0, batch_size=8)
    calls = [int(w) for w in inner.variables if w.path.endswith("calls")]
    assert calls == [1]
    switch_recipe(inner, None)
    check()
    switch_recipe(inner, "mxfp8")
    check()
    restore_model(inner)
    check()
    assert np.any(states[0] != states[1])


def test_an_attention_without_changes_is_converted_by_its_projections():
    class MyAttention(keras.layers.MultiHeadAttention):
        pass

    inputs = keras.Input((8, 32))
    model = keras.Model(inputs, MyAttention(2, 16)(inputs, inputs))
    with pytest.raises(ValueError, match=r"Name them in `head`.*attention_output"):
        quantize_model(model, "fp4_target_precision")
    assert len(quantize_model(model, "fp4_target_precision", head=()).quantized) == 4


def test_names_that_are_close_are_suggested():
    with pytest.raises(ValueError, match=r"Did you mean '?mxfp8"):
        quantize_model(transformer(), "MXFP")


def test_a_star_import_leaves_the_layers_of_keras():
    assert not {"layers", "recipes"} & set(precision.__all__)


@pytest.mark.parametrize("recipe", ["mxfp8", "fp8_delayed"])
def test_a_conversion_within_fit(recipe):
    """From the next step on the model computes by the recipe, unless the optimizer lacks variables."""

    class Convert(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                quantize_model(self.model, recipe)

    x = RNG.normal(size=(32, 32)).astype("float32")
    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    refused = pytest.raises(ValueError, match="made steps without them already")
    with refused if recipe == "fp8_delayed" else contextlib.nullcontext():
        model.fit(x, x[:, :2], batch_size=8, verbose=0, callbacks=[Convert()])
    calls = [int(w) for w in model.variables if w.path.endswith("calls")]
    assert calls == ([2] if recipe == "mxfp8" else [])

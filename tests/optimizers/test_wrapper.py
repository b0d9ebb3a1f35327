"""The behavior that Lookahead and LayerwiseLearningRate share: all but their formula belongs to the inner optimizer."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.callbacks import GradientNormRecorder, LearningRateLogger, ScheduleHyperparameter
from keras_lrsched.optimizers import AdamW, LayerwiseLearningRate, Lion, Lookahead
from keras_lrsched.schedules import LinearDecay
from tests.contract.backends import BACKEND, JIT, JIT_WAYS, compiled_update
from tests.nightly import some

WRAPPERS = {
    "lookahead": lambda inner: Lookahead(inner, sync_period=2),
    "layerwise": lambda inner: LayerwiseLearningRate(inner, {"w": 2.0}),
    "both": lambda inner: Lookahead(LayerwiseLearningRate(inner, {"w": 2.0}), sync_period=2),
}
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
one_wrapper = pytest.mark.parametrize(
    "wrap", some(WRAPPERS.values(), chosen=lambda wrap: wrap is WRAPPERS["both"]), ids=WRAPPERS
)
INNER = {
    "keras": lambda **options: keras.optimizers.Adam(0.125, **options),
    "ours": lambda **options: AdamW(0.125, **options),
}
every_inner = pytest.mark.parametrize("make", INNER.values(), ids=INNER)
one_inner = pytest.mark.parametrize("make", some(INNER.values(), chosen=lambda make: make is INNER["ours"]), ids=INNER)
EAGER = {"run_eagerly": BACKEND != "jax", "jit_compile": JIT[0]}
"""For a few steps, which no graph is worth."""


def variable(dtype="float32"):
    return keras.Variable([1.0, -2.0], dtype=dtype, name="w")


def gradient(t, dtype="float32"):
    return ops.convert_to_tensor([np.sin(t), np.cos(t)], dtype)


def value(tensor):
    return np.array(ops.convert_to_numpy(ops.cast(tensor, "float32")))


@every_wrapper
@every_inner
def test_learning_rate_and_counter_are_the_inner_ones(wrap, make):
    inner = make()
    optimizer, w = wrap(inner), variable()
    assert value(optimizer.learning_rate) == 0.125
    optimizer.learning_rate = 0.5
    assert value(inner.learning_rate) == 0.5
    for t in range(3):
        optimizer.apply([gradient(t)], [w])
    assert int(inner.iterations) == int(optimizer.iterations) == 3
    assert sum(v is inner._iterations for v in optimizer.variables) == 1
    optimizer.learning_rate = LinearDecay(1.0, 6)
    assert value(optimizer.learning_rate) == 0.5


@every_wrapper
def test_options_are_those_of_the_inner_one(wrap):
    inner = AdamW(gradient_accumulation_steps=2, clipnorm=1.0, weight_decay=0.5)
    optimizer = wrap(inner)
    assert (optimizer.gradient_accumulation_steps, optimizer.clipnorm, optimizer.weight_decay) == (2, 1.0, 0.5)
    optimizer.weight_decay = 0.25
    assert inner.weight_decay == 0.25


@every_wrapper
@every_inner
def test_config(wrap, make):
    optimizer = wrap(make(weight_decay=0.1))
    saved = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    for again in (keras.optimizers.deserialize(saved), keras.optimizers.get(saved)):
        assert type(again) is type(optimizer)
        assert again.get_config() == optimizer.get_config()
        v, w = variable(), variable()
        fresh = wrap(make(weight_decay=0.1))
        for t in range(3):
            again.apply([gradient(t)], [v])
            fresh.apply([gradient(t)], [w])
        np.testing.assert_array_equal(value(v), value(w))


@every_wrapper
@every_inner
def test_saved_model_goes_on_training(wrap, make, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="w")])
    model.compile(wrap(make()), "mse", **EAGER)
    x, y = np.random.default_rng(0).normal(size=(2, 8, 2))
    fit = {"x": x, "y": y[:, :1], "batch_size": 8, "epochs": 3, "verbose": 0, "shuffle": False}
    model.fit(**fit)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, again):
        each.fit(**fit)
    assert int(again.optimizer.iterations) == 6
    for mine, yours in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-6)


@every_wrapper
def test_not_finite_gradients_are_skipped(wrap):
    """Before the first update, and right after a step back."""
    for dtype in ("float32", "bfloat16"):
        disturbed, undisturbed = variable(dtype), variable(dtype)
        optimizer, other = (wrap(AdamW(0.125, nonfinite="skip")) for _ in range(2))
        for t in range(3):
            before = value(disturbed)
            optimizer.apply([ops.full((2,), np.nan, dtype)], [disturbed])
            np.testing.assert_array_equal(value(disturbed), before)
            for _ in range(2):
                optimizer.apply([gradient(t, dtype)], [disturbed])
                other.apply([gradient(t, dtype)], [undisturbed])
            np.testing.assert_array_equal(value(disturbed), value(undisturbed))


@one_wrapper
def test_callbacks_find_the_inner_optimizer(wrap, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="w")])
    model.compile(wrap(AdamW(0.5, weight_decay=0.5)), "mse", jit_compile=JIT[0])
    rate, decay = LinearDecay(1.0, 8), LinearDecay(0.5, 8)
    callbacks = [
        ScheduleHyperparameter("optimizer.learning_rate", rate),
        ScheduleHyperparameter("optimizer.weight_decay", decay),
        LearningRateLogger(),
        GradientNormRecorder(tmp_path / "norms.csv"),
    ]
    x = np.ones((8, 2))
    history = model.fit(x, x[:, :1], batch_size=2, verbose=0, callbacks=callbacks).history
    assert history["learning_rate"] == [0.625]
    assert model.optimizer.weight_decay == 0.3125
    assert len((tmp_path / "norms.csv").read_text().splitlines()) > 4


@every_wrapper
@every_inner
@pytest.mark.parametrize("jit", JIT_WAYS)
def test_loss_scaling_goes_around(wrap, make, jit):
    scaled, plain = variable(), variable()
    outer, other = keras.optimizers.LossScaleOptimizer(wrap(make()), initial_scale=4.0), wrap(make())
    update, update_other = compiled_update(outer, [scaled], jit), compiled_update(other, [plain], jit)
    for t in range(4):
        update([4 * gradient(t)])
        update_other([gradient(t)])
        np.testing.assert_allclose(value(scaled), value(plain), rtol=1e-6)
    before = value(scaled)
    update([np.inf * gradient(1)])
    np.testing.assert_array_equal(value(scaled), before)
    with pytest.raises(ValueError, match="Put the LossScaleOptimizer around"):
        wrap(outer)


@every_wrapper
@every_inner
def test_constraints_hold(wrap, make):
    w = variable()
    w.constraint = keras.constraints.UnitNorm(axis=0)
    optimizer = wrap(make())
    for t in range(4):
        optimizer.apply([gradient(t)], [w])
        assert np.linalg.norm(value(w)) == pytest.approx(1)


@one_wrapper
@one_inner
def test_mixed_float16_in_fit(wrap, make):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, dtype="mixed_float16", name="w")])
    model.dtype_policy = keras.DTypePolicy("mixed_float16")
    model.compile(wrap(make()), "mse", jit_compile=JIT[0])
    x = np.random.default_rng(0).normal(size=(64, 2))
    history = model.fit(x, x @ [[1.0], [-2.0]], epochs=6, batch_size=16, verbose=0)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has IndexedSlices")
@every_wrapper
def test_lazy_embeddings(wrap):
    import tensorflow as tf

    optimizer, table = wrap(Lion(0.5, lazy_embeddings=True)), keras.Variable(np.ones((3, 2)), name="w")
    for _ in range(3):
        optimizer.apply([tf.IndexedSlices(tf.ones((1, 2)), tf.constant([1]), tf.constant([3, 2]))], [table])
    assert np.all(value(table)[[0, 2]] == 1)
    assert np.all(value(table)[1] < 1)


def test_variables_that_the_optimizer_does_not_know():
    optimizer = Lookahead("sgd")
    optimizer.build([variable()])
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([gradient(0)], [variable()])
    with pytest.raises(ValueError, match="no state yet"):
        Lookahead("sgd").state_bytes()
    with pytest.raises(ValueError, match="no state yet"):
        Lookahead("sgd").apply([gradient(0)])


RULES = {
    "ours": lambda: AdamW(0.1, exclude_from_weight_decay=["bias"], learning_rate_multipliers={"kernel": 0.5}),
    "layerwise": lambda: LayerwiseLearningRate(keras.optimizers.Adam(0.1), {"bias": 2.0}),
    "lookahead": lambda: Lookahead(AdamW(0.1, exclude_from_weight_decay=["bias"])),
}


one_with_rules = pytest.mark.parametrize(
    "make", some(RULES.values(), chosen=lambda make: make is RULES["lookahead"]), ids=RULES
)


@pytest.mark.parametrize("make", RULES.values(), ids=RULES)
def test_models_in_h5_files(make, tmp_path):
    """Keras hands no variables to the optimizer then: rules by path wait for those of the model; the state begins anew."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(make(), keras.losses.MeanSquaredError(), **EAGER)
    x = np.ones((2, 2), "float32")
    model.fit(x, x[:, :1], verbose=0)
    model.save(tmp_path / "model.h5")
    again = keras.saving.load_model(tmp_path / "model.h5")
    again.run_eagerly = model.run_eagerly  # not in the file
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    model.compile(make(), keras.losses.MeanSquaredError(), **EAGER)
    for each in (model, again):
        each.fit(x, x[:, :1], verbose=0)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


@every_wrapper
def test_models_that_are_frozen_as_a_whole(wrap):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.trainable = False
    model.compile(wrap(AdamW(0.1)), "mse")
    before = model.get_weights()
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a SavedModel")
@one_with_rules
def test_exported_models(make, tmp_path):
    import tensorflow as tf

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(make(), "mse")
    x = np.ones((2, 2), "float32")
    model.fit(x, x[:, :1], verbose=0)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(x), model.predict(x, verbose=0), rtol=1e-6)

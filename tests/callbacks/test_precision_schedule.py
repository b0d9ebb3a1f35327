"""Phases of precision: when they begin, that they compute as their recipes do, and that a run goes on in its phase."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core import keras_private
from keras_lrsched.callbacks import PrecisionSchedule
from keras_lrsched.precision import get_recipe, quantize_model, switch_recipe
from keras_lrsched.precision.recipes import ForwardOnly, Quest
from tests.contract.backends import JIT, JIT_WAYS
from tests.nightly import nightly

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(40, 32)).astype("float32"), RANDOM.normal(size=(40, 1)).astype("float32")


def network(jit=JIT[0]):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32, "tanh"), keras.layers.Dense(1, name="head")])
    model.compile(keras.optimizers.SGD(0.1), loss="mse", jit_compile=jit)
    return model


def fit(model, *callbacks, epochs=1):
    model.fit(X, Y, batch_size=4, shuffle=False, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return [ops.convert_to_numpy(w).copy() for w in model.trainable_variables]


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_phases_compute_as_their_recipes(jit):
    """Ten steps in three phases are three trainings one after another."""
    model = network(jit)
    weights = fit(model, PrecisionSchedule(["mxfp8", None, "quest"], [3, 7]))
    other = network(jit)
    quantize_model(other, "mxfp8")
    for recipe, steps in (("mxfp8", slice(0, 3)), (None, slice(3, 7)), ("quest", slice(7, 10))):
        switch_recipe(other, recipe)
        for x, y in list(zip(X.reshape(10, 4, 32), Y.reshape(10, 4, 1), strict=True))[steps]:
            other.train_on_batch(x, y)
    for one, another in zip(weights, other.trainable_variables, strict=True):
        np.testing.assert_allclose(one, ops.convert_to_numpy(another), rtol=1e-6, atol=1e-7)
    assert model.layers[0].recipe == Quest()


def test_steps_count_over_all_fits():
    model, schedule = network(), PrecisionSchedule(["mxfp8", None], [15])
    fit(model, schedule)
    assert schedule.phase == 0
    fit(model, schedule)
    assert schedule.phase == 1


def test_the_last_stage_is_in_the_target_precision():
    assert PrecisionSchedule.with_target_stage("fp4_target_precision", 1000).boundaries == [925]
    assert PrecisionSchedule.with_target_stage("fp4_target_precision", 10, 0.25).boundaries == [7]
    with pytest.raises(ValueError, match="`fraction`"):
        PrecisionSchedule.with_target_stage("fp4_target_precision", 10, 1.5)


@nightly
def test_noise_ends_a_phase():
    sample = X[:8], Y[:8]
    low = PrecisionSchedule(["nvfp4", None], noise_ratio=1e-6, sample=sample, every=4)
    fit(network(), low)
    assert [entry["step"] for entry in low.history] == [4, 8]
    assert low.phase == 0
    high = PrecisionSchedule([FP4, ForwardOnly(FP4), None], noise_ratio=1e6, sample=sample, every=3)
    model = network()
    fit(model, high)
    assert [entry["phase"] for entry in high.history] == [0, 1, 1]
    assert high.history[0]["ratio"] < 1e6
    assert high.history[1]["ratio"] == np.inf  # backward products are exact
    assert model.layers[0].recipe == ForwardOnly(FP4)


FP4 = get_recipe("nvfp4", keep_last=0.0)


@nightly
def test_the_ratio_is_that_of_the_gradients():
    """The gradient by the first kernel is known: x^T dy, with the recipe's numbers for both."""
    model, recipe = network(), get_recipe("int8_switchback", head=True)
    schedule = PrecisionSchedule([recipe, None], noise_ratio=1e-6, sample=(X, Y), every=10)
    before = fit(model, schedule)
    gradients = []
    for each in (ForwardOnly(recipe), recipe):
        switch_recipe(model, each)
        weights = model.get_weights()
        model.compile(keras.optimizers.SGD(1.0), loss="mse")
        model.train_on_batch(X, Y)
        gradients.append([a - ops.convert_to_numpy(b) for a, b in zip(before, model.trainable_variables, strict=True)])
        model.set_weights(weights)
    exact, written = gradients
    norm = np.sqrt(sum(np.sum(g**2) for g in exact))
    noise = np.sqrt(sum(np.sum((g - q) ** 2) for g, q in zip(exact, written, strict=True)))
    np.testing.assert_allclose(schedule.history[0]["ratio"], norm / noise, rtol=0.02)


def test_bad_input():
    for arguments, message in (
        ((["mxfp8"], []), "at least two"),
        ((["mxfp8", None], [3, 4]), "one fewer"),
        ((["mxfp8", None, "quest"], [4, 3]), "`boundaries`"),
        ((["mxfp8", None],), "Just one of"),
        ((["mxfp8", None], [3], 1.0), "Just one of"),
        ((["mxfp8", None], None, 1.0), "needs a `sample`"),
        ((["mxfp8", "fp5"], [3]), "`recipe` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            PrecisionSchedule(*arguments)


@nightly
def test_recipes_that_train_variables_of_their_own():
    """On JAX the optimizer is built before callbacks are called; it is built anew."""
    x = np.random.default_rng(0).normal(size=(16, 32)).astype("float32")
    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    model.fit(x, x[:, :1], batch_size=8, verbose=0, callbacks=[PrecisionSchedule(["mxfp8", "fp8_delayed"], boundaries=[1])])
    assert any(w.path.endswith("gradient_amax") and float(w) > 0 for w in model.trainable_variables)
    trained = {id(w) for w in keras_private.trained_by(model.optimizer)}
    assert {id(w) for w in model.trainable_variables} <= trained

"""Sophia's estimates of the Hessian: what they are, when they come, and what they leave alone."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import Lookahead, Sophia, SophiaModel
from tests.contract.backends import BACKEND, JIT, JIT_WAYS
from tests.contract.test_optimizers import digits
from tests.nightly import nightly, some

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 3)).astype("float32")
Y = RANDOM.integers(0, 4, size=32)
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
every_jit = pytest.mark.parametrize("jit", JIT_WAYS)
EAGER = {"run_eagerly": BACKEND != "jax"}
"""For a step or two, which no graph is worth."""


def classifier(*hidden, activation=None, **options):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3,)), *hidden, keras.layers.Dense(4, activation, **options)])


def sophia(learning_rate=0.01, **options):
    return Sophia(learning_rate, **{"seed": 3, "update_period": 1, "beta_2": 0.0, **options})


def compiled(model, optimizer, loss=LOGITS, jit=JIT[0], **options):
    model = SophiaModel(model)
    model.compile(optimizer, loss, jit_compile=jit, **options)
    model.optimizer.build(model.trainable_variables)  # within the first step, TensorFlow would trace it twice
    return model


def hessian(optimizer, index=0):
    while not isinstance(optimizer, Sophia):
        optimizer = optimizer.inner_optimizer
    return np.array(ops.convert_to_numpy(optimizer._states[index]["hessian"]))


# The optimizer


def updated(estimate, gradient, **options):
    w = keras.Variable([1.0] * len(gradient))
    optimizer = Sophia(0.5, 0.0, 0.0, rho=1.0, weight_decay=None, batch_size=2, **options)
    optimizer.build([w])
    optimizer.update_hessian([ops.convert_to_tensor(estimate, "float32")])
    optimizer.apply([ops.convert_to_tensor(gradient, "float32")], [w])
    return ops.convert_to_numpy(w).tolist()


def test_steps_are_clipped():
    assert updated([1.0, 2.0, 0.0], [4.0, -4.0, 1e-3]) == [0.5, 1.25, 0.5]  # of squares, times 2
    assert updated([4.0, 16.0, -3.0], [2.0, -4.0, 1e-3], estimator="hutchinson") == [0.75, 1.125, 0.5]


def test_estimates_are_averaged():
    w, optimizer = keras.Variable([1.0, 1.0]), Sophia(beta_2=0.75)
    optimizer.build([w])
    for estimate in ([1.0, 2.0], [3.0, 4.0]):
        optimizer.update_hessian([ops.convert_to_tensor(estimate, "float32")])
    np.testing.assert_allclose(hessian(optimizer), [0.25 * 0.75 + 9 * 0.25, 4 * 0.25 * 0.75 + 16 * 0.25])
    before = hessian(optimizer)
    optimizer.update_hessian([ops.ones(2)], when=False)
    optimizer.update_hessian([ops.convert_to_tensor([np.inf, 1.0], "float32")])
    optimizer.update_hessian([ops.convert_to_tensor([np.nan, 1.0], "float32")])
    optimizer.update_hessian([None])
    np.testing.assert_array_equal(hessian(optimizer), before)


def test_estimates_at_the_wrong_time_or_in_the_wrong_number():
    with pytest.raises(ValueError, match="no state yet"):
        Sophia().update_hessian([ops.ones(2)])
    optimizer = Sophia()
    optimizer.build([keras.Variable([1.0])])
    with pytest.raises(ValueError, match=r"one for each of 1 variables. Received: 2"):
        optimizer.update_hessian([ops.ones(1), ops.ones(1)])


def test_warning_without_an_estimate():
    w, optimizer = keras.Variable([1.0, 1.0]), Sophia(0.5, weight_decay=None)
    with pytest.warns(UserWarning, match=r"no estimate of the Hessian.*Train a `SophiaModel`"):
        optimizer.apply([ops.convert_to_tensor([1e-3, -5.0])], [w])
    assert ops.convert_to_numpy(w).tolist() == [0.5, 1.5]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        optimizer.apply([ops.ones(2)], [w])
        compiled(classifier(), sophia()).fit(X, Y, verbose=0)


# What the model tells it


@every_jit
@pytest.mark.parametrize("batch_size", some([5120, 1]))
def test_gauss_newton_bartlett_is_the_hessian_of_a_linear_model(batch_size, jit):
    """On average over labels; and n times h does not depend on what n is said to be."""
    model = classifier(use_bias=False)
    trained = compiled(model, sophia(0.0, batch_size=batch_size, weight_decay=None), jit=jit)
    estimates = []
    for _ in range(400):
        trained.train_on_batch(X, Y)
        estimates.append(batch_size * hessian(trained.optimizer))
    p = ops.convert_to_numpy(ops.softmax(model(X)))
    exact = np.mean(X[:, :, None] ** 2 * (p * (1 - p))[:, None, :], axis=0)
    ratio = np.mean(estimates, axis=0) / exact
    assert np.std(estimates, axis=0).min() > 0
    assert np.mean(ratio) == pytest.approx(1, abs=0.06)
    assert np.all(np.abs(ratio - 1) < 0.3)


@every_jit
def test_hutchinson_is_the_hessian(jit):
    """Of the mean of (x w - y)^2, with weights: on average; of one weight for each output, exactly."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    options = {"estimator": "hutchinson", "weight_decay": None}
    trained = compiled(model, sophia(0.0, **options), "mse", jit)
    estimates = []
    for _ in range(100):
        trained.train_on_batch(X, Y)
        estimates.append(hessian(trained.optimizer)[:, 0])
    full = 2 * X.T @ X / 32
    np.testing.assert_allclose(np.mean(estimates, axis=0), np.diag(full), atol=0.15)
    signs = np.array([[1, i, j] for i in (-1, 1) for j in (-1, 1)])
    possible = signs * (signs @ full)
    for estimate in estimates:
        assert np.min(np.abs(possible - estimate).max(axis=1)) < 1e-5
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, use_bias=False)])
    trained = compiled(model, sophia(**options), "mse", jit)
    trained.train_on_batch(np.full((2, 1), 3.0), np.ones((2, 4)))
    np.testing.assert_allclose(hessian(trained.optimizer), np.full((1, 4), 2 * 9 / 4), rtol=1e-5)


@every_jit
@pytest.mark.parametrize("accumulate", [None, 2])
@pytest.mark.parametrize("estimator", some(["gauss_newton_bartlett", "hutchinson"]))
def test_estimates_come_each_period_before_the_update(estimator, accumulate, jit):
    optimizer = sophia(update_period=3, estimator=estimator, gradient_accumulation_steps=accumulate)
    model = compiled(classifier(), optimizer, jit=jit)
    changed, before = [], 0
    for _ in range(7 * (accumulate or 1)):
        model.train_on_batch(X, Y)
        changed.append(bool(np.any(hessian(optimizer) != before)))
        before = hessian(optimizer)
    period = 3 * (accumulate or 1)
    assert changed == [i % period == 0 for i in range(len(changed))]


@every_jit
def test_updates_are_those_of_the_optimizer_told_by_hand(jit):
    model = classifier()
    start = [keras.Variable(value) for value in model.get_weights()]
    trained = compiled(model, sophia(rho=1e-4), jit=jit)
    by_hand = Sophia(0.01, rho=1e-4, beta_2=0.0)
    by_hand.build(start)
    for _ in range(3):
        kernel, bias = model.get_weights()
        p = ops.convert_to_numpy(ops.softmax(X @ kernel + bias)) - np.eye(4)[Y]
        trained.train_on_batch(X, Y)
        by_hand.update_hessian([np.sqrt(hessian(trained.optimizer, i)) for i in range(2)])
        by_hand.apply([ops.convert_to_tensor(g, "float32") for g in (X.T @ p / 32, p.mean(axis=0))], start)
        for mine, yours in zip(model.get_weights(), start, strict=True):
            np.testing.assert_allclose(mine, ops.convert_to_numpy(yours), rtol=1e-4, atol=1e-6)


@every_jit
def test_estimates_leave_statistics_and_dropout_alone(jit):
    results = []
    for wrap in (True, False):
        hidden = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=1)]
        model = classifier(*hidden)
        outer = SophiaModel(model) if wrap else model
        outer.compile(sophia(0.0) if wrap else keras.optimizers.SGD(0.0), LOGITS, metrics=["accuracy"], jit_compile=jit)
        history = outer.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0).history
        results.append([*model.get_weights(), *(np.array(values) for values in history.values())])
    for mine, yours in zip(*results, strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("estimator", ["gauss_newton_bartlett", "hutchinson"])
def test_loss_scaling_is_taken_off(estimator):
    found = []
    for scale in (None, 1024.0, "dynamic"):
        optimizer = sophia(estimator=estimator, loss_scale_factor=None if scale == "dynamic" else scale)
        if scale == "dynamic":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=512.0)
        model = compiled(classifier(), optimizer, **EAGER)
        model.train_on_batch(X, Y)
        found.append(hessian(optimizer))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("loss", "activation", "y"),
    [
        ("sparse_categorical_crossentropy", "softmax", Y),
        ("categorical_crossentropy", "softmax", np.eye(4)[Y]),
        (keras.losses.CategoricalCrossentropy(from_logits=True), None, np.eye(4)[Y]),
    ],
)
def test_cross_entropies(loss, activation, y):
    """All draw the same labels, and so have the same estimates."""
    found = []
    for case in ((loss, activation, y), (LOGITS, None, Y)):
        model = compiled(classifier(activation=case[1]), sophia(), case[0], **EAGER)
        model.train_on_batch(X, case[2])
        found.append(hessian(model.optimizer))
    np.testing.assert_allclose(*found, rtol=1e-4)


@pytest.mark.parametrize("estimator", some(["gauss_newton_bartlett", "hutchinson"]))
@pytest.mark.parametrize("policy", some(["float32", "mixed_bfloat16", "mixed_float16"]))
def test_digits(estimator, policy):
    x, y = digits()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(32, "relu", dtype=policy), keras.layers.Dense(10, dtype=policy)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.dtype_policy = keras.DTypePolicy(policy)
    trained = compiled(model, Sophia(5e-3, estimator=estimator), metrics=["accuracy"])
    trained.fit(x, y, batch_size=32, epochs=3, verbose=0)
    assert trained.evaluate(x, y, verbose=0)[1] > 0.9
    assert np.any(hessian(trained.optimizer))


def test_inside_a_wrapper():
    model = compiled(classifier(), Lookahead(sophia(), 2))
    model.fit(X, Y, batch_size=8, verbose=0)
    assert np.any(hessian(model.optimizer))


@pytest.mark.parametrize("options", some([{"run_eagerly": True}, {"steps_per_execution": 2}]))
def test_ways_to_fit(options):
    if "steps_per_execution" in options and BACKEND == "torch":
        pytest.skip("Keras does not have it there")
    weights = []
    for more in ({}, options):
        model = compiled(classifier(), sophia(update_period=2), jit=JIT[0] and "run_eagerly" not in more, **more)
        model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
        weights.append(model.get_weights()[0])
    np.testing.assert_allclose(*weights, rtol=1e-4, atol=1e-6)


def test_saved_model_goes_on(tmp_path):
    """With the labels that would have been drawn."""
    model = compiled(classifier(), sophia(update_period=2))
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, again):
        each.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    np.testing.assert_allclose(again.get_weights()[0], model.get_weights()[0], rtol=1e-6)
    np.testing.assert_allclose(hessian(again.optimizer), hessian(model.optimizer), rtol=1e-5)


# What it cannot do


@pytest.mark.parametrize(
    ("optimizer", "loss", "y", "message"),
    [
        (
            keras.optimizers.Adam(),
            LOGITS,
            Y,
            "SophiaModel needs the optimizer Sophia of keras_lrsched. Received: optimizer=<",
        ),
        (
            Sophia(),
            "mse",
            np.eye(4)[Y],
            "Gauss-Newton-Bartlett needs a .sparse. categorical cross-entropy; .*Received: loss='mse'",
        ),
    ],
)
def test_other_optimizers_and_losses(optimizer, loss, y, message):
    with pytest.raises(ValueError, match=message):
        compiled(classifier(), optimizer, loss, jit=False, run_eagerly=BACKEND != "jax").fit(X, y, verbose=0)


def two_headed():
    x = keras.Input((3,))
    return keras.Model(x, {"a": keras.layers.Dense(4)(x), "b": keras.layers.Dense(4)(x)})


@nightly
def test_several_outputs():
    losses, y = {"a": LOGITS, "b": LOGITS}, {"a": Y, "b": Y}
    with pytest.raises(ValueError, match=r"needs a \(sparse\) categorical cross-entropy"):
        compiled(two_headed(), Sophia(), losses, **EAGER).fit(X, y, verbose=0)
    trained = compiled(two_headed(), Sophia(1e-3, estimator="hutchinson"), losses)
    history = trained.fit(X, y, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]


@nightly
@pytest.mark.skipif(BACKEND == "jax", reason="there an optimizer updates all variables that it was built with")
@pytest.mark.parametrize("estimator", some(["gauss_newton_bartlett", "hutchinson"]))
def test_a_layer_is_frozen_between_fits(estimator):
    """Its estimates stay what they were; those of the others still reach them."""
    inner = classifier(keras.layers.Dense(5))
    optimizer, model = sophia(estimator=estimator), SophiaModel(inner)
    model.compile(optimizer, LOGITS)
    model.fit(X, Y, batch_size=16, verbose=0)
    inner.layers[0].trainable = False
    model.compile(optimizer, LOGITS)
    weights, before = inner.get_weights(), [hessian(optimizer, i) for i in range(4)]
    model.fit(X, Y, batch_size=16, verbose=0)
    same = [np.array_equal(hessian(optimizer, i), before[i]) for i in range(4)]
    assert same == [np.array_equal(*pair) for pair in zip(inner.get_weights(), weights, strict=True)]
    assert same == [True, True, False, False]

"""Branches of a training: what they are, what is chosen from them, and that the training does not notice."""

import re
import warnings

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import CriticalBatchSize, LossRecorder, WeightAveraging
from keras_lrsched.callbacks.critical_batch_size import largest_harmless, smoothed
from keras_lrsched.data import ScheduledBatches
from tests.nightly import nightly, some

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 3))
Y, WEIGHTS = X @ np.ones((3, 1)), RANDOM.uniform(0.5, 2, size=32)


def linear_model(optimizer=None):
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.full((3, 1), 0.5)])
    model.compile(optimizer or keras.optimizers.SGD(0.01), loss="mse")
    return model


def test_reference_numbers():
    losses = (3.00, 2.995, 2.998, 3.004, 3.02, 3.06)
    assert largest_harmless((1, 2, 3, 4, 6, 8), losses, 0.01) == 4
    assert smoothed([3.2, 3.1, 3.05, 3.0], 0.5) == pytest.approx(3.05, rel=1e-12)


def test_diverged_branches_do_not_count():
    assert largest_harmless((1, 2, 4), (3.0, float("nan"), 2.9), 0.01) == 4
    assert largest_harmless((1, 2), (3.0, float("nan")), 0.01) == 1


def branch(w, size, rate, weights=None):
    """The losses of one pass in order, by plain gradient descent."""
    for start in range(0, 32, size):
        part = slice(start, start + size)
        error = X[part] @ w - Y[part]
        weight = 1.0 if weights is None else weights[part, None]
        yield np.mean(weight * error**2)
        w = w - rate * 2 * X[part].T @ (weight * error) / len(error)


@pytest.mark.parametrize(("rule", "power"), [("sqrt", 0.5), ("linear", 1.0)])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_branches(rule, power, weights):
    model = linear_model()
    critical = CriticalBatchSize(32, (1, 2, 3), rule)
    model.fit(X, Y, 4, sample_weight=weights, shuffle=False, verbose=0, callbacks=[critical])
    (found,) = critical.history
    w = model.get_weights()[0].astype("float64")
    expected = [smoothed(branch(w, 4 * k, 0.01 * k**power, weights), 0.5) for k in (1, 2, 3)]
    np.testing.assert_allclose(found["losses"], expected, rtol=1e-5)
    best = found["multiplier"]
    assert best == largest_harmless((1, 2, 3), expected, 0.01)
    assert (found["step"], found["batch_size"], found["critical_batch_size"]) == (8, 4, 4 * best)
    assert found["learning_rate"] == pytest.approx(0.01 * best**power, rel=1e-6)


def test_sizes_are_those_of_optimizer_steps():
    sizes = {}
    for size, accumulated in ((8, None), (4, 2)):
        critical = CriticalBatchSize(32, (1, 2), "linear")
        model = linear_model(keras.optimizers.SGD(0.01, gradient_accumulation_steps=accumulated))
        model.fit(X, Y, size, shuffle=False, verbose=0, callbacks=[critical])
        sizes[accumulated] = [critical.history[0][name] for name in ("batch_size", "critical_batch_size", "step")]
    assert sizes[None] == sizes[2]
    assert sizes[2][0] == 8


@pytest.mark.parametrize("first", some([True, False]))
def test_measures_with_the_weights_of_the_training(first):
    def run(*callbacks):
        critical = CriticalBatchSize(32, (1, 2))
        pair = [critical, *callbacks]
        model = linear_model()
        model.fit(X, Y, 4, shuffle=False, verbose=0, callbacks=pair if first else pair[::-1])
        return critical.history

    assert run(WeightAveraging("swa", every=1, keep_average=False)) == run()


def test_epochs_are_counted_over_all_fits():
    model, critical = linear_model(), CriticalBatchSize(32, (1, 2), every=2)
    for _ in range(4):
        model.fit(X, Y, 16, verbose=0, callbacks=[critical])
    assert [row["step"] for row in critical.history] == [4, 8]


@nightly
@pytest.mark.parametrize("changing", some([False, True]))
def test_training_does_not_notice(changing):
    def train(*callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.layers.Input((3,)),
                keras.layers.Dense(8),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.3),
                keras.layers.Dense(1),
            ]
        )
        model.compile(keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
        model.optimizer.build(model.trainable_variables)
        data = (ScheduledBatches(X, Y, batch_size=4),) if changing else (X, Y, 4)
        history = model.fit(*data, epochs=3, shuffle=False, verbose=0, callbacks=list(callbacks))
        return model, history.history

    critical = CriticalBatchSize(16, (1, 2, 4), every=2)
    (one, logs), (other, logs_of_other) = train(critical), train()
    for variable, same in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), keras.ops.convert_to_numpy(same))
    assert logs["loss"] == logs_of_other["loss"]
    assert [found["step"] for found in critical.history] == [16]


@nightly
def test_large_noise_asks_for_large_batches():
    """At the optimum of a noisy problem, small batches shake the weights and large ones do less."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2048, 3))
    y = x @ np.ones((3, 1)) + random.normal(size=(2048, 1))
    model = linear_model(keras.optimizers.SGD(0.05))
    critical = CriticalBatchSize(1024, (1, 2, 4, 8), tolerance=0.1, smoothing=0.1)
    model.fit(x, y, 4, verbose=0, callbacks=[critical])
    assert critical.history[0]["critical_batch_size"] >= 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "Received: samples=0"),
        ({"multipliers": [2, 4]}, r"must begin with 1. Received: multipliers=\[2, 4\]"),
        ({"multipliers": [1, 4, 2]}, "must be strictly increasing"),
        ({"learning_rate_rule": "none"}, "Received: learning_rate_rule='none'"),
        ({"smoothing": 0}, "Received: smoothing=0"),
        ({"tolerance": -1}, "Received: tolerance=-1"),
        ({"every": 0}, "Received: every=0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        CriticalBatchSize(**{"samples": 8, **options})


def test_batch_larger_than_the_samples():
    model = linear_model()
    with pytest.raises(ValueError, match=r"one batch of the largest size, 32, at least. Received: samples=31"):
        model.fit(X, Y, 4, verbose=0, callbacks=[CriticalBatchSize(31)])
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 0


CHANGED = "CriticalBatchSize makes further passes over the data, which change the batches that `fit` trains on afterwards"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="measured on TensorFlow's own loop")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        pytest.param("in order", None, marks=nightly),
        ("one shuffle", None),
        pytest.param("random operations", None, marks=nightly),
        ("shuffle", f"{CHANGED}.*`data.input0`, the order of `shuffle`"),
        pytest.param(
            "generator", f"{CHANGED}.*`data.input0.function0`, the state of a Python function or generator", marks=nightly
        ),
        ("layers", f"{CHANGED}.*`data.function0`, the variables "),
    ],
)
def test_pipelines_that_a_further_pass_changes(kind, message):
    """A warning where the training is another one than without the callback, and none where it is the same."""
    import tensorflow as tf

    def pipeline():
        x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
        rows = tf.data.Dataset.from_tensor_slices((x, x[:, :1]))
        if kind == "one shuffle":
            return rows.shuffle(16, seed=1, reshuffle_each_iteration=False).batch(4)
        if kind == "shuffle":
            return rows.shuffle(16, seed=1).batch(4)
        if kind == "random operations":
            return rows.map(lambda x, y: (x + tf.random.normal((3,)), y)).batch(4)
        if kind == "layers":
            noise = keras.layers.GaussianNoise(1.0, seed=1)
            return rows.batch(4).map(lambda x, y: (noise(x, training=True), y))
        if kind == "generator":
            random = np.random.default_rng(0)
            spec = rows.element_spec
            return tf.data.Dataset.from_generator(
                lambda: ((x + random.normal(size=3), x[:1]) for x in np.ones((16, 3), "float32")), output_signature=spec
            ).batch(4)
        return rows.batch(4)

    def losses(*callbacks):
        keras.utils.set_random_seed(0)
        recorder = LossRecorder()
        linear_model(keras.optimizers.SGD(1e-4)).fit(pipeline(), epochs=2, verbose=0, callbacks=[recorder, *callbacks])
        return recorder.loss

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        measured = losses(CriticalBatchSize(samples=8, multipliers=(1, 2)))
    told = [str(each.message) for each in caught if "further passes" in str(each.message)]
    assert len(told) == (message is not None)
    if message is not None:
        assert re.search(message, told[0])
    assert np.allclose(measured, losses()) == (message is None)

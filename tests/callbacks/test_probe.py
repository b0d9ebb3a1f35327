"""The measurements on a probe batch, against NumPy and finite differences."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks._probe import Probe, random_direction
from tests.contract.backends import JIT_WAYS
from tests.nightly import nightly

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(12, 3)).astype("float32"), RANDOM.normal(size=(12, 2)).astype("float32")


def network(*hidden, jit=False, loss="mse"):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.layers.Input((3,)), *hidden, keras.layers.Dense(2)])
    model.compile("sgd", loss=loss, jit_compile=jit, metrics=["mae"])
    return model


def small():
    return keras.layers.Dense(4, "tanh"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)


def gradient_by_differences(model, x, y):
    """In float64."""
    weights = [np.asarray(variable.numpy(), "float64") for variable in model.trainable_variables]
    flat = np.concatenate([w.ravel() for w in weights])

    def loss(flat):
        parts = np.split(flat, np.cumsum([w.size for w in weights])[:-1])
        w, b, gamma, beta, v, c = [p.reshape(w.shape) for p, w in zip(parts, weights, strict=True)]
        hidden = np.tanh(x @ w + b) / np.sqrt(1 + 1e-3) * gamma + beta
        return np.mean((hidden @ v + c - y) ** 2)

    def gradient(flat, step=1e-5):
        return np.array([(loss(flat + e) - loss(flat - e)) / (2 * step) for e in step * np.eye(len(flat))])

    step = 1e-4
    hessian = np.array([(gradient(flat + e) - gradient(flat - e)) / (2 * step) for e in step * np.eye(len(flat))])
    return gradient(flat), (hessian + hessian.T) / 2


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_quadratic(jit):
    model = network(jit=jit)
    inputs = np.c_[X, np.ones(12)]
    values, vectors = np.linalg.eigh(inputs.T @ inputs / 12)  # each output has it once, and mse takes the mean of two
    sharpness, vector = Probe(model, (X, Y)).power_iteration(random_direction(model), 100)
    assert sharpness == pytest.approx(values[-1], rel=1e-5)
    found = np.r_[vector[0], vector[1][None]]
    np.testing.assert_allclose(np.abs(vectors[:, -1] @ found), np.linalg.norm(found, axis=0), rtol=1e-3)


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_against_the_hessian_of_a_network(jit):
    model = network(*small(), jit=jit)
    gradient, hessian = gradient_by_differences(model, X.astype("float64"), Y.astype("float64"))
    values = np.linalg.eigvalsh(hessian)
    probe = Probe(model, (X, Y))
    sharpness, _ = probe.power_iteration(random_direction(model), 200)
    assert sharpness == pytest.approx(values[np.argmax(np.abs(values))], rel=1e-4)
    halves = [gradient_by_differences(model, X[part], Y[part])[0] for part in (slice(6), slice(6, 12))]
    norm, noise = probe.gradient_noise()
    assert norm == pytest.approx(np.linalg.norm(gradient), rel=1e-4)
    mean = np.mean(halves, 0)
    variance = 6 * sum(np.sum((half - mean) ** 2) for half in halves)
    assert noise == pytest.approx(variance / np.sum(gradient**2), rel=1e-4)


def test_eigenvalue_that_is_largest_in_size_may_be_negative():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", loss=lambda y, y_pred: -3 * y_pred**2)
    x = np.eye(3, dtype="float32")[[0, 0]]
    sharpness, _ = Probe(model, (x, x[:, :1])).power_iteration(random_direction(model), 3)
    assert sharpness == pytest.approx(-6)


def test_noise_of_alike_samples_is_zero():
    assert Probe(network(), (X[[0, 0]], Y[[0, 0]])).gradient_noise()[1] == pytest.approx(0, abs=1e-6)


def test_logits():
    model = network()
    outputs = model.predict(X, verbose=0)
    largest, log_sum_exp = Probe(model, (X, Y)).logits()
    assert largest == pytest.approx(np.abs(outputs).max(), rel=1e-6)
    assert log_sum_exp == pytest.approx(np.mean(np.log(np.exp(outputs).sum(-1))), rel=1e-5)


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_changes_nothing(jit):
    model = network(*small(), jit=jit)
    model.fit(X, Y, verbose=0)
    before = [np.array(v.numpy()) for v in [*model.variables, *model.metrics_variables, *model.optimizer.variables]]
    probe = Probe(model, (X, Y))
    probe.logits(), probe.gradient_noise(), probe.power_iteration(random_direction(model), 2)
    after = [np.array(v.numpy()) for v in [*model.variables, *model.metrics_variables, *model.optimizer.variables]]
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first, second)


def test_sees_the_weights_of_now():
    model = network()
    probe = Probe(model, (X, Y))
    probe.logits()
    model.set_weights([0 * w for w in model.get_weights()])
    assert probe.logits() == pytest.approx((0, np.log(2)))


def test_weights_regularizers_and_added_losses_count():
    class Penalty(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(keras.ops.mean(inputs**2))
            return inputs

    dense = keras.layers.Dense(2, use_bias=False, kernel_regularizer=keras.regularizers.L2(5.0))
    model = keras.Sequential([keras.layers.Input((3,)), dense, Penalty()])
    model.compile("sgd", loss="mse")
    weight = np.linspace(0, 1, 12)
    sharpness, _ = Probe(model, (X, Y, weight)).power_iteration(random_direction(model), 100)
    hessian = (X * weight[:, None]).T @ X / 12 + X.T @ X / 12 + 10 * np.eye(3)
    assert sharpness == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-4)


@nightly
@pytest.mark.parametrize("jit", JIT_WAYS)
def test_attention_and_embedding(jit):
    keras.utils.set_random_seed(0)
    tokens = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(7, 8)(tokens)
    x = keras.layers.LayerNormalization()(x + keras.layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True))
    model = keras.Model(tokens, keras.layers.Dense(7)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss=loss, jit_compile=jit)
    codes = RANDOM.integers(0, 7, size=(4, 6))
    sharpness, vector = Probe(model, (codes[:, :-1], codes[:, 1:])).power_iteration(random_direction(model), 30)
    weights = model.get_weights()
    losses = []
    for step in (-1e-2, 0, 1e-2):
        model.set_weights([w + step * v for w, v in zip(weights, vector, strict=True)])
        losses.append(model.evaluate(codes[:, :-1], codes[:, 1:], verbose=0))
    assert sharpness == pytest.approx((losses[0] - 2 * losses[1] + losses[2]) / 1e-4, rel=3e-2)

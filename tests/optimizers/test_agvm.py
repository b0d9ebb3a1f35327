"""AGVM: factors of modules from the gradients of halves of a batch."""

import keras
import numpy as np
import pytest

from keras_lrsched.optimizers import AGVM, AdamW
from tests.contract.backends import JIT_WAYS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype("float32")
Y = RNG.normal(size=(12, 1)).astype("float32")


def linear_net():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, use_bias=False, name="backbone"), keras.layers.Dense(1, use_bias=False, name="head")]
    return keras.Sequential([keras.Input((3,)), *layers])


def slopes(x, y, w, v):
    """Of the mean squared error of x w v."""
    error = 2 * (x @ w @ v - y) / len(x)
    return x.T @ error @ v.T, (x @ w).T @ error


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_steps_are_those_of_the_formula(jit):
    model = AGVM(linear_net(), ["backbone", "head"], every=2, start=1, beta=0.5)
    model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=jit)
    w, v = (each.astype("float64") for each in model.model.get_weights())
    s = np.ones(2)
    for t in range(6):
        x, y = np.roll(X, t, axis=0), np.roll(Y, t, axis=0)
        loss = model.train_on_batch(x, y)
        assert loss == pytest.approx(np.mean((x @ w @ v - y) ** 2), rel=1e-4)
        a, b = slopes(x[:6], y[:6], w, v), slopes(x[6:], y[6:], w, v)
        if t >= 1 and t % 2 == 0:
            cosines = [np.sum(p * q) / np.linalg.norm(p) / np.linalg.norm(q) for p, q in zip(a, b, strict=True)]
            phi = 1 - np.array(cosines)
            s = 0.5 * s + 0.5 * np.sqrt(np.clip((phi[0] + 1e-6) / (phi + 1e-6), 0.5, 10))
        w, v = (each - 0.05 * s[i] * (a[i] + b[i]) / 2 for i, each in enumerate((w, v)))
        for mine, expected in zip(model.model.get_weights(), (w, v), strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.factors(), s, rtol=1e-4)
    assert abs(s[1] - 1) > 0.02


def test_in_fit_with_another_optimizer():
    """Before `start` it is the optimizer's own step, with batches of odd sizes, too."""
    plain, model = linear_net(), AGVM(linear_net(), ["backbone", "head"], start=100)
    for each in (plain, model):
        each.compile(AdamW(0.01), "mse", metrics=["mae"])
        history = each.fit(X, Y, batch_size=5, epochs=2, shuffle=False, verbose=0).history
    for mine, expected in zip(model.model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-6)
    assert set(history) == {"loss", "mae"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AGVM(linear_net(), ["backbone"]), "two expressions at least"),
        (lambda: AGVM(linear_net(), ["backbone", "neck"]), "'neck' is found in none"),
        (lambda: AGVM(linear_net(), ["backbone", "head"], every=0), "`every` must be"),
        (lambda: AGVM(keras.Sequential([keras.layers.Dense(1)]), ["a", "b"]), "must be built"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(ValueError, match=message):
        build()

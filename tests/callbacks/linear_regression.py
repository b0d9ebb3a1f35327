"""A linear model on one batch, and its training by the plain formulas."""

import keras
import numpy as np
import pytest

from tests.contract.backends import JIT_WAYS

STEPS = 4
X = np.array([[1.0, -2.0], [0.5, 1.5]], "float32")
Y = np.array([[3.0], [-1.0]], "float32")
W = np.array([[0.75], [-1.25]])
jit = pytest.mark.parametrize("jit", JIT_WAYS)


def linear_model(optimizer, jit=False, loss="mse", **options):
    """A linear map whose gradient can be written down; all data are one batch."""
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, use_bias=False, name="dense")])
    model.set_weights([W])
    model.compile(optimizer, loss=loss, jit_compile=jit, **options)
    return model


def fit(model, *callbacks, epochs=STEPS, **options):
    model.fit(X, Y, batch_size=2, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks), **options)
    return model.get_weights()[0]


def gradient(w):
    return 2 / len(X) * X.T.astype("float64") @ (X @ w - Y)


def sgd(values, learning_rate=0.1, momentum=0.0, nesterov=False, weight_decay=0.0, clipnorm=np.inf, scheduled="momentum"):
    w, m = W, 0 * W
    for value in values:
        s = {"momentum": momentum, "weight_decay": weight_decay, "learning_rate": learning_rate, "clipnorm": clipnorm}
        s[scheduled] = value
        g = gradient(w)
        g = g * min(1, s["clipnorm"] / np.linalg.norm(g))
        w = w * (1 - s["weight_decay"] * s["learning_rate"])
        m = s["momentum"] * m - s["learning_rate"] * g
        w = w + (s["momentum"] * m - s["learning_rate"] * g if nesterov else m)
    return w


def adam(values, scheduled, learning_rate=0.1, weight_decay=0.0):
    w, m, v = W, 0 * W, 0 * W
    for t, value in enumerate(values, 1):
        s = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": weight_decay, scheduled: value}
        g = gradient(w)
        w = w * (1 - s["weight_decay"] * learning_rate)
        m = m + (1 - s["beta_1"]) * (g - m)
        v = v + (1 - s["beta_2"]) * (g**2 - v)
        alpha = learning_rate * np.sqrt(1 - s["beta_2"] ** t) / (1 - s["beta_1"] ** t)
        w = w - alpha * m / (np.sqrt(v) + s["epsilon"])
    return w

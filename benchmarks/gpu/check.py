"""Every kernel, called by the optimizers under Keras with JAX, against NumPy in float64."""

from functools import partial

import keras
import numpy as np

from keras_lrsched import optimizers

SHAPES = ((3, 5), (1,), (257, 129), (70_001,), (1024, 513))
RATE, DECAY, UPDATES = 0.01, 0.1, 20


def sgd(w, g, s, t):
    s["m"] = 0.9 * s["m"] + g
    return w - RATE * (s["m"] + DECAY * w)


def lion(w, g, s, t):
    u = 0.9 * s["m"] + 0.1 * g
    s["m"] = 0.99 * s["m"] + 0.01 * g
    return w - RATE * (np.sign(u) + DECAY * w)


def _adam(g, s, t, epsilon):
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["v"] = 0.999 * s["v"] + 0.001 * g * g
    return s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + epsilon)


def adamw(w, g, s, t):
    return w - RATE * (_adam(g, s, t, 1e-8) + DECAY * w)


def lars(w, g, s, t):
    w_norm, g_norm = np.linalg.norm(w), np.linalg.norm(g)
    ratio = 1e-3 * w_norm / (g_norm + DECAY * w_norm + 1e-8)
    s["m"] = 0.9 * s["m"] + ratio * (g + DECAY * w)
    return w - RATE * s["m"]


def lamb(w, g, s, t):
    u = _adam(g, s, t, 1e-6) + DECAY * w
    return w - RATE * np.linalg.norm(w) / np.linalg.norm(u) * u


def mini(w, g, s, t):
    """A second moment for each column, or for each entry of a vector."""
    s["m"] = 0.9 * s["m"] + 0.1 * g
    s["v"] = 0.999 * s["v"] + 0.001 * (g * g).mean(axis=tuple(range(g.ndim - 1)), keepdims=True)
    return w - RATE * (s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-8) + DECAY * w)


def by_columns(**options):
    return optimizers.AdamMini(blocks={".": [-1]}, **options)


METHODS = {
    sgd: partial(optimizers.get, "sgd"),
    lion: partial(optimizers.get, "lion"),
    adamw: partial(optimizers.get, "adamw"),
    lars: optimizers.Lars,
    lamb: partial(optimizers.get, "lamb"),
    mini: by_columns,
}


def check(formula, make):
    """The largest error of a weight, in parts of the largest weight."""
    rng = np.random.default_rng(0)
    exact = [rng.normal(size=shape).astype("float32").astype("float64") for shape in SHAPES]
    variables = [keras.Variable(value.astype("float32")) for value in exact]
    optimizer = make(learning_rate=RATE, weight_decay=DECAY, fused=True)
    optimizer.build(variables)
    states = [{"m": np.zeros(shape), "v": np.zeros(shape)} for shape in SHAPES]
    for t in range(1, UPDATES + 1):
        gradients = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
        exact = [formula(w, g.astype("float64"), s, t) for w, g, s in zip(exact, gradients, states, strict=True)]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)
    pairs = zip(variables, exact, strict=True)
    return max(np.abs(keras.ops.convert_to_numpy(v) - w).max() / np.abs(w).max() for v, w in pairs)


def main():
    import jax

    print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}; the largest error in {UPDATES} updates:")
    for formula, make in METHODS.items():
        error = check(formula, make)
        print(f"{formula.__name__:8}{error:10.1e}")
        assert error < 2e-6, formula.__name__


if __name__ == "__main__":
    main()

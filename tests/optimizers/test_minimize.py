"""SciPy's minimizers on the loss and the weights of a Keras model."""

import keras
import numpy as np
import pytest
import scipy
from keras import ops

from keras_lrsched.optimizers import minimize
from tests.contract.backends import BACKEND

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = X @ np.array([[1.0], [-2.0], [0.5]]) + 0.3 + 0.1 * RNG.normal(size=(40, 1))
EXACT = np.linalg.lstsq(np.c_[X, np.ones(40)], Y, rcond=None)[0].ravel()
DTYPE = "float32" if BACKEND == "jax" else "float64"  # JAX has float64 only behind a switch of its own


def linear(dtype=DTYPE, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,), dtype=dtype), keras.layers.Dense(1, dtype=dtype, name="line", **options)])
    model.dtype_policy = keras.DTypePolicy(dtype)
    model.compile(loss=keras.losses.MeanSquaredError(dtype=dtype))
    return model


def flat(model):
    return np.concatenate([np.ravel(each) for each in model.get_weights()])


def tolerance():
    return 1e-3 if DTYPE == "float32" else 2e-4


@pytest.mark.parametrize(
    "method", ["L-BFGS-B", "BFGS", "CG", "TNC", "SLSQP", "Newton-CG", "trust-ncg", "trust-krylov", "trust-constr", "Powell"]
)
def test_least_squares(method):
    model = linear()
    result = minimize(model, X.astype(DTYPE), Y.astype(DTYPE), method=method)
    is_coarse = method in ("Powell", "TNC", "SLSQP")  # by their own defaults
    np.testing.assert_allclose(flat(model), EXACT, atol=2e-3 if is_coarse else tolerance())
    assert result.fun == pytest.approx(np.mean((Y - np.c_[X, np.ones(40)] @ EXACT[:, None]) ** 2), rel=1e-4)
    assert len(result.history) == result.nit > 0


@pytest.mark.skipif(DTYPE == "float32", reason="the loss is float32 on JAX")
def test_path_is_that_of_scipy():
    """The same iterations as SciPy on the same function in NumPy, in float64."""
    model = linear()
    start, design = flat(model), np.c_[X, np.ones(40)]

    def function(w):
        error = design @ w - Y.ravel()
        return np.mean(error**2), 2 * design.T @ error / 40

    expected = scipy.optimize.minimize(function, start, jac=True, method="L-BFGS-B")
    result = minimize(model, X, Y)
    assert (result.nit, result.message) == (expected.nit, expected.message)
    np.testing.assert_allclose(result.x, expected.x, rtol=1e-7)  # a random start in float32


def test_parts_of_the_data():
    whole, parts = linear(), linear()
    weights = RNG.uniform(0.5, 2, size=40)
    for model, size in ((whole, None), (parts, 7)):
        minimize(model, X.astype(DTYPE), Y.astype(DTYPE), sample_weight=weights, batch_size=size, options={"maxiter": 3})
    np.testing.assert_allclose(flat(whole), flat(parts), rtol=1e-4 if DTYPE == "float32" else 1e-6)


def test_frozen_weights():
    model = linear()
    before = flat(model)
    minimize(model, X.astype(DTYPE), Y.astype(DTYPE), frozen={"kernel": np.array([[True], [False], [False]])})
    assert flat(model)[0] == before[0]
    assert np.all(flat(model)[1:] != before[1:])
    minimize(model, X.astype(DTYPE), Y.astype(DTYPE), frozen=["bias"], options={"maxiter": 2})
    assert flat(model)[0] != before[0]


def test_losses_of_layers_count():
    model = linear("float32", kernel_regularizer="l2")  # Keras adds losses in floatx
    penalty = model.layers[-1].kernel_regularizer.l2
    minimize(model, X.astype("float32"), Y.astype("float32"))
    design = np.c_[X, np.ones(40)]
    normal = design.T @ design / 40 + float(penalty) * np.diag([1, 1, 1, 0])
    np.testing.assert_allclose(flat(model), np.linalg.solve(normal, design.T @ Y / 40).ravel(), atol=1e-3)


def test_equation_as_a_loss():
    """y' = -y with y(0) = 1, by a network of eight units and central differences."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    t = ops.convert_to_tensor(np.linspace(0, 1, 20)[:, None], "float32")

    def residual():
        slope = (model(t + 0.01) - model(t - 0.01)) / 0.02
        return ops.mean(ops.square(slope + model(t))) + ops.mean(ops.square(model(t[:1]) - 1.0))

    result = minimize(model, loss=residual, method="BFGS", options={"maxiter": 200})
    assert result.fun < 1e-4
    np.testing.assert_allclose(ops.convert_to_numpy(model(t)), np.exp(-np.linspace(0, 1, 20))[:, None], atol=0.03)


def test_callbacks():
    """They see each iteration with its weights, and may stop it."""

    class Watch(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_epoch_end(self, epoch, logs=None):
            self.seen.append((epoch, logs["loss"], self.model.evaluate(X.astype(DTYPE), Y.astype(DTYPE), verbose=0)))
            self.model.stop_training = epoch == 2

    watch, model = Watch(), linear()
    result = minimize(model, X.astype(DTYPE), Y.astype(DTYPE), callbacks=[watch])
    assert [epoch for epoch, _, _ in watch.seen] == [0, 1, 2]
    for _, loss, evaluated in watch.seen:
        assert loss == pytest.approx(evaluated, rel=1e-4)
    assert not result.success
    assert "stop_training" in result.message
    np.testing.assert_allclose(flat(model), result.x, rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (lambda: keras.Sequential([keras.layers.Dense(1)]), {}, "must be built"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), {}, "must be compiled"),
        (linear, {"method": "trust-exact"}, "`method` must be one of"),
        (linear, {"frozen": ["gamma"]}, "`frozen`: 'gamma' is found in none"),
        (linear, {"frozen": ["line"]}, "leaves nothing to be trained"),
        (linear, {"frozen": {"kernel": [True, False]}}, "must have the shape"),
        (linear, {"batch_size": 0}, "`batch_size` must be a positive integer"),
        (linear, {"loss": lambda: 0.0, "batch_size": 4}, "takes its data as a whole"),
    ],
)
def test_bad_input(build, options, message):
    with pytest.raises(ValueError, match=message):
        minimize(build(), X, Y, **options)

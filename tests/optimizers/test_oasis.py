"""OASIS against an own script, and what its model gives it."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import OASIS, SGD, OASISModel
from tests.contract.backends import BACKEND
from tests.contract.optimizer_problem import RUNS, variables
from tests.nightly import nightly


def number(tensor):
    return np.array(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def test_reference_run():
    """Down 0.5 sum A w^2, whose Hessian is diagonal, so that z (H z) is exact."""
    run, w = RUNS["oasis_own"], variables()["kernel"]
    curvature = 1 + 0.1 * np.arange(12, dtype="float32").reshape(3, 4)
    optimizer = OASIS(initial_step=0.01, beta_2=0.99, initial_hessian=1.0)
    optimizer.build([w])
    for expected in run["traj"]:
        optimizer.update_hessian([ops.convert_to_tensor(curvature)])
        optimizer.apply([ops.convert_to_tensor(curvature * number(w))], [w])
        np.testing.assert_allclose(number(w).ravel(), expected["W"], rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(number(optimizer._scalars["step_size"]), expected["eta"], rtol=1e-4)


@pytest.mark.parametrize(("initial", "expected"), [(None, [4.0, 3.0]), (2.0, [3.0, 2.5])])
def test_first_estimate_is_the_first_diagonal(initial, expected):
    optimizer = OASIS(beta_2=0.5, initial_hessian=initial)
    optimizer.build([keras.Variable([1.0])])
    for estimate, diagonal in zip([4.0, 2.0], expected, strict=True):
        optimizer.update_hessian([ops.convert_to_tensor([estimate])])
        np.testing.assert_allclose(number(optimizer._states[0]["hessian"]), [diagonal])


def test_last_gradients_are_those_of_the_same_batch():
    """The step size is half of the change of w over that of g, whatever the gradient of the other batch was."""
    optimizer, w = OASIS(initial_step=0.1), keras.Variable([1.0, 1.0])
    optimizer.apply([ops.convert_to_tensor([1.0, 0.0])], [w])
    optimizer.set_last_gradients([ops.convert_to_tensor([0.0, 5.0])])
    optimizer.apply([ops.convert_to_tensor([0.0, 5.5])], [w])
    np.testing.assert_allclose(number(optimizer._scalars["step_size"]), 0.5 * 0.1 / 0.5, rtol=1e-5)


def test_step_size_stays_where_nothing_changes():
    optimizer, w = OASIS(initial_step=0.1), keras.Variable([1.0])
    for g in (0.0, 1.0, 1.0, 1.0):
        optimizer.apply([ops.convert_to_tensor([g])], [w])
        np.testing.assert_allclose(number(optimizer._scalars["step_size"]), 0.1, rtol=1e-6)


def test_model():
    """In the second update of a linear model, on other data, the last gradient is that of these data."""
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = OASISModel(keras.Sequential([keras.Input((2,)), layer]))
    optimizer = OASIS(initial_step=0.1, beta_2=0.5, seed=1)
    model.compile(optimizer, "mse", run_eagerly=BACKEND != "jax")
    batches = [np.diag([1.0, 2.0]).astype("float32"), np.diag([3.0, 1.0]).astype("float32")]
    w, diagonal, previous, k = np.ones(2), None, None, 0.1
    for x in batches:
        model.train_on_batch(x, np.zeros((2, 1)))
        hessian = np.diag(x) ** 2  # of the mean of two squares, where off-diagonal terms are 0
        diagonal = hessian if diagonal is None else 0.5 * (diagonal + hessian)
        if previous is not None:
            way, change = w - previous, hessian * (w - previous)
            k = 0.5 * np.sqrt(np.sum(diagonal * way**2) / np.sum(change**2 / diagonal))
        w, previous = w - k * hessian * w / diagonal, w
        np.testing.assert_allclose(number(optimizer._states[0]["hessian"])[:, 0], diagonal, rtol=1e-5)
        np.testing.assert_allclose(number(layer.kernel)[:, 0], w, rtol=1e-4, atol=1e-6)


@nightly
def test_fit_reduces_the_loss():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 4)), rng.normal(size=(64, 1))
    model = OASISModel(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]))
    model.compile(OASIS(seed=1), "mse")
    losses = model.fit(x, y, batch_size=64, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("optimizer", "match"),
    [(lambda: SGD(), "needs the optimizer OASIS"), (lambda: OASIS(gradient_accumulation_steps=2), "whole gradients")],
)
def test_refused_in_training(optimizer, match):
    model = OASISModel(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    model.compile(optimizer(), "mse", run_eagerly=BACKEND != "jax")
    with pytest.raises(ValueError, match=match):
        model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)


def test_a_number_of_tensors_that_is_wrong():
    optimizer = OASIS()
    with pytest.raises(ValueError, match="no state yet"):
        optimizer.update_hessian([ops.ones(1)])
    optimizer.build([keras.Variable([1.0])])
    with pytest.raises(ValueError, match="must be one for each of 1 variables"):
        optimizer.set_last_gradients([ops.ones(1), None])

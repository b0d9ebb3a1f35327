"""Shampoo in float64, its factors, and the start of its roots."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import Shampoo
from tests.contract.optimizer_problem import RUNS, gradients, variables

IN_FLOAT64 = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX has float64 by a setting of the process only; on PyTorch, `keras.ops.matmul` returns float32",
)
META = {"learning_rate": 0.01, "weight_decay": 0.1}
SUM = {"beta_1": 0.0, "beta_2": 1.0, "epsilon": 1e-4, "grafting": "adagrad", "decoupled_weight_decay": False}
GRAFT = {"beta_2": 0.999, "epsilon": 1e-6, "grafting": "adam", "start_preconditioning_step": 3, "precondition_frequency": 2}


@IN_FLOAT64
@pytest.mark.parametrize(("run", "options"), [("shampoo_meta_adagrad_sum", SUM), ("shampoo_meta_adam_graft", GRAFT)])
def test_exact_in_float64(run, options):
    weights, optimizer = variables("float64"), Shampoo(**META, **options)
    for t, expected in enumerate(RUNS[run]["traj"], start=1):
        optimizer.apply(gradients(t, "float64"), [*weights.values()])
        for name, key in (("kernel", "W"), ("bias", "b")):
            np.testing.assert_allclose(ops.convert_to_numpy(weights[name]).ravel(), expected[key], rtol=1e-7, atol=1e-8)


def update(optimizer, value, gradient, name="kernel"):
    w = keras.Variable(value, dtype="float32", name=name)
    optimizer.apply([ops.convert_to_tensor(np.asarray(gradient, "float32"))], [w])
    return ops.convert_to_numpy(w) - value


def test_vectors_and_scalars_have_one_factor():
    """The first step of a vector is its direction, that of a scalar its sign."""
    moved = update(Shampoo(0.1, epsilon=1e-5), np.zeros(3), [3.0, 0.0, 4.0])
    np.testing.assert_allclose(moved, [-0.06, 0, -0.08], atol=1e-5)
    np.testing.assert_allclose(update(Shampoo(0.1, epsilon=1e-8), np.zeros(()), -7.0), 0.1, atol=1e-5)


def test_a_long_axis_has_no_factor():
    """Then the other one alone has the root -1/2."""
    gradient = np.random.default_rng(0).normal(size=(2, 5))
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    moved = update(Shampoo(0.1, max_preconditioner_dim=4, epsilon=1e-8), np.zeros((2, 5)), gradient)
    np.testing.assert_allclose(moved, -0.1 * left @ right, atol=1e-5)
    optimizer = Shampoo(0.1, exclude_from_preconditioning=["kernel"])
    np.testing.assert_allclose(update(optimizer, np.zeros((2, 5)), gradient), -0.1 * gradient, atol=1e-5)


def test_before_the_start_the_other_method_moves_alone():
    """Without one, momentum does; from then on a step has its length."""
    options = {"start_preconditioning_step": 3, "precondition_frequency": 2, "beta_1": 0.0}
    steps, roots = {"sgd": [], None: []}, []
    for grafting, each in steps.items():
        optimizer, w = Shampoo(0.1, grafting=grafting, **options), keras.Variable(np.zeros((3, 4)), dtype="float32")
        for t in range(5):
            before, g = ops.convert_to_numpy(w), np.random.default_rng(t).normal(size=(3, 4)).astype("float32")
            optimizer.apply([ops.convert_to_tensor(g)], [w])
            each.append((ops.convert_to_numpy(w) - before) / g)
            roots.append(ops.convert_to_numpy(optimizer._states[0]["root_0"]))
            norm = np.linalg.norm(ops.convert_to_numpy(w) - before)
            if grafting:
                np.testing.assert_allclose(norm, 0.1 * np.linalg.norm(g), rtol=1e-5)
    for each in steps.values():
        assert [np.ptp(step) < 1e-5 for step in each] == [True, True, False, False, False]
    changed = [np.any(new != old) for old, new in itertools.pairwise(roots[:5])]
    assert changed == [False, True, True, False]  # at the start, and at multiples of the frequency


def test_beta_3_filters_the_gradient():
    """With 0 there is no momentum, only its correction: h = G."""
    rng = np.random.default_rng(0)
    grads = [ops.convert_to_tensor(rng.normal(size=(2, 3)), "float32") for _ in range(3)]
    for options in ({"beta_3": 0.0}, {"beta_1": 0.0}):
        w = keras.Variable(np.zeros((2, 3)), dtype="float32")
        optimizer = Shampoo(0.1, **options)
        for g in grads:
            optimizer.apply([g], [w])
        if "beta_3" in options:
            expected = ops.convert_to_numpy(w)
    np.testing.assert_allclose(w, expected, rtol=1e-5)

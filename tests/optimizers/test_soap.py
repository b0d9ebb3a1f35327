"""SOAP in float64, the axes that it rotates, and its late start."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import SOAP
from tests.contract.optimizer_problem import RUNS, gradients, variables

IN_FLOAT64 = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX has float64 by a setting of the process only; on PyTorch, `keras.ops.matmul` returns float32",
)
NVIDIA = {"learning_rate": 0.01, "weight_decay": 0.01, "form": "nvidia", "beta_1": 0.9, "precondition_frequency": 1}
KL = {"correction": "kl", "initial_eigenvalue": 0}


@IN_FLOAT64
@pytest.mark.parametrize(
    ("run", "options", "rtol"),
    [
        ("soap_nvidia", {}, 1e-8),
        ("soap_nvidia_nobeta_corr", {"correct_shampoo_beta": False, "nesterov": True}, 1e-8),
        ("kl_soap_nvidia", KL, 1e-5),
        ("rekls_nvidia", {**KL, "basis": "eigh"}, 1e-5),
    ],
)
def test_runs_that_rounding_changes(run, options, rtol):
    """With the epsilon of NVIDIA's code, a direction without a gradient is one of rounding errors."""
    w, optimizer = variables("float64")["kernel"], SOAP(**NVIDIA, **options)
    optimizer.learning_rate = keras.Variable(0.01, dtype="float64")  # which is float32 otherwise: 0.01 to eight digits
    for t, expected in enumerate(RUNS[run]["traj"], start=1):
        optimizer.apply([gradients(t, "float64")[0]], [w])
        np.testing.assert_allclose(ops.convert_to_numpy(w).ravel(), expected["W"], rtol=max(rtol, 1e-7), atol=rtol)


def moved(optimizer, variable, steps=4, seed=0, axes=None):
    """The values after some updates, with gradients that are the same for each shape of one size."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        gradient = rng.normal(size=axes or variable.shape).astype("float32").reshape(variable.shape)
        optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
    return ops.convert_to_numpy(variable)


def factors(optimizer, variable):
    optimizer.build([variable])
    return {name: tuple(v.shape) for name, v in optimizer._states[0].items() if name.startswith("factor")}


def test_axes_with_factors():
    dense, conv = keras.layers.Dense(5, name="dense"), keras.layers.Conv2D(4, (3, 1), name="conv")
    dense.build((None, 3)), conv.build((None, 8, 8, 2))
    experts = keras.layers.EinsumDense("bed,edf->bef", (3, 5))
    experts.build((None, 3, 4))
    norm = keras.layers.LayerNormalization(axis=[-2, -1])
    norm.build((None, 4, 3))
    assert factors(SOAP(), dense.kernel) == {"factor_0": (3, 3), "factor_1": (5, 5)}
    assert factors(SOAP(max_precond_dim=4), dense.kernel) == {"factor_0": (3, 3)}
    assert factors(SOAP(exclude_from_preconditioning=["kernel"]), dense.kernel) == {}
    assert factors(SOAP(), conv.kernel) == {"factor_0": (3, 3), "factor_2": (2, 2), "factor_3": (4, 4)}
    assert factors(SOAP(input_axes={"conv": 3}), conv.kernel) == {"factor_0": (6, 6), "factor_1": (4, 4)}
    assert factors(SOAP(), experts.kernel) == {"factor_0": (3, 4, 4), "factor_1": (3, 5, 5)}
    assert factors(SOAP(), norm.gamma) == {}
    assert factors(SOAP(), dense.bias) == {}
    assert factors(SOAP(precondition_1d=True), dense.bias) == {"factor_0": (5, 5)}


def test_projections_of_attention_are_matrices():
    layer = keras.layers.EinsumDense("btd,ndh->btnh", (None, 2, 3))
    layer.build((None, 5, 4))
    flat = keras.Variable(ops.reshape(ops.transpose(layer.kernel, (1, 0, 2)), (4, 6)), name="kernel")
    rng = np.random.default_rng(0)
    one, other = SOAP(0.1, precondition_frequency=2), SOAP(0.1, precondition_frequency=2)
    for _ in range(4):
        gradient = rng.normal(size=(4, 2, 3)).astype("float32")
        one.apply([ops.convert_to_tensor(gradient.transpose(1, 0, 2))], [layer.kernel])
        other.apply([ops.convert_to_tensor(gradient.reshape(4, 6))], [flat])
    kernel = ops.convert_to_numpy(layer.kernel).transpose(1, 0, 2).reshape(4, 6)
    np.testing.assert_allclose(kernel, flat, rtol=1e-4, atol=1e-5)


def test_matrices_of_one_shape_move_as_they_would_alone():
    """Also those of a stack, and one without a gradient in between."""
    experts = keras.layers.EinsumDense("bed,edf->bef", (2, 5))
    experts.build((None, 2, 4))
    kernel = keras.Variable(np.ones((4, 5)), dtype="float32", name="kernel")
    alone = [keras.Variable(value, name="kernel") for value in (experts.kernel[0], experts.kernel[1], kernel)]
    together, each = SOAP(0.1, precondition_frequency=2), [SOAP(0.1, precondition_frequency=2) for _ in alone]
    rng = np.random.default_rng(0)
    for t in range(5):
        gradient = rng.normal(size=(3, 4, 5)).astype("float32")
        third = None if t == 2 else ops.convert_to_tensor(gradient[2])
        together.apply([ops.convert_to_tensor(gradient[:2]), third], [experts.kernel, kernel])
        for optimizer, variable, g in zip(each, alone, [gradient[0], gradient[1], third], strict=True):
            if g is None:
                optimizer.iterations.assign_add(1)
            else:
                optimizer.apply([ops.convert_to_tensor(g)], [variable])
    for mine, other in zip([*ops.convert_to_numpy(experts.kernel), kernel], alone, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_the_first_update_only_sets_bases():
    weights = [keras.Variable(np.ones(shape), dtype="float32", name=f"w{len(shape)}") for shape in ((3, 4), (4,))]
    optimizer = SOAP(0.1, weight_decay=0.5)
    for t in range(3):
        before = [ops.convert_to_numpy(w) for w in weights]
        optimizer.apply([ops.full(w.shape, np.nan if t == 2 else 1.0) for w in weights], weights)
        moves = [np.abs(ops.convert_to_numpy(w) - old).max() for w, old in zip(weights, before, strict=True)]
        assert all(move == 0 for move in moves) if t == 0 else all(move > 0 or np.isnan(move) for move in moves)
    assert all(np.all(np.isnan(w)) for w in weights)


@pytest.mark.parametrize("options", [{"correction": "kl"}, {"nesterov": True}])
def test_options_of_one_form(options):
    with pytest.raises(ValueError, match="belong to NVIDIA's form: leave `form` out"):
        SOAP(form="authors", **options)
    w = keras.Variable(np.zeros((2, 3)), dtype="float32", name="kernel")
    assert np.all(moved(SOAP(0.1, **options), w, steps=1) != 0)

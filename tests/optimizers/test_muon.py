"""The variables that Muon takes, as which matrices, and in bfloat16."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core import registry
from keras_lrsched.optimizers import Muon, NorMuon
from keras_lrsched.optimizers.muon import orthogonalized
from keras_lrsched.schedules import LinearDecay
from tests.contract.optimizer_problem import RUNS, gradients, variables

ORIGINAL = registry.find("optimizers", "muon").options
MUON = {**ORIGINAL, "learning_rate": 0.02, "weight_decay": 0.01}


@pytest.mark.parametrize(
    ("run", "options"),
    [("muon_official", {}), ("muon_torch", {}), ("muon_torch_rms", {"adjust_lr": "match_rms_adamw"})],
)
def test_bfloat16_agrees_with_that_of_others(run, options):
    """Their products of matrices have 2 to 3 digits; with (out, in) as rows and columns."""
    w = keras.Variable(ops.transpose(variables()["kernel"]), name="kernel")
    optimizer = Muon(**{**MUON, **options}, ns_dtype="bfloat16")
    for t, expected in enumerate(RUNS[run]["traj"], start=1):
        optimizer.apply([ops.transpose(gradients(t)[0])], [w])
        actual, expected = ops.convert_to_numpy(ops.transpose(w)).ravel(), np.array(expected["W"])
        assert np.linalg.norm(actual - expected) < 5e-3 * np.linalg.norm(expected)


def attention():
    layer = keras.layers.MultiHeadAttention(num_heads=2, key_dim=3, name="attention")
    layer.build((None, 5, 8), (None, 5, 8))
    return layer


def test_variables_that_are_matrices():
    model = keras.Sequential(
        [
            keras.layers.Embedding(7, 4, name="embedding"),
            keras.layers.Conv1D(5, 3, name="conv"),
            keras.layers.LayerNormalization(name="norm"),
            keras.layers.Dense(6, name="dense"),
            keras.layers.Dense(2, name="head"),
        ],
        name="model",
    )
    model.build((None, 9))
    weights = [*model.trainable_variables, *attention().trainable_variables]
    optimizer = Muon(exclude_layers=["head/"])
    optimizer.build(weights)
    shapes = {v.path.removeprefix("model/"): optimizer.matrix_shape(v) for v in weights}
    assert {path: shape for path, shape in shapes.items() if shape is not None} == {
        "conv/kernel": (12, 5),
        "dense/kernel": (5, 6),
        "attention/query/kernel": (8, 6),
        "attention/key/kernel": (8, 6),
        "attention/value/kernel": (8, 6),
        "attention/attention_output/kernel": (6, 8),
    }
    for variable in weights:
        state = {"momentum"} if optimizer.matrix_shape(variable) else {"m", "v"}
        assert set(optimizer._states[optimizer._get_variable_index(variable)]) == state


@pytest.mark.parametrize("optimizer", [Muon, NorMuon])
def test_a_kernel_with_more_axes_moves_as_its_matrix(optimizer):
    gradient = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")
    for axes, options in ((3, {}), (2, {"input_axes": {"einsum": 2}}), (1, {"input_axes": {"einsum": 1}})):
        matrix_shape = (int(np.prod(gradient.shape[:axes])), -1)
        moved = []
        for shape in (gradient.shape, matrix_shape):
            w = keras.Variable(np.zeros_like(gradient.reshape(shape)), name="einsum")
            rule = {} if shape == matrix_shape else options
            optimizer(**rule).apply([ops.convert_to_tensor(gradient.reshape(shape))], [w])
            moved.append(ops.convert_to_numpy(w).reshape(gradient.shape))
        np.testing.assert_allclose(*moved, rtol=1e-5, atol=1e-7)


def test_rules_survive_saving():
    options = {"exclude_layers": ["^head"], "input_axes": {"einsum": 2}}
    config = Muon(**options).get_config()
    assert {name: config[name] for name in options} == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"exclude_layers": ["head"]},
            "`exclude_layers`: 'head' is found in none of the 1 paths; the nearest are kernel",
        ),
        ({"input_axes": {"head": 1}}, "`input_axes`: 'head' is found in none of the 1 paths; the nearest are kernel"),
        ({"input_axes": {"kernel": 2}}, r"`input_axes` must leave an axis .*2 for kernel of shape \(3, 4\)"),
    ],
)
def test_rules_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        Muon(**options).build([keras.Variable(np.zeros((3, 4)), dtype="float32", name="kernel")])


def test_rules_that_are_no_rules():
    with pytest.raises(ValueError, match="`input_axes` must be a positive integer"):
        Muon(input_axes={"kernel": 0})


def test_adamw_has_its_own_learning_rate():
    """The first step of AdamW is the learning rate."""
    w = keras.Variable([1.0, -1.0], name="bias")
    Muon.original(learning_rate=0.02).apply([ops.convert_to_tensor([3.0, -5.0])], [w])
    np.testing.assert_allclose(ops.convert_to_numpy(w), [1 - 3e-4, -1 + 3e-4], rtol=1e-6)


def test_adamw_has_its_own_weight_decay():
    """Each decays by its own; a variable is excluded from both in the same way; NorMuon has one for all by default."""
    decays = {}
    for optimizer in (
        Muon(1.0, weight_decay=0.5, adam_weight_decay=0.25, adam_lr_ratio=0.5),
        Muon(1.0, weight_decay=None, adam_weight_decay=LinearDecay(0.25, 10), adam_lr_ratio=0.5),
        Muon(1.0, weight_decay=0.5, adam_weight_decay=None),
        Muon(1.0, exclude_from_weight_decay=["kernel", "bias"]),
        NorMuon(1.0, weight_decay=0.5, adam_lr_ratio=0.5),
        NorMuon(1.0, weight_decay=0.5, adam_lr_ratio=0.5, adam_weight_decay=0.25),
    ):
        weights = [keras.Variable(np.ones(shape), name=name) for name, shape in (("kernel", (2, 2)), ("bias", (2,)))]
        optimizer.apply([ops.zeros(w.shape) for w in weights], weights)
        decays[optimizer.name] = [float(1 - ops.convert_to_numpy(w).flat[0]) for w in weights]
    assert [*decays.values()] == [[0.5, 0.125], [0.0, 0.125], [0.5, 0.0], [0.0, 0.0], [0.5, 0.25], [0.5, 0.125]]


def test_embeddings_are_matrices_where_they_are_not_excluded():
    w = keras.Variable(np.ones((7, 4)), name="embeddings")
    shapes = []
    for exclude in (True, False):
        optimizer = Muon(exclude_embeddings=exclude)
        optimizer.build([w])
        shapes.append(optimizer.matrix_shape(w))
    assert shapes == [None, (7, 4)]


def test_neurons_of_normuon_move_alike():
    rng = np.random.default_rng(0)
    gradient = rng.normal(size=(6, 4)).astype("float32") * np.array([1, 1e-3, 10, 1], "float32")
    lengths = {}
    for optimizer in (Muon, NorMuon):
        make = optimizer.original
        w = keras.Variable(np.zeros((6, 4)), dtype="float32", name="kernel")
        make(learning_rate=1.0).apply([ops.convert_to_tensor(gradient)], [w])
        lengths[optimizer] = np.linalg.norm(ops.convert_to_numpy(w), axis=0)
    np.testing.assert_allclose(lengths[NorMuon], lengths[NorMuon].mean(), rtol=1e-5)
    assert np.ptp(lengths[Muon]) > 0.1
    np.testing.assert_allclose(*(np.linalg.norm(length) for length in lengths.values()), rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (40, 40)])
def test_singular_values_come_near_one(shape):
    rng = np.random.default_rng(0)
    left, _, right = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
    values = np.geomspace(0.02, 1, 40)
    result = orthogonalized(ops.convert_to_tensor((left * values) @ right, "float32"), 5, "float32")
    result = np.diagonal(left.T @ ops.convert_to_numpy(result) @ right.T)
    assert result.min() > 0.68
    assert result.max() < 1.16
    assert np.ptp(result) > 0.2

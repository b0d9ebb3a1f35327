"""The variables that Muon takes, as which matrices, and in bfloat16."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core import registry
from keras_lrsched.optimizers import Muon, NorMuon, _newton_schulz
from keras_lrsched.optimizers._newton_schulz import TABLES, orthogonalized, orthogonalized_all
from keras_lrsched.schedules import LinearDecay
from tests.contract.optimizer_problem import MORE, RUNS, gradients, variables

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


@pytest.mark.parametrize("name", ["newton_schulz", "quintic", "polar_express"])
def test_tables_agree_with_official_code(name):
    """Of NVIDIA's and Microsoft's code, on one matrix; each by itself, and all in one product."""
    key = {"newton_schulz": "simple_5", "quintic": "quintic_5", "polar_express": "polar_express_dion"}[name]
    expected = np.array(MORE["orthogonalization"]["table"][key])
    x = gradients(1)[0]
    safety, epsilon = (1.02, 1e-6) if name == "polar_express" else (1.0, 1e-7)  # the function's own, here
    both = [x, ops.transpose(x), ops.stack([x, -x])]
    results = orthogonalized_all(both, 5, "float32", TABLES[name], safety, epsilon)
    np.testing.assert_allclose(results[0], expected, atol=3e-5)
    np.testing.assert_allclose(ops.transpose(results[1]), expected, atol=3e-5)
    np.testing.assert_allclose(results[2], [expected, -expected], atol=3e-5)
    for matrix, result in zip(both, results, strict=True):
        alone = orthogonalized(matrix, 5, "float32", TABLES[name], safety, epsilon)
        np.testing.assert_allclose(alone, result, atol=3e-5)


def test_a_list_of_coefficients_repeats_its_last():
    one, other = (Muon(1.0, orthogonalize=table, ns_steps=4) for table in ([(2.0, -1.5, 0.5)], [(2, -1.5, 0.5)] * 4))
    moved = []
    for optimizer in (one, Muon.from_config(other.get_config())):
        w = keras.Variable(np.zeros((3, 4)), dtype="float32", name="kernel")
        optimizer.apply([gradients(1)[0]], [w])
        moved.append(ops.convert_to_numpy(w))
    np.testing.assert_array_equal(*moved)
    with pytest.raises(
        ValueError, match=r"coefficients of `orthogonalize='newton_schulz'`\. Received: orthogonalize='quintic'"
    ):
        Muon(orthogonalize="quintic", muon_a=3.0)


def moves(optimizer, variables, gradient):
    optimizer.build(variables)
    before = [ops.convert_to_numpy(v) for v in variables]
    optimizer.apply([ops.convert_to_tensor(g) for g in gradient], variables)
    return [ops.convert_to_numpy(v) - old for v, old in zip(variables, before, strict=True)]


@pytest.mark.parametrize("optimizer", [Muon, NorMuon])
def test_each_head_is_a_matrix(optimizer):
    """Of queries along the outputs, of the output along the inputs, wherever the axis is; as blocks of two axes, too."""
    layer = attention()
    query, output = layer.query_dense.kernel, layer.output_dense.kernel
    rng = np.random.default_rng(0)
    gradient = [rng.normal(size=v.shape).astype("float32") for v in (query, output)]
    together = optimizer(1.0, weight_decay=None, per_head=True)
    by_head = moves(together, [query, output], gradient)
    assert [together.matrix_shape(v) for v in (query, output)] == [(8, 3), (3, 8)]
    for head in range(2):
        alone = [keras.Variable(np.zeros(shape), dtype="float32", name="kernel") for shape in ((8, 3), (3, 8))]
        expected = moves(optimizer(1.0, weight_decay=None), alone, [gradient[0][:, head], gradient[1][head]])
        np.testing.assert_allclose(by_head[0][:, head], expected[0], atol=1e-5)
        np.testing.assert_allclose(by_head[1][head], expected[1], atol=1e-5)
    flat = [keras.Variable(np.zeros((8, 6)), dtype="float32", name="query")]
    blocks = moves(optimizer(1.0, weight_decay=None, blocks={"query": 2}), flat, [gradient[0].reshape(8, 6)])
    np.testing.assert_allclose(blocks[0].reshape(8, 2, 3), by_head[0], atol=1e-5)


def test_blocks_of_a_fused_projection():
    """Query, key and value of different sizes in one matrix, found by its role."""

    class Attention(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="attention")
            self.qkv = keras.layers.Dense(10, use_bias=False)
            self.qkv.build((None, 4))

    kernel = Attention().qkv.kernel
    gradient = np.random.default_rng(1).normal(size=(4, 10)).astype("float32")
    fused = moves(Muon(1.0, weight_decay=None, blocks={"role:query_key_value": [4, 2, 4]}), [kernel], [gradient])[0]
    parts = np.split(gradient, [4, 6], axis=1)
    alone = [keras.Variable(np.zeros(part.shape), dtype="float32", name="kernel") for part in parts]
    np.testing.assert_allclose(fused, np.concatenate(moves(Muon(1.0, weight_decay=None), alone, parts), 1), atol=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        (Muon, {"blocks": {"kernel": 3}}, r"divide the outputs of a matrix. Received: blocks=3 for the 4 outputs of kernel"),
        (Muon, {"blocks": {"kernel": [1, 2]}}, r"blocks=\[1, 2\] for the 4 outputs of kernel of shape \(3, 4\)"),
        (Muon, {"per_head": True}, "none of the variables is the projection .* Received: per_head=True"),
        (Muon, {"blocks": {"role:query": 2}}, "none of 1 variables is what 'role:query' is for; there are kernel"),
        (NorMuon, {"blocks": {"kernel": [1, 3]}}, r"second moments for `blocks` of different sizes.*for kernel"),
    ],
)
def test_heads_and_blocks_that_do_not_fit(optimizer, options, message):
    with pytest.raises(ValueError, match=message):
        optimizer(**options).build([keras.Variable(np.zeros((3, 4)), dtype="float32", name="kernel")])


@pytest.mark.parametrize("blocks", [{"kernel": 0}, {"kernel": [1, -1]}, {"kernel": "two"}, {"kernel": True}])
def test_blocks_that_are_none(blocks):
    with pytest.raises(ValueError, match="`blocks` must be a positive integer"):
        Muon(blocks=blocks)


def test_the_compiled_update_of_the_rest_agrees_with_the_formula(monkeypatch):
    """With multipliers, decays of its own and an excluded variable; matrices are none of its business."""
    names = {"kernel": (3, 4), "bias": (4,), "gamma": (4,), "beta": (4,)}
    finals = []
    for mode in ("auto", "0"):
        monkeypatch.setenv("KERAS_LRSCHED_FUSED", mode)
        weights = [keras.Variable(np.ones(shape), dtype="float32", name=name) for name, shape in names.items()]
        optimizer = Muon(
            LinearDecay(0.1, 10),
            adam_weight_decay=0.5,
            adam_lr_ratio=0.3,
            exclude_from_weight_decay=["gamma"],
            learning_rate_multipliers={"beta": 2.0},
        )
        for t in range(4):
            rng = np.random.default_rng(t)
            optimizer.apply([ops.convert_to_tensor(rng.normal(size=w.shape), "float32") for w in weights], weights)
        finals.append([ops.convert_to_numpy(w) for w in (*weights, *optimizer.variables)])
    for one, other in zip(*finals, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_small_matrices_of_different_shapes_are_multiplied_at_once(monkeypatch):
    """In plain operations: with zeros around them, which change nothing; large ones are not."""
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "0")
    rng, calls = np.random.default_rng(0), []
    shapes = [(9, 16), (64, 32), (3, 20, 30), (16, 9), (300, 200)]
    xs = [ops.convert_to_tensor(rng.normal(size=shape), "float32") for shape in shapes]
    alone = [orthogonalized(x, 5) for x in xs]
    one = _newton_schulz.orthogonalized
    monkeypatch.setattr(_newton_schulz, "orthogonalized", lambda x, *rest: calls.append(tuple(x.shape)) or one(x, *rest))
    together = orthogonalized_all(xs, 5)
    assert sorted(calls) == [(6, 32, 64), (300, 200)]
    for mine, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(mine, expected, atol=2e-5)


@pytest.mark.parametrize("shape", [(384, 400), (390, 386)])
def test_large_products_in_blocks(shape):
    """The symmetric products of a large matrix, against NumPy."""
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected = x / np.linalg.norm(x)
    for _ in range(2):
        gram = expected @ expected.T
        expected = 3.4445 * expected + (-4.775 * gram + 2.0315 * gram @ gram) @ expected
    np.testing.assert_allclose(orthogonalized(ops.convert_to_tensor(x), 2), expected, atol=1e-5)

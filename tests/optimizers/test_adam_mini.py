"""The blocks of Adam-mini."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core.roles import role_by_path
from keras_lrsched.optimizers import AdamMini, AdamW
from keras_lrsched.optimizers.adam_mini import default_blocks


@pytest.mark.parametrize(
    ("path", "shape", "rule"),
    [
        ("dense/kernel", (3, 4), [-1]),
        ("dense/bias", (4,), "entry"),
        ("attention/query/bias", (2, 3), "entry"),
        ("norm/gamma", (4,), []),
        ("norm/beta", (4,), "entry"),
        ("output/gamma", (4,), []),
        ("embedding/embeddings", (7, 4), [0]),
        ("position_embedding/position_embeddings", (7, 4), [0]),
        ("attention/query/kernel", (4, 2, 3), [1]),
        ("attention/key/kernel", (4, 2, 3), [1]),
        ("attention/value/kernel", (4, 2, 3), [1, 2]),
        ("attention/attention_output/kernel", (2, 3, 4), [2]),
        ("monkey/kernel", (4, 2, 3), []),
        ("lstm/lstm_cell/recurrent_kernel", (4, 16), [-1]),
        ("network/conv/kernel", (3, 3, 2, 4), []),
        ("mlp/conv/kernel", (3, 3, 2, 4), []),
    ],
)
def test_default_blocks(path, shape, rule):
    found = default_blocks(role_by_path(path, shape))
    assert found == (rule if rule == "entry" else [axis % len(shape) for axis in rule])


def second_moments(variable, **options):
    """The value of `v` after one update, broadcast to the variable."""
    optimizer = AdamMini(beta_2=0.0, **options)
    gradient = np.random.default_rng(0).normal(size=variable.shape).astype("float32")
    before = ops.convert_to_numpy(variable) + 0
    optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
    moved = before - ops.convert_to_numpy(variable)
    return np.square(optimizer.learning_rate * gradient / moved), np.square(gradient), optimizer


@pytest.mark.parametrize(
    ("shape", "rule", "axes"),
    [
        ((3, 4), [0], (1,)),
        ((3, 4), [1], (0,)),
        ((3, 4), [-1], (0,)),
        ((3, 4), [], (0, 1)),
        ((4, 2, 3), [1], (0, 2)),
        ((4, 2, 3), [1, 2], (0,)),
        ((4, 2, 3), "entry", ()),
        ((), [], ()),
    ],
)
def test_one_second_moment_for_each_block(shape, rule, axes):
    actual, square, optimizer = second_moments(
        keras.Variable(np.zeros(shape), dtype="float32", name="w"), blocks={"w": rule}
    )
    expected = np.broadcast_to(square.mean(axis=axes, keepdims=True) if axes else square, shape)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    blocks = np.unique(expected.round(5)).size
    assert optimizer.state_bytes() == 4 * (square.size + blocks)


def test_heads_side_by_side():
    actual, square, _ = second_moments(keras.Variable(np.zeros((4, 6)), dtype="float32", name="query"), blocks={"query": 3})
    expected = square.reshape(4, 3, 2).mean(axis=(0, 2)).repeat(2)
    np.testing.assert_allclose(actual, np.broadcast_to(expected, (4, 6)), rtol=1e-5)


def test_blocks_of_single_entries_are_adamw():
    start, rng = np.arange(6.0).reshape(2, 3), np.random.default_rng(0)
    mini, full = (keras.Variable(start, dtype="float32", name="w") for _ in range(2))
    one, other = AdamMini(blocks={"w": "entry"}, weight_decay=0.1), AdamW(weight_decay=0.1, epsilon=1e-8)
    for _ in range(3):
        gradient = ops.convert_to_tensor(rng.normal(size=(2, 3)), "float32")
        one.apply([gradient], [mini])
        other.apply([gradient], [full])
    np.testing.assert_array_equal(ops.convert_to_numpy(mini), ops.convert_to_numpy(full))


@keras.saving.register_keras_serializable(package="test_adam_mini")
def rows_of_tables(path, shape):
    return [0] if "table" in path else None


def test_function_as_rule():
    optimizer = AdamMini(blocks=rows_of_tables)
    again = AdamMini.from_config(json.loads(json.dumps(optimizer.get_config())))
    for each in (optimizer, again):
        each.build(
            [
                keras.Variable(np.zeros((5, 3)), dtype="float32", name="table"),
                keras.Variable(np.zeros((5, 3)), dtype="float32", name="kernel"),
            ]
        )
        assert [state["v"].shape for state in each._states] == [(5, 1), (1, 3)]


def test_rules_survive_saving():
    blocks = {"table": [0], "query": 3, "bias": "entry"}
    config = json.loads(json.dumps(AdamMini(blocks=blocks).get_config()))
    assert AdamMini.from_config(config).blocks == config["blocks"] == blocks


@pytest.mark.parametrize("rule", [0, -1, True, "rows", ["rows"], [0.5], 2.5, None, [True]])
def test_rules_that_are_no_rules(rule):
    with pytest.raises(ValueError, match="`blocks` must hold") as error:
        AdamMini(blocks={"kernel": rule})
    assert repr(rule) in str(error.value)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"table": [0]}, "`blocks`: 'table' is found in none of the 1 paths; the nearest are kernel"),
        ({"kernel": [2]}, r"kernel of shape \(3, 4\) has not all of the axes \[2\]"),
        ({"kernel": 5}, r"kernel of shape \(3, 4\) cannot be cut into 5 blocks"),
        (lambda path, shape: "row", "`blocks` must hold .* Received: 'row'"),
    ],
)
def test_rules_that_do_not_fit(blocks, message):
    with pytest.raises(ValueError, match=message):
        AdamMini(blocks=blocks).build([keras.Variable(np.zeros((3, 4)), dtype="float32", name="kernel")])


def test_state_of_a_transformer_block():
    """About 4 bytes for each parameter, where Adam has 8."""
    attention = keras.layers.MultiHeadAttention(4, 32)
    attention.build((None, 9, 128), (None, 9, 128))
    dense = keras.layers.Dense(512)
    dense.build((None, 128))
    optimizer = AdamMini()
    optimizer.build([*attention.trainable_variables, *dense.trainable_variables])
    assert 4 < optimizer.state_bytes_per_parameter() < 4.1

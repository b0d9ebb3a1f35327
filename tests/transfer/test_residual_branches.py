"""Residual branches in graphs: what is in them, and what multiplies their ends."""

import keras
import pytest
from keras import layers

from keras_lrsched._core.roles import path_of
from keras_lrsched.transfer._residual_branches import residual_branches


def found(model):
    branches = residual_branches(model)
    paths = {id(v): path_of(v) for v in model.trainable_variables}
    return sorted(paths[each] for each in branches.inside), sorted(paths[each] for each in branches.last)


def model_of(body):
    inputs = keras.Input((4,))
    stem = layers.Dense(4, name="stem")(inputs)
    return keras.Model(inputs, layers.Dense(1, name="head")(body(stem)))


def branch(x, name="b"):
    return layers.Dense(4, name=f"{name}_end", use_bias=False)(layers.Dense(8, name=f"{name}_start", use_bias=False)(x))


ONE = (["b_end/kernel", "b_start/kernel"], ["b_end/kernel"])


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x + branch(x),
        lambda x: branch(x) + x,
        lambda x: layers.Add()([x, branch(x)]),
        lambda x: x + layers.Dropout(0.1)(layers.ReLU()(branch(x))),
    ],
)
def test_forms_of_a_sum(body):
    assert found(model_of(body)) == ONE


def test_a_sum_of_two_branches_is_no_residual_connection():
    assert found(model_of(lambda x: branch(x, "b") + branch(x, "c"))) == ([], [])


def test_nested_models():
    inputs = keras.Input((4,))
    block = keras.Model(inputs, inputs + branch(inputs), name="block")
    assert found(model_of(block)) == ONE
    inputs = keras.Input((4,))
    inner = keras.Sequential([layers.Dense(8, use_bias=False), layers.Dense(4, use_bias=False)], name="inner")
    with pytest.raises(ValueError, match=r"ends in 'inner' of the class Sequential, which cannot take a factor"):
        residual_branches(model_of(lambda x: x + inner(x)))


def test_chain():
    inside, last = found(model_of(lambda x: (y := x + branch(x, "b")) + branch(y, "c")))
    assert inside == ["b_end/kernel", "b_start/kernel", "c_end/kernel", "c_start/kernel"]
    assert last == ["b_end/kernel", "c_end/kernel"]


def test_a_normalization_at_the_end():
    inside, last = found(model_of(lambda x: x + layers.RMSNormalization(name="n")(branch(x))))
    assert last == ["n/scale"]
    assert inside == ["b_end/kernel", "b_start/kernel", "n/scale"]


def test_attention_at_the_end():
    inputs = keras.Input((3, 4))
    attention = layers.MultiHeadAttention(2, 2, name="attention", use_bias=False)
    model = keras.Model(inputs, inputs + attention(inputs, inputs))
    assert found(model)[1] == ["attention/attention_output/kernel"]
    assert len(found(model)[0]) == 4


def test_an_end_without_weights_is_refused():
    with pytest.raises(ValueError, match=r"List the variables that multiply the ends of branches as `branch_outputs`"):
        residual_branches(model_of(lambda x: x + layers.Activation("tanh")(branch(x))))
    with pytest.raises(ValueError, match=r"ends in 'end' of the class Dense"):
        residual_branches(model_of(lambda x: x + layers.Dense(4, "tanh", name="end")(x)))

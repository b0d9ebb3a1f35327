"""The numbers of the papers."""

import re

import keras
import pytest

from keras_lrsched._core.roles import is_found, role_by_path
from keras_lrsched.optimizers import multipliers


def rate(rules, path):
    return next((number for rule, number in rules.items() if re.search(rule, path)), 1)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("decoder_layer_3/self_attention/query/kernel", 8),
        ("decoder_layer_3/self_attention/key_dense/bias", 8),
        ("decoder_layer_3/self_attention/value/kernel", 4),
        ("decoder_layer_3/self_attention/attention_output/kernel", 4),
        ("decoder_layer_3/self_attention_layer_norm/gamma", 1),
        ("decoder_layer_3/feedforward_layernorm/scale", 1),
        ("decoder_layer_3/feedforward_gate_dense/kernel", 6),
        ("block/mlp_1/kernel", 6),
        ("token_embedding/embeddings", 10),
        ("token_embedding/reverse_embeddings", 1),  # the head
        ("monkey/kernel", 1),
        ("head/kernel", 1),
    ],
)
def test_blockwise(path, number):
    """Blocks of layers that are not known, by their paths."""
    shape = (4,) if path.endswith(("gamma", "scale", "bias")) else (4, 4)
    role = role_by_path(path, shape)
    found = (rate for rule, rate in multipliers.blockwise().items() if is_found(rule.removeprefix("role:"), role))
    assert next(found, 1) == number


def test_blockwise_arguments():
    with pytest.raises(ValueError, match=r"`patterns` must have names among norm, .*Received: patterns=\{'norms'"):
        multipliers.blockwise(patterns={"norms": "n"})
    with pytest.raises(ValueError, match="`embedding` must be a non-negative number"):
        multipliers.blockwise(embedding=-1)


@pytest.mark.parametrize(
    ("path", "number"),
    [("d/lora_kernel_b", 16), ("e/lora_embeddings_b", 16), ("d/lora_kernel_a", 1), ("d/kernel", 1), ("lora_b/kernel_a", 1)],
)
def test_lora_plus(path, number):
    assert rate(multipliers.lora_plus(), path) == number


def test_layer_decay():
    assert multipliers.layer_decay(0.65, ["a", "b", "c"]) == pytest.approx({"a": 0.65**2, "b": 0.65, "c": 1})
    assert multipliers.discriminative(["a", "b", "c"]) == pytest.approx({"a": 1 / 2.6**2, "b": 1 / 2.6, "c": 1})
    for decay in (0, 1.5, None):
        with pytest.raises(ValueError, match="`decay` must be"):
            multipliers.layer_decay(decay, ["a"])


@pytest.mark.parametrize(
    ("base", "shape", "adam", "sgd"),
    [
        ((64, 64), (256, 256), 1 / 4, 1),
        ((64, 256), (128, 1024), 1 / 2, 2),  # feed-forward, of which both ratios differ
        ((10, 64), (10, 256), 1, 4),  # input
        ((64, 10), (256, 10), 1, 4),  # output
        ((64,), (256,), 1, 4),  # bias, norm
        ((1000, 64), (1000, 256), 1, 4),  # embedding
        ((3, 3, 16, 32), (3, 3, 64, 128), 1 / 4, 1),  # convolution
        ((64, 4, 16), (256, 16, 16), 1 / 4, 1),  # to heads
        ((4, 16, 64), (16, 16, 256), 1 / 4, 1),  # from heads
        ((10,), (10,), 1, 1),
        ((), (), 1, 1),
    ],
)
def test_mup_multiplier(base, shape, adam, sgd):
    assert multipliers.mup_multiplier(base, shape, "adam") == adam
    assert multipliers.mup_multiplier(base, shape, "sgd") == sgd


def test_mup_weight_decay():
    """Its product with the rate stays as it was; or it grows with the root of the width, as arXiv:2510.15262 has it."""
    base, target = {"in": (3, 8), "w.1": (8, 8)}, {"in": (3, 32), "w.1": (32, 32)}
    assert multipliers.mup(base, target) == ({r"^w\.1$": 0.25}, {r"^w\.1$": 4})
    assert multipliers.mup(base, target, weight_decay_power=0.5)[1] == {r"^w\.1$": 2}
    assert multipliers.mup(base, target, weight_decay_power=0)[1] == {r"^w\.1$": 1}
    assert multipliers.mup(base, target, rule="sgd") == ({"^in$": 4}, {"^in$": 0.25})
    assert multipliers.mup(base, base) == ({}, {})


def test_mup_arguments():
    with pytest.raises(ValueError, match=r"must have the same paths. Only one has: \['a', 'b'\]"):
        multipliers.mup({"a": (1,)}, {"b": (1,)})
    with pytest.raises(ValueError, match="`rule` must be one of 'adam', 'sgd'"):
        multipliers.mup({}, {}, rule="lion")
    with pytest.raises(ValueError, match="same number of axes"):
        multipliers.mup_multiplier((2,), (2, 2), "adam")
    with pytest.raises(ValueError, match="at most two wide axes"):
        multipliers.mup_multiplier((2, 2, 2), (4, 4, 4), "adam")


def test_layer_decay_of_a_model_without_weights():
    model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="have no trainable weights: build it first"):
        multipliers.layer_decay(0.5, model)


def test_layer_decay_counts_the_layers_of_nested_models():
    body = keras.Sequential(
        [keras.Input((8,)), *(keras.layers.Dense(8, name=f"block_{i}") for i in range(4))], name="backbone"
    )
    inputs = keras.Input((8,))
    hidden = body(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(hidden + body.layers[-1](hidden)))
    rates = multipliers.layer_decay(0.5, model)
    assert sorted(rates.values()) == [0.0625, 0.125, 0.25, 0.5, 1.0]
    assert rate(rates, "backbone/block_0/kernel") == 0.0625

"""Rules by the path of a variable."""

import keras
import pytest

from keras_lrsched._core import path_rules


def variables(*names):
    return [keras.Variable(0.0, name=name) for name in names]


def test_first_match_in_the_order_of_the_rules():
    found = path_rules.first_match("rules", ["a$", "b", "a"], variables("ba", "ab", "ac", "c"))
    assert found == ["a$", "b", "a", None]


def test_included():
    assert path_rules.included("rules", ["bias|scale", "^emb"], variables("kernel", "bias", "embed", "reembed")) == [
        True,
        False,
        False,
        True,
    ]


def test_rules_of_layers():
    layer = keras.layers.Dense(2, name="out")
    layer.build((None, 3))
    assert path_rules.included("rules", ["out/bias"], layer.trainable_variables) == [True, False]


def test_a_rule_that_is_found_nowhere():
    with pytest.raises(ValueError, match="`rules`: 'z' is found in none of the 2 paths; the nearest are "):
        path_rules.first_match("rules", ["a", "z"], variables("a", "b"))


def test_standing_words_may_find_nothing():
    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
    assert path_rules.included("rules", ["bias", "normalization"], dense.trainable_variables) == [True]


def test_normalization_is_found_by_its_weights():
    """Networks of `keras.applications` call their layers `bn_1`."""
    layers = [keras.layers.Conv2D(2, 3, name="stem"), keras.layers.BatchNormalization(name="bn_1")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.RMSNormalization(name="rms")])
    assert path_rules.included("rules", ["normalization"], model.trainable_variables) == [True, True, False, False, False]


@pytest.mark.parametrize("bad", ["bias", 3, ["("], [3], [None]])
def test_bad_patterns(bad):
    with pytest.raises(ValueError, match="`rules`"):
        path_rules.patterns("rules", bad)


@pytest.mark.parametrize("bad", [["a"], {"(": 1}, {"a": -1}, {"a": "fast"}, {1: 1}])
def test_bad_multipliers(bad):
    with pytest.raises(ValueError, match="`rules`"):
        path_rules.multipliers("rules", bad)

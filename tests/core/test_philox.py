import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core.philox import philox, random_bits

KNOWN = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]
"""From `kat_vectors` of Random123: counter, key, words."""


def words(values):
    return tuple(ops.convert_to_tensor(np.array(value, "uint32").view("int32")) for value in values)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    result = [int(word) % 2**32 for word in philox(words(counter), words(key))]
    assert result == [int(word, 16) for word in expected.split()]


def test_elements_do_not_depend_on_the_shape():
    long = ops.convert_to_numpy(random_bits((1000,), 7))
    np.testing.assert_array_equal(ops.convert_to_numpy(random_bits((3, 7), 7)).ravel(), long[:21])
    assert len(set(long.tolist())) == 1000


def test_seeds_of_all_kinds():
    low_high = np.array([5, 1], "uint32")
    expected = ops.convert_to_numpy(random_bits((9,), 2**32 + 5))
    np.testing.assert_array_equal(ops.convert_to_numpy(random_bits((9,), low_high)), expected)
    generator = keras.random.SeedGenerator(3)
    first, second = (ops.convert_to_numpy(random_bits((9,), generator)) for _ in range(2))
    assert (first != second).any()
    assert (ops.convert_to_numpy(random_bits((9,), None)) != ops.convert_to_numpy(random_bits((9,), None))).any()


@pytest.mark.parametrize("seed", [-1, 1.5, "one", np.zeros(3, "int32")])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match="`seed` must be"):
        random_bits((4,), seed)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="counts the operations of a TensorFlow graph")
def test_the_graph_is_small():
    """A model has several calls for each layer, and each operation costs the tracing of it about a millisecond."""
    import tensorflow as tf

    graph = tf.function(lambda seed: random_bits((64,), seed)).get_concrete_function(tf.TensorSpec((2,), "int32")).graph
    assert len(graph.as_graph_def().node) < 100

"""What is told apart, and what is not."""

import keras
import pytest

from keras_lrsched.callbacks import model_parts


class Own(keras.layers.Layer):
    """Cannot be saved: Keras does not know what its argument is."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def described(*layers, optimizer="sgd"):
    model = keras.Sequential([keras.layers.Input((4,)), *layers])
    model.compile(optimizer, loss="mse")
    return model_parts.describe(model)


def test_names_seeds_and_frozen_layers_are_left_out():
    one, other = keras.layers.Dense(3, name="one"), keras.layers.Dense(3, trainable=False)
    assert described(one) == described(other)
    assert described(keras.layers.Dropout(0.5, seed=1)) == described(keras.layers.Dropout(0.5, seed=2))
    assert described(Own(abs)) == described(Own(keras.ops.square))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (keras.layers.Dense(3, dtype="bfloat16"), r"part 1 is Dense\(units=3.*in float32. Received: Dense.*in bfloat16"),
        (keras.layers.Dense(3, use_bias=False), r"part 1 is .*use_bias=True.*Received: .*use_bias=False"),
        (keras.layers.Dropout(0.5), r"part 1 is Dense.*Received: Dropout\(rate=0.5\)"),
    ],
)
def test_the_first_difference(other, message):
    with pytest.raises(ValueError, match=message):
        model_parts.check(described(other), described(keras.layers.Dense(3)))


def test_a_part_more():
    dense = keras.layers.Dense(3)
    with pytest.raises(ValueError, match=r"part 2 is optimizer SGD. Received: ReLU"):
        model_parts.check(described(dense, keras.layers.ReLU()), described(dense))

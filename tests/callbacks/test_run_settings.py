"""The comparison of scripts: those that are the same, and the first difference of those that are not."""

import keras
import pytest

from keras_lrsched import optimizers, schedules
from keras_lrsched.callbacks import _run_settings


class Own(keras.layers.Layer):
    """Cannot be saved: Keras does not know what its argument is."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


def described(*layers, optimizer="sgd", loss="mse", **options):
    model = keras.Sequential([keras.layers.Input((4,)), *(layers or [keras.layers.Dense(3)])])
    model.compile(optimizer, loss, **options)
    return _run_settings.describe(model, {"kind": "arrays", "batch_size": 4})


def scaled(factor):
    return keras.layers.Lambda(lambda x: factor * x)


def test_names_and_seeds_are_left_out():
    assert described(keras.layers.Dense(3, name="one")) == described(keras.layers.Dense(3))
    assert described(keras.layers.Dropout(0.5, seed=1)) == described(keras.layers.Dropout(0.5, seed=2))
    assert described(Own(abs)) == described(Own(keras.ops.square))
    assert described(scaled(2)) == described(scaled(2))
    assert described(optimizer=keras.optimizers.Adam(name="a")) == described(optimizer=keras.optimizers.Adam(name="b"))


def cubed(y, y_pred):
    return keras.ops.abs(y - y_pred) ** 3


DIFFERENCES = {
    "dtype": (lambda: described(keras.layers.Dense(3, dtype="bfloat16")), "model.layers.1.dtype"),
    "setting": (lambda: described(keras.layers.Dense(3, use_bias=False)), "model.layers.1.use_bias"),
    "frozen": (lambda: described(keras.layers.Dense(3, trainable=False)), "model.layers.1.trainable"),
    "regularizer": (lambda: described(keras.layers.Dense(3, kernel_regularizer="l2")), "model.layers.1.kernel_regularizer"),
    "class": (lambda: described(keras.layers.Dropout(0.5)), "model.layers.1.class"),
    "one more": (lambda: described(keras.layers.Dense(3), keras.layers.ReLU()), "model.layers.2.class"),
    "learning rate": (lambda: described(optimizer=keras.optimizers.SGD(0.5)), "optimizer.learning_rate"),
    "schedule": (
        lambda: described(optimizer=keras.optimizers.SGD(schedules.LinearDecay(0.5, 4))),
        "optimizer.learning_rate",
    ),
    "momentum": (lambda: described(optimizer=keras.optimizers.SGD(momentum=0.5)), "optimizer.momentum"),
    "clipping": (lambda: described(optimizer=keras.optimizers.SGD(clipnorm=1.0)), "optimizer.clipnorm"),
    "optimizer of one name": (lambda: described(optimizer=optimizers.SGD(0.01)), "optimizer.class"),
    "loss": (lambda: described(loss="mae"), "loss"),
    "loss of the user": (lambda: described(loss=cubed), "loss"),
    "metrics": (lambda: described(metrics=["mae"]), "metrics"),
    "a number in a function": (lambda: (described(scaled(2)), described(scaled(3))), "model.layers.1.function"),
}


@pytest.mark.parametrize(("other", "path"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_the_first_difference_is_named_and_can_be_allowed(other, path):
    other = other()
    then, now = other if isinstance(other, tuple) else (described(), other)
    with pytest.raises(ValueError, match=rf'`{path}` is not what it was .*Received: .*allow_changes=\["{path}"\]'):
        _run_settings.check(now, then, ())
    differing = _run_settings.differences(now, then)
    _run_settings.check(now, then, differing)
    _run_settings.check(now, then, ["model", "optimizer", "loss", "metrics"])
    with pytest.raises(ValueError, match="is not what it was"):
        _run_settings.check(now, then, ["data", "model.layers.11", *differing[1:]])


def test_how_the_same_layers_are_connected():
    def describe(swap):
        inputs = keras.Input((4,))
        first, second = keras.layers.Dense(4), keras.layers.Dense(4)
        a = first(inputs)
        b = second(a)
        model = keras.Model(inputs, keras.layers.Subtract()([b, a] if swap else [a, b]))
        model.compile("sgd", "mse")
        return _run_settings.describe(model, {})

    assert describe(swap=False) == describe(swap=False)
    assert _run_settings.differences(describe(swap=True), describe(swap=False)) == ["model.wiring"]


def test_another_version_of_python_compiles_functions_to_other_code():
    then = described(scaled(2))
    now = {**described(scaled(3)), "python": [3, 99]}
    assert _run_settings.differences(now, then) == []


def test_all_optimizers_of_a_model():
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    model.compile(optimizers.Lookahead(keras.optimizers.SGD(0.5)), "mse")
    model.critic_optimizer = keras.optimizers.Adam()
    names = ["optimizer", "optimizer.inner_optimizer", "critic_optimizer"]
    assert list(_run_settings.optimizers_of(model)) == names
    settings = _run_settings.describe(model, {})
    assert settings["optimizer.inner_optimizer.learning_rate"] == "0.5"
    assert settings["critic_optimizer.class"] == "keras.Adam"

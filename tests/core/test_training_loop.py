"""Models whose variables appear in their first step, built ahead of it; callbacks that are moved within their list."""

import keras
import numpy as np
import pytest

from keras_lrsched._core import training_loop
from tests.contract.backends import BACKEND
from tests.nightly import some

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


class Builds(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        training_loop.build(self.model)
        model = self.model
        groups = (model.variables, model.optimizer.variables, model.metrics_variables)
        self.built = [len(variables) for variables in groups]

    def on_train_end(self, logs=None):
        model = self.model
        groups = (model.variables, model.optimizer.variables, model.metrics_variables)
        self.trained = [len(variables) for variables in groups]


class CallsOnly(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(x)


class TrainsAPart(keras.Model):
    """Has no `call`, and a step that trains one of its two parts."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = keras.layers.Dense(1), keras.layers.Dense(1)

    def train_step(self, data):
        import tensorflow as tf

        x, _ = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self.student(x) - self.teacher(x)) ** 2)
        weights = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def _sequential():
    return keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.1), keras.layers.Dense(1)])


def _fit(make, *callbacks, **options):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile("adam", None if make is TrainsAPart else "mse", **options)
    model.fit(X, X[:, :1], batch_size=4, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model.get_weights()


@pytest.mark.parametrize("make", [_sequential, CallsOnly, TrainsAPart])
@pytest.mark.parametrize("eager", some([False, True]))
def test_a_model_is_built_before_its_first_step_as_by_its_first_step(make, eager):
    if make is TrainsAPart and BACKEND != "tensorflow":
        pytest.skip("its step is TensorFlow's")
    builds = Builds()
    weights = _fit(make, builds, run_eagerly=eager)
    assert builds.built == builds.trained
    assert all(np.array_equal(a, b) for a, b in zip(weights, _fit(make, run_eagerly=eager), strict=True))


def test_without_a_running_fit_an_unbuilt_model_is_refused():
    model = CallsOnly()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Call the model on data first"):
        training_loop.build(model)


class Notes(keras.callbacks.Callback):
    def __init__(self, name, notes, place=None):
        super().__init__()
        self.name, self.notes, self.place = name, notes, place

    def set_model(self, model):
        super().set_model(model)
        if self.place is not None:
            self.place(self)

    def on_train_begin(self, logs=None):
        self.notes.append(self.name)


def test_callbacks_are_placed_first_and_last():
    notes = []
    callbacks = [
        Notes("last", notes, training_loop.place_last),
        Notes("a", notes),
        Notes("b", notes),
        Notes("first", notes, training_loop.place_first),
    ]
    model = _sequential()
    model.compile("sgd", "mse")
    model.fit(X, X[:, :1], verbose=0, callbacks=callbacks)
    assert notes == ["first", "a", "b", "last"]

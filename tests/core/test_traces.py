"""After layers have changed, no compiled function goes on with what it has traced before, whoever holds it."""

import keras
import numpy as np
import pytest

from keras_lrsched._core.training_loop.traces import check_traces, forget_traces

X = np.ones((4, 2), "float32")
BACKEND = keras.backend.backend()


class Scaled(keras.layers.Layer):
    """Its factor is no variable, so that a trace has it as a constant."""

    factor = 1.0

    def build(self, shape):
        self.offset = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        return x * self.factor + self.offset


def change(model, layer):
    layer.factor = 2.0
    forget_traces(model, [layer])


@pytest.mark.parametrize("compile", [False, True])
def test_predict_of_the_model_and_of_one_around_it(compile):
    layer = Scaled()
    inner = keras.Sequential([keras.Input((2,)), layer])
    inputs = keras.Input((2,))
    outer = keras.Model(inputs, inner(inputs))
    if compile:
        inner.compile("sgd", "mse")
        outer.compile("sgd", "mse")
    models = inner, outer
    assert [model.predict(X, verbose=0).max() for model in models] == [1, 1]
    if compile:
        assert [model.evaluate(X, 0 * X, verbose=0) for model in models] == [1, 1]
    change(inner, layer)
    assert [model.predict(X, verbose=0).max() for model in models] == [2, 2]
    if compile:
        assert [model.evaluate(X, 0 * X, verbose=0) for model in models] == [4, 4]
        outer.fit(X, X, verbose=0)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
def test_functions_of_tensorflow():
    import tensorflow as tf

    model = keras.Sequential([keras.Input((2,)), Scaled()])
    other = keras.Sequential([keras.Input((2,)), Scaled()])
    whole, of_other = tf.function(lambda x: model(x)), tf.function(lambda x: other(x))
    outer = tf.function(lambda x: whole(x) + 1)
    concrete = whole.get_concrete_function(tf.TensorSpec((4, 2)))
    assert [float(tf.reduce_max(function(X))) for function in (whole, outer, of_other)] == [1, 2, 1]
    change(model, model.layers[0])
    assert [float(tf.reduce_max(function(X))) for function in (whole, outer, of_other)] == [2, 3, 1]
    assert of_other.experimental_get_tracing_count() == 1
    with pytest.raises(ValueError, match="concrete function was traced before"):
        concrete(tf.constant(X))
    assert float(tf.reduce_max(whole.get_concrete_function(tf.TensorSpec((4, 2)))(tf.constant(X)))) == 2


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
def test_pipelines_of_tensorflow_are_refused_while_they_are_in_use():
    import tensorflow as tf

    model = keras.Sequential([keras.Input((2,)), Scaled()])
    data = tf.data.Dataset.from_tensors(X).map(lambda x: model(x))
    with pytest.raises(ValueError, match=r"`tf\.data` pipeline calls the model"):
        check_traces(model.layers)
    del data
    check_traces(model.layers)


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX")
def test_functions_of_jax():
    import jax

    model = keras.Sequential([keras.Input((2,)), Scaled()])
    function = jax.jit(lambda variables, x: model.stateless_call(variables, [], x)[0])
    values = [variable.value for variable in model.trainable_variables]
    assert function(values, X).max() == 1
    change(model, model.layers[0])
    assert function(values, X).max() == 2


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch")
def test_functions_of_torch():
    import torch

    model = keras.Sequential([keras.Input((2,)), Scaled()])
    function = torch.compile(lambda x: model(x), backend="eager")
    assert function(torch.tensor(X)).max() == 1
    change(model, model.layers[0])
    assert function(torch.tensor(X)).max() == 2

"""The internals of Keras that the package relies on are as they were."""

import keras
import numpy as np
import pytest

from keras_lrsched._core import keras_private, training_loop
from tests.contract.backends import BACKEND
from tests.core.keras_changes import relies_on


@pytest.mark.skipif(BACKEND != "jax", reason="JAX alone takes values out of variables")
@relies_on("has_value")
def test_has_value():
    """After an error in the first step, Keras has not put them back."""

    def fails(y, y_pred):
        raise ZeroDivisionError

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    assert keras_private.has_value(model.optimizer.iterations)
    model.fit(np.ones((1, 1)), np.ones((1, 1)), verbose=0)
    assert keras_private.has_value(model.optimizer.iterations)
    model.compile("adam", "mse")
    model.fit(np.ones((1, 1)), np.ones((1, 1)), verbose=0)
    model.train_function = lambda state, iterator: fails(None, None)
    with pytest.raises(ZeroDivisionError):
        model.fit(np.ones((1, 1)), np.ones((1, 1)), verbose=0)
    assert not keras_private.has_value(model.optimizer.iterations)


@relies_on("set_optimizer_variables", "own_optimizer_variables", "remove_optimizer_variables")
def test_own_variables_of_an_optimizer():
    """Removed and put back, in the order that is given; a loss scale around them has its own."""
    inner = keras.optimizers.SGD(0.1)
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    optimizer.build([keras.Variable([1.0])])
    count, rate = keras_private.own_optimizer_variables(inner)
    keras_private.remove_optimizer_variables(inner, [count])
    assert inner.variables == [rate]
    keras_private.set_optimizer_variables(inner, [rate, count])
    assert inner.variables == [rate, count]
    assert optimizer.variables == [*keras_private.own_optimizer_variables(optimizer), rate, count]
    assert inner.add_variable((), name="other") is inner.variables[2]


@relies_on("state_between_steps")
def test_state_between_steps():
    """On JAX the values of each kind, in the order of the variables; elsewhere, and outside of `fit`, `None`."""
    found = {}

    def look(batch, logs):
        for kind in ("trainable_variables", "optimizer_variables", "metrics_variables"):
            values = keras_private.state_between_steps(model, kind)
            found[kind] = None if values is None else [value.shape for value in values]

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    looks = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    model.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0, callbacks=[looks])
    expected = {"trainable_variables": [(2, 3), (3,)], "optimizer_variables": [(), ()], "metrics_variables": [(), ()]}
    assert found == (expected if BACKEND == "jax" else dict.fromkeys(expected))
    assert keras_private.state_between_steps(model, "trainable_variables") is None


@relies_on("is_differentiated")
def test_is_differentiated():
    """Under what takes gradients; variables count as tensors."""
    variable, other = keras.Variable([1.0]), np.ones(1, "float32")
    seen = []
    if BACKEND == "tensorflow":
        import tensorflow as tf

        seen.append(keras_private.is_differentiated([other, variable]))
        with tf.GradientTape():
            seen.append(keras_private.is_differentiated([other, variable]))
    elif BACKEND == "jax":
        import jax

        def function(x):
            seen.append(keras_private.is_differentiated([x]))
            return x

        function(1.0)
        jax.grad(function)(1.0)
    else:
        seen.append(keras_private.is_differentiated([variable]))
    assert seen == ([False] if BACKEND == "torch" else [False, True])


@pytest.mark.skipif(BACKEND != "torch", reason="torch.utils.checkpoint")
@relies_on("is_recomputed")
def test_is_recomputed():
    import torch
    from torch.utils.checkpoint import checkpoint

    seen = []

    def function(x):
        seen.append(keras_private.is_recomputed())
        return x**2

    checkpoint(function, torch.ones(1, requires_grad=True), use_reentrant=False).backward()
    assert seen == [False, True]


@relies_on("is_calling")
def test_is_calling():
    seen = []

    class Layer(keras.layers.Layer):
        def call(self, x):
            seen.append(keras_private.is_calling())
            return x

    keras.Sequential([Layer()])(np.ones((1, 1)))
    assert seen
    assert all(seen)
    assert not keras_private.is_calling()


@pytest.mark.skipif(BACKEND == "tensorflow", reason="there, a batch is fetched within the compiled step")
@relies_on("watch_batches", "batch_watcher")
def test_watch_batches():
    """The batch that was seen last is the one that was trained last, at each batch of each epoch."""
    seen, sizes = [], []

    def begin(logs):
        iterator = training_loop.epoch_iterator()
        assert keras_private.batch_watcher(iterator) is None
        keras_private.watch_batches(iterator, watch)
        assert keras_private.batch_watcher(iterator) is watch

    def watch(batch):
        seen.append(len(batch[0]))

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    end = lambda batch, logs: sizes.append(seen[-1])  # noqa: E731
    looks = keras.callbacks.LambdaCallback(on_train_begin=begin, on_train_batch_end=end)
    model.fit(np.ones((5, 1)), np.ones((5, 1)), batch_size=2, epochs=2, verbose=0, callbacks=[looks])
    assert sizes == [2, 2, 1] * 2


@relies_on("list_last")
def test_variables_that_are_listed_last():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    before = model.weights
    keras_private.list_last(before[1])
    for listed in (model.weights, model.variables, model.trainable_weights, model.trainable_variables):
        assert [id(w) for w in listed] == [id(w) for w in [before[0], *before[2:], before[1]]]
    assert [id(w) for w in model.layers[0].weights] == [id(w) for w in before[:2]]


@relies_on("serialized_objects")
def test_serialized_objects():
    class Unsaved(keras.layers.Layer):
        def __init__(self, function):
            super().__init__()

        def get_config(self):
            raise NotImplementedError

    class Within(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    within = Within()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), within])
    known = keras_private.serialized_objects(model)
    assert {id(model), id(model.layers[0]), id(within)} <= known
    assert id(within.dense) not in known
    assert keras_private.serialized_objects(Unsaved(print)) == set()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
@relies_on("traced_datasets", "forget_tensorflow_traces")
def test_traces_that_read_a_variable():
    import tensorflow as tf

    read, other = keras.Variable(1.0), keras.Variable(1.0)
    function = tf.function(lambda: read.value + other.value)
    trace = function.get_concrete_function()
    unconcerned = tf.function(lambda: other.value + 1)
    unconcerned()
    data = tf.data.Dataset.range(1).map(lambda x: other.value)
    assert not keras_private.traced_datasets([read])
    assert len(keras_private.traced_datasets([other])) == 1
    keras_private.forget_tensorflow_traces([read], "traced before")
    assert (function(), function.experimental_get_tracing_count()) == (2, 1)
    assert (unconcerned(), unconcerned.experimental_get_tracing_count()) == (2, 1)
    with pytest.raises(ValueError, match="traced before"):
        trace()
    assert len(list(data)) == 1


@pytest.mark.parametrize("wrapped", [False, True])
@relies_on("build_optimizer_anew")
def test_an_optimizer_is_built_anew(wrapped):
    inner = keras.optimizers.Adam(1e-2)
    optimizer = keras.optimizers.LossScaleOptimizer(inner) if wrapped else inner
    first, second = keras.Variable([1.0]), keras.Variable([2.0])
    optimizer.build([first])
    optimizer.learning_rate = 0.5
    keras_private.build_optimizer_anew(optimizer, [first, second])
    plain = keras.optimizers.Adam(0.5)
    plain = keras.optimizers.LossScaleOptimizer(plain) if wrapped else plain
    plain.build([first, second])
    assert [v.path.split("/")[-1] for v in optimizer.variables] == [v.path.split("/")[-1] for v in plain.variables]
    assert float(optimizer.learning_rate) == 0.5
    if wrapped and BACKEND == "jax":  # where Keras' scaling works within its compiled step alone
        return
    optimizer.apply([keras.ops.ones(1), keras.ops.ones(1)], [first, second])
    assert float(first[0]) < 1
    assert float(second[0]) < 2


@relies_on("existing")
def test_existing_classes():
    """Those of other versions of Keras are left out."""
    assert keras_private.existing(keras.optimizers, "Adam", "OfAnotherVersion") == (keras.optimizers.Adam,)


@relies_on("functional_model")
def test_functional_model():
    inputs = keras.Input((1,))
    assert type(keras.Model(inputs, keras.layers.Dense(1)(inputs))) is keras_private.functional_model()


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch refuses attributes before its constructor")
@relies_on("record_layers", "recorded_layers", "record_earlier_layers", "children")
def test_layers_are_recorded_as_they_are_made():
    class BeforeConstructor(keras.layers.Layer):
        """Sets an attribute before the constructor of Keras is called."""

        def __init__(self):
            self.inner = keras.layers.Dense(2)
            super().__init__()

    layer = BeforeConstructor()
    recorded = keras_private.recorded_layers()
    assert [sum(each is one for one in recorded) for each in (layer, layer.inner)] == [1, 1]
    assert keras_private.children(layer) == [layer.inner]


@relies_on("own_trainable_variables", "is_graph")
def test_what_a_layer_has_itself():
    model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)])
    norm = model.layers[0]
    norm.trainable = False
    assert [v.name for v in keras_private.own_trainable_variables(norm)] == ["gamma", "beta"]
    assert keras_private.own_trainable_variables(model) == []
    assert keras_private.is_graph(model)
    assert not keras_private.is_graph(norm)


@relies_on("producer")
def test_producer():
    inputs = keras.Input((2,))
    dense = keras.layers.Dense(3)
    hidden = dense(inputs)
    assert keras_private.producer(hidden) == (dense, [inputs])


@relies_on("watch_outputs")
def test_watch_outputs():
    """In a functional model and by itself, and no longer afterwards."""
    inputs = keras.Input((3,))
    layer = keras.layers.Dense(2)
    model, seen = keras.Model(inputs, layer(inputs)), []
    end = keras_private.watch_outputs(layer, lambda result: seen.append(tuple(result.shape)))
    model(np.ones((4, 3)))
    layer(np.ones((5, 3)))
    end()
    model(np.ones((4, 3)))
    assert seen == [(4, 2), (5, 2)]
    assert "call" not in vars(layer)


@relies_on("ATTENTION", "attention_layers", "projections", "watch_attention")
def test_attention_layers():
    """Queries and keys of both classes as they are multiplied, and a state that comes and goes."""
    inputs = keras.Input((5, 4))
    x = keras.layers.MultiHeadAttention(2, 3, name="full")(inputs, inputs)
    model = keras.Model(inputs, keras.layers.GroupQueryAttention(3, 4, 2, name="grouped")(x, x))
    full, grouped = keras_private.attention_layers(model)
    assert (type(full), type(grouped)) == keras_private.ATTENTION
    assert [full.name, grouped.name] == ["full", "grouped"]
    assert [[v.shape for v in each] for each in keras_private.projections(full)[:2]] == [[(4, 2, 3), (2, 3)]] * 2
    assert (keras_private.projections(full)[2], keras_private.projections(grouped)[2]) == (False, True)
    seen, count = [], len(model.weights)

    def watch(variable, query, key, scale, mask, is_causal):
        seen.append((query.shape, key.shape, round(scale**-2)))
        variable.assign([1.0] * 4)

    variable, restore = keras_private.watch_attention(grouped, 4, watch)
    model(np.ones((2, 5, 4)))
    assert seen == [((2, 5, 4, 3), (2, 5, 4, 3), 3)]
    assert len(model.weights) == count + 1
    assert float(variable[0]) == 1.0
    restore()
    model(np.ones((2, 5, 4)))
    assert (len(seen), len(model.weights)) == (1, count)

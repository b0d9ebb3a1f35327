"""The small functions of `keras_private`: each reads or sets what it says; and they are all that uses private names."""

import types

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core import keras_private, training_loop
from tests.contract.backends import BACKEND
from tests.core import private_names, test_keras_private, test_keras_private_data
from tests.core.keras_changes import COVERED, relies_on

X, Y = np.ones((4, 2), "float32"), np.ones((4, 3), "float32")
ON_TENSORFLOW = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")


@pytest.mark.skipif(
    not hasattr(keras.layers, "ReversibleEmbedding"), reason="imports all modules, one of which needs Keras 3.12"
)
def test_no_other_module_uses_private_names():
    assert private_names.all_uses() == {}


def test_every_name_has_a_test():
    others = (test_keras_private, test_keras_private_data)  # whose tests count, too
    assert all(others)
    names = {name for name, value in vars(keras_private).items() if not isinstance(value, types.ModuleType)}
    assert {name for name in names if not name.startswith("_")} == COVERED


def test_a_failure_names_what_changed():
    @relies_on()
    def fails():
        assert keras_private.layers_of(None)

    with pytest.raises(AssertionError, match="Keras changed"):
        fails()


def model_of(*layers, **options):
    model = keras.Sequential([keras.Input((2,)), *(layers or [keras.layers.Dense(3)])])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **options})
    return model


def within_fit(model, look):
    """Call a function at the beginning of a `fit`, within it."""
    looks = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: look())
    model.fit(X, Y, verbose=0, callbacks=[looks])


# Optimizers


@relies_on("iterations", "set_iterations")
def test_iterations():
    optimizer, other = keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1)
    assert keras_private.iterations(optimizer) is optimizer.variables[0]
    keras_private.set_iterations(optimizer, keras_private.iterations(other))
    assert optimizer.iterations is other.iterations


@relies_on("learning_rate_setting", "set_learning_rate_setting", "learning_rate_place", "current_learning_rate")
def test_learning_rate():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    optimizer = keras.optimizers.SGD(0.25)
    assert keras_private.learning_rate_setting(optimizer) is optimizer.variables[1]
    place, key = keras_private.learning_rate_place(optimizer)
    assert place[key] is optimizer.variables[1]
    assert float(keras_private.current_learning_rate(optimizer)) == 0.25
    keras_private.set_learning_rate_setting(optimizer, schedule)
    assert keras_private.learning_rate_setting(optimizer) is schedule
    assert float(keras_private.current_learning_rate(optimizer)) == 0.5


@relies_on(
    "track_optimizer_variable",
    "set_trained_by",
    "trained_by",
    "variable_key",
    "variable_index",
    "check_variables_are_known",
    "is_overwritten_with_gradient",
)
def test_variables_of_an_optimizer():
    optimizer, added, first, second, other = keras.optimizers.SGD(0.1), *(keras.Variable([1.0]) for _ in range(4))
    keras_private.track_optimizer_variable(optimizer, added)
    assert optimizer.variables[-1] is added
    keras_private.set_trained_by(optimizer, [first, second])
    assert optimizer.built
    assert [id(each) for each in keras_private.trained_by(optimizer)] == [id(first), id(second)]
    assert [keras_private.variable_index(optimizer, each) for each in (first, second)] == [0, 1]
    assert keras_private.variable_key(optimizer, first) != keras_private.variable_key(optimizer, second)
    keras_private.check_variables_are_known(optimizer, [second])
    with pytest.raises(ValueError, match="Unknown variable"):
        keras_private.check_variables_are_known(optimizer, [other])
    assert not keras_private.is_overwritten_with_gradient(optimizer, first)
    first.overwrite_with_gradient = True
    assert keras_private.is_overwritten_with_gradient(optimizer, first)


@relies_on("accumulated_gradients", "moving_averages", "adam_moments")
def test_state_of_an_optimizer():
    optimizer, variable = keras.optimizers.Adam(0.1, gradient_accumulation_steps=2, use_ema=True), keras.Variable([1.0])
    optimizer.build([variable])
    optimizer.apply([ops.ones(1)], [variable])
    assert [float(each[0]) for each in keras_private.accumulated_gradients(optimizer)] == [1.0]
    optimizer.apply([ops.ones(1)], [variable])
    (m,), (v,) = keras_private.adam_moments(optimizer)
    np.testing.assert_allclose([float(m[0]), float(v[0])], [0.1, 0.001], rtol=1e-5)
    assert [tuple(each.shape) for each in keras_private.moving_averages(optimizer)] == [(1,)]


@relies_on("replace_update_step")
def test_replaced_update_step():
    optimizer, variable, seen = keras.optimizers.Adam(0.1), keras.Variable([1.0]), []
    optimizer.build([variable])
    update = lambda gradient, variable, learning_rate: seen.append(variable)  # noqa: E731
    all_of_them = lambda grads, variables, learning_rate: [update(*pair, 0.0) for pair in zip(grads, variables)]  # noqa: B905, E731
    keras_private.replace_update_step(optimizer, update, all_of_them)
    optimizer.apply([ops.ones(1)], [variable])
    assert [np.asarray(ops.convert_to_numpy(each)).tolist() for each in seen] == [[1.0]]


@relies_on("OptimizerHooks")
def test_hooks_of_an_optimizer():
    calls = []

    class Hooked(keras_private.OptimizerHooks):
        def _apply_gradients(self, grads, trainable_variables):
            calls.append("apply")
            super()._apply_gradients(grads, trainable_variables)

        def _clip(self, grads):
            calls.append("clip")
            return super()._clip(grads)

        def _update_variables(self, grads, trainable_variables, learning_rate):
            calls.append(f"update by {float(learning_rate)}")

        def _current_learning_rate(self):
            return 2 * super()._current_learning_rate()

        def _update_averages(self, trainable_variables):
            calls.append("average")

        def _assign_averages(self, trainable_variables):
            calls.append("assign averages")

    optimizer, variable = Hooked(0.25, clipnorm=1.0, use_ema=True, weight_decay=0.1), keras.Variable([1.0])
    optimizer.build([variable])
    optimizer.apply([ops.ones(1)], [variable])
    optimizer.finalize_variable_values([variable])
    assert calls == ["clip", "apply", "update by 0.5", "average", "assign averages"] or calls == [
        "apply",
        "clip",
        "update by 0.5",
        "average",
        "assign averages",
    ]
    assert float(variable[0]) == 1.0  # no weight decay of Keras' either


@relies_on("LossScaleHooks")
def test_hooks_of_a_loss_scale():
    calls = []

    class Hooked(keras_private.LossScaleHooks):
        def _apply_finite(self, grads, trainable_variables):
            calls.append("finite")

        def _skip_step(self):
            calls.append("skip")

    optimizer, variable = Hooked(keras.optimizers.SGD(0.1)), keras.Variable([1.0])
    optimizer.build([variable])
    for gradient in (1.0, np.inf):
        optimizer.apply([ops.convert_to_tensor([gradient], "float32")], [variable])
    assert set(calls) == {"finite", "skip"}
    if BACKEND == "jax":
        calls.clear()
        values = [variable.value], [each.value for each in optimizer.variables]
        new, _ = optimizer.stateless_apply(values[1], [ops.ones(1)], values[0])
        assert calls and len(new) == 1  # noqa: PT018


@ON_TENSORFLOW
@relies_on("distribution_strategy", "all_reduced", "disable_all_reduce", "merge_call")
def test_replicas_of_an_optimizer():
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(0.1)
    strategy = keras_private.distribution_strategy(optimizer)
    assert strategy.num_replicas_in_sync == 1
    assert [float(each) for each in keras_private.all_reduced(optimizer, [tf.constant(2.0)])] == [2.0]
    keras_private.disable_all_reduce(optimizer)
    assert [float(each) for each in keras_private.all_reduced(optimizer, [tf.constant(3.0)])] == [3.0]
    assert keras_private.merge_call(lambda strategy, x: x + 1, strategy, 1) == 2


# Layers and variables


@relies_on("layers_of", "layers_within", "value_of", "layout", "autocast")
def test_layers_and_their_variables():
    dense = keras.layers.Dense(3)
    model = model_of(dense)
    assert keras_private.layers_of(model)[0] is model
    assert dense in keras_private.layers_within(model)
    assert model not in keras_private.layers_within(model)
    assert tuple(keras_private.value_of(dense.kernel).shape) == (2, 3)
    assert keras_private.layout(dense.kernel) is None

    class Reads(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(1,))

        def call(self, x):
            return keras_private.autocast(self.w, ops.ones(1, "float32"))

    assert keras.backend.standardize_dtype(Reads(dtype="mixed_bfloat16")(X).dtype) == "bfloat16"


@relies_on("kernel_without_adapter", "embeddings_without_adapter")
def test_weights_without_adapters():
    convolution, dense, embedding = keras.layers.Conv1D(2, 1), keras.layers.Dense(2), keras.layers.Embedding(3, 2)
    convolution.build((None, 4, 3))
    dense.build((None, 3))
    embedding.build((None,))
    for layer in (convolution, dense, embedding):
        layer.enable_lora(1)
    assert keras_private.kernel_without_adapter(convolution) in convolution.variables
    assert keras_private.kernel_without_adapter(dense) in dense.variables
    assert keras_private.embeddings_without_adapter(embedding) in embedding.variables


@relies_on("function_arguments")
def test_arguments_of_a_loss():
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.25)
    assert keras_private.function_arguments(loss)["label_smoothing"] == 0.25
    assert keras_private.function_arguments(X) == {}


@relies_on("MANAGED_ATTRIBUTES", "TRACKED_LISTS")
def test_attributes_that_keras_manages():
    layer = keras.layers.Dense(1)
    assert set(vars(layer)) >= keras_private.TRACKED_LISTS
    assert keras_private.MANAGED_ATTRIBUTES[-1] in vars(layer)


# Training


@relies_on("trains_by_own_step", "is_compiled_part_built", "build_symbolically", "loss_tracker", "compile_arguments")
def test_compiled_model():
    class Own(keras.Sequential):
        def train_step(self, *args):
            return super().train_step(*args)

    model = model_of(metrics=["mae"])
    assert not keras_private.trains_by_own_step(model)
    assert keras_private.trains_by_own_step(Own())
    assert not keras_private.is_compiled_part_built(model)
    keras_private.build_symbolically(model, (X, Y))
    assert keras_private.is_compiled_part_built(model)
    assert keras_private.loss_tracker(model).name == "loss"
    assert keras_private.compile_arguments(model)["loss"] == "mse"


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX")
@relies_on("update_metrics")
def test_metrics_of_a_batch():
    model = model_of()
    model.fit(X, Y, verbose=0)
    model.reset_metrics()
    values = [each.value for each in model.metrics_variables]
    logs, new = keras_private.update_metrics(model, values, ops.convert_to_tensor(3.0), X, Y, Y, None)
    assert float(logs["loss"]) == 3.0
    assert len(new) == len(values)


@relies_on("compiled_loop", "graphs_of_step")
def test_compiled_loop():
    model = model_of()
    model.fit(X, Y, verbose=0)
    graphs = keras_private.graphs_of_step(model)
    assert bool(graphs) == (BACKEND == "tensorflow")
    assert (keras_private.compiled_loop(model) is not None) == (BACKEND == "tensorflow")


@relies_on("set_initial_epoch")
def test_initial_epoch():
    epochs, model = [], model_of()
    begin = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: keras_private.set_initial_epoch(model, 2),
        on_epoch_begin=lambda epoch, logs: epochs.append(epoch),
    )
    model.fit(X, Y, epochs=4, verbose=0, callbacks=[begin])
    assert epochs == [2, 3]


@relies_on("BUILDING", "replace_building")
def test_building():
    """On JAX and PyTorch, `fit` builds a model from a batch; on TensorFlow only in `tf.distribute`."""
    seen = []
    model = model_of()
    assert all(hasattr(model, name) for name in keras_private.BUILDING[:1])
    assert hasattr(keras.Model, keras_private.BUILDING[1]) == (BACKEND == "tensorflow")
    keras_private.replace_building(model, lambda iterator, data_batch: seen.append(training_loop.is_building()))
    getattr(model, keras_private.BUILDING[1])(None, None)
    assert seen == [True]


@relies_on("PROBING")
def test_probing():
    adapters = pytest.importorskip("keras.src.trainers.data_adapters.grain_dataset_adapter")
    assert keras_private.PROBING in vars(adapters.GrainDatasetAdapter)


@relies_on("EXPORTERS")
def test_exporting(tmp_path):
    seen = []

    class Looks(keras.layers.Layer):
        def call(self, x):
            seen.append(training_loop.is_exporting())
            return x

    model = model_of(keras.layers.Dense(1), Looks())
    seen.clear()
    if BACKEND == "torch":
        pytest.skip("needs litert-torch")
    model.export(tmp_path / "model", verbose=False)
    assert any(seen)


# Data


@relies_on("number_of_batches", "set_number_of_batches", "replicas_of_iterator", "data_of_adapter", "shuffle_of_adapter")
def test_epoch_iterator():
    found, batches = [], []

    def look():
        iterator = training_loop.epoch_iterator()
        kind, data = keras_private.data_of_adapter(iterator.data_adapter)
        found.extend(
            [kind, keras_private.shuffle_of_adapter(iterator.data_adapter), keras_private.number_of_batches(iterator)]
        )
        found.append(keras_private.replicas_of_iterator(iterator))
        assert len(data) == 2

    class Shortens(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            keras_private.set_number_of_batches(training_loop.epoch_iterator(), 1)

        def on_train_batch_end(self, batch, logs=None):
            batches.append(batch)

    model = model_of()
    looks = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: look())
    model.fit(X, Y, batch_size=2, verbose=0, callbacks=[looks, Shortens()])
    assert found == ["arrays", True, 2, 1]
    assert batches == [0]


@ON_TENSORFLOW
@relies_on("element_spec")
def test_element_spec():
    found = []
    within_fit(model_of(), lambda: found.append(keras_private.element_spec(training_loop.epoch_iterator())))
    assert [each.shape[-1] for each in found[0]] == [2, 3]


@ON_TENSORFLOW
@relies_on("parts_of_dataset", "shuffles_anew", "repeats_for_ever")
def test_parts_of_a_dataset():
    import tensorflow as tf

    source, variable = tf.data.Dataset.range(3), tf.Variable(1, dtype="int64")
    mapped = source.map(lambda x: x + variable)
    inputs, functions = keras_private.parts_of_dataset(mapped)
    assert inputs[0] is source
    assert [id(each) for each in functions[0][2]] == [id(variable)]
    assert keras_private.shuffles_anew(source.shuffle(3))
    assert not keras_private.shuffles_anew(source.shuffle(3, reshuffle_each_iteration=False))
    assert keras_private.repeats_for_ever(source.repeat())
    assert not keras_private.repeats_for_ever(source.repeat(2))


# Frameworks


@ON_TENSORFLOW
@relies_on("is_compiled_by_xla", "xla_optimization_barrier")
def test_xla():
    import tensorflow as tf

    seen = []

    def function(x):
        seen.append(keras_private.is_compiled_by_xla())
        return keras_private.xla_optimization_barrier([x, x])[0] if seen[-1] else x

    assert float(tf.function(function, jit_compile=True)(tf.constant(1.0))) == 1.0
    function(tf.constant(1.0))
    tf.function(function)(tf.constant(1.0))
    assert seen == [True, False, False]


@relies_on("forget_torch_compiled")
def test_forget_torch_compiled():
    keras_private.forget_torch_compiled()


# Random numbers


@relies_on("global_seed_generator", "existing_global_seed_generator", "forget_global_seed_generator", "random_seed")
def test_global_seeds():
    keras.utils.set_random_seed(7)
    assert keras_private.random_seed() == 7
    keras_private.forget_global_seed_generator()
    assert keras_private.existing_global_seed_generator() is None
    generator = keras_private.global_seed_generator()
    assert keras_private.existing_global_seed_generator() is generator
    before = np.array(ops.convert_to_numpy(generator.state))
    keras.random.normal(())
    assert (ops.convert_to_numpy(generator.state) != before).any()


@ON_TENSORFLOW
@relies_on("eager_random_generator")
def test_eager_random_generator():
    import tensorflow as tf

    tf.random.set_seed(3)
    before = keras_private.eager_random_generator().getstate()
    tf.random.normal(())
    assert keras_private.eager_random_generator().getstate() != before

"""Callbacks that are part of the compiled step: it is traced once for many fits, and left as it was."""

import copy
import math
import pickle

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import (
    GradientController,
    GradientNoiseScale,
    GradientNormRecorder,
    HypergradientLearningRate,
    MagnitudePruning,
    ScheduleHyperparameter,
)
from keras_lrsched.schedules import LinearDecay, SparsityRamp, Tabulated
from tests.callbacks.linear_regression import X, Y, fit, jit, linear_model, sgd
from tests.contract.backends import BACKEND
from tests.nightly import nightly, some

compiled = pytest.mark.skipif(BACKEND == "torch", reason="PyTorch compiles nothing")
only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")

CALLBACKS = {
    "GradientNormRecorder": GradientNormRecorder,
    "GradientNoiseScale": GradientNoiseScale,
    "HypergradientLearningRate": HypergradientLearningRate,
    "MagnitudePruning": lambda: MagnitudePruning(SparsityRamp(0.0, 0.5, 0, 4)),
    "ScheduleHyperparameter": lambda: ScheduleHyperparameter("optimizer.momentum", LinearDecay(0.9, 9)),
}
each = pytest.mark.parametrize(
    "name", some(CALLBACKS, chosen=["GradientNormRecorder", "ScheduleHyperparameter"].__contains__)
)
one = pytest.mark.parametrize("name", some(CALLBACKS))


class Counting(keras.layers.Dense):
    """A layer that counts how often its call is traced."""

    traces = 0

    def call(self, inputs, training=None):
        Counting.traces += bool(training)
        return super().call(inputs)


def model(name="", layer=Counting, **options):
    accumulation = {"gradient_accumulation_steps": 2} if name == "GradientNoiseScale" else {}
    network = keras.Sequential([keras.Input((2,)), layer(2, name="hidden"), layer(1, name="dense")])
    values = [np.linspace(-1, 1, math.prod(v.shape)).reshape(v.shape) for v in network.weights]
    network.set_weights(values)
    network.compile(keras.optimizers.SGD(0.05, momentum=0.5, **accumulation), "mse", jit_compile=BACKEND == "jax", **options)
    return network


def fits(network, *callbacks_of_fits):
    """A short fit with each of several lists of callbacks; what the weights are after each, and how often it was traced."""
    weights, traces = [], []
    for callbacks in callbacks_of_fits:
        before = Counting.traces
        network.fit(X, Y, batch_size=1, shuffle=False, verbose=0, callbacks=callbacks)
        weights.append(np.concatenate([np.ravel(each) for each in network.get_weights()]))
        traces.append(Counting.traces - before)
    return weights, traces


@compiled
@each
def test_equal_callbacks_are_traced_once(name):
    """A new callback in each fit, as where a script calls `fit(epochs=1)` in a loop; the values are right."""
    make = CALLBACKS[name]
    weights, traces = fits(model(name), [make()], [make()], [make()])
    assert traces[0] > 0
    assert traces[1:] == [0, 0]
    expected = [fits(model(name), *[[make()] for _ in range(n)])[0][-1] for n in (1, 2)]
    np.testing.assert_array_equal(weights[:2], expected)


@nightly
@each
def test_fits_in_a_loop_are_those_of_a_model_that_is_compiled_anew(name):
    make = CALLBACKS[name]
    network, other = model(name), model(name, layer=keras.layers.Dense)
    for _ in range(3):
        once, _ = fits(network, [make()])
        other.compile(other.optimizer, "mse", jit_compile=BACKEND == "jax")
        anew, _ = fits(other, [make()])
        np.testing.assert_allclose(once, anew, rtol=1e-6)


@compiled
def test_two_kinds_at_once_and_other_kinds_in_turn():
    norm, momentum = CALLBACKS["GradientNormRecorder"], CALLBACKS["ScheduleHyperparameter"]
    both = [[norm(), momentum()] for _ in range(3)]
    _, traces = fits(model(), both[0], both[1], [norm()], both[2], [], [], both[2])
    assert [n > 0 for n in traces] == [True, False, True, True, True, False, True]
    assert len(both[1][0].gradient_norm) == 2


@compiled
def test_other_settings_are_traced_anew():
    _, traces = fits(model(), [GradientNormRecorder()], [GradientNormRecorder(norm="l1")], [GradientNormRecorder(norm="l1")])
    assert [n > 0 for n in traces] == [True, True, False]
    callbacks = [[ScheduleHyperparameter("optimizer.momentum", LinearDecay(0.9, steps))] for steps in (9, 8, 8)]
    assert [n > 0 for n in fits(model(), *callbacks)[1]] == [True, True, False]


class Custom(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule whose configuration does not hold all that it depends on."""

    value = 0.9

    def __call__(self, step):
        return self.value

    def get_config(self):
        return {}


@jit
def test_schedules_of_other_people_are_traced_anew(jit):
    schedule = Custom()
    network = linear_model(keras.optimizers.SGD(0.1, momentum=0.5), jit)
    fit(network, ScheduleHyperparameter("optimizer.momentum", schedule), epochs=2)
    schedule.value = 0.2
    weights = fit(network, ScheduleHyperparameter("optimizer.momentum", schedule), epochs=1)
    np.testing.assert_allclose(weights, sgd([0.9, 0.9, 0.2]), rtol=2e-6)


@jit
def test_callbacks_of_users_are_traced_anew(jit):
    class Scale(GradientController):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def before_apply(self, gradients, variables):
            self.rate.assign(self.factor)

    network = linear_model(keras.optimizers.SGD(0.1), jit)
    fit(network, Scale(0.02), epochs=1)
    weights = fit(network, Scale(0.04), epochs=1)
    np.testing.assert_allclose(weights, sgd([0.02, 0.04], scheduled="learning_rate"), rtol=3e-6)


@jit
def test_what_makes_the_step_anew_drops_the_old_one(jit):
    network = linear_model(keras.optimizers.SGD(0.1), jit)
    weights = [fit(network, GradientNormRecorder(), epochs=1)]
    network.compile(network.optimizer, lambda y, y_pred: 0.0 * y_pred, jit_compile=jit)
    recorder = GradientNormRecorder()
    weights.append(fit(network, recorder, epochs=1))
    np.testing.assert_array_equal(*weights)
    assert recorder.gradient_norm == [0.0]


@compiled
@jit
def test_a_batch_of_another_size_is_traced_with_the_new_callback(jit):
    network = linear_model(keras.optimizers.SGD(0.1, momentum=0.5), jit)
    first, second = (
        [GradientNormRecorder(), ScheduleHyperparameter("optimizer.momentum", Tabulated([0.9, 0.2, 0.6]))] for _ in range(2)
    )
    fit(network, *first, epochs=1)
    network.fit(np.tile(X, (3, 1)), np.tile(Y, (3, 1)), batch_size=4, shuffle=False, verbose=0, callbacks=second)
    np.testing.assert_allclose(network.get_weights()[0], sgd([0.9, 0.2, 0.6]), rtol=2e-6)
    assert len(second[0].gradient_norm) == 2


@each
def test_models_without_weights_yet(name):
    """As README's own, which has no `Input`: they are built from the data of the running `fit`."""
    weights = []
    for given in ([keras.Input((2,))], []):
        keras.utils.set_random_seed(0)
        accumulation = {"gradient_accumulation_steps": 2} if name == "GradientNoiseScale" else {}
        network = keras.Sequential([*given, keras.layers.Dense(2), keras.layers.Dense(1)])
        network.compile(keras.optimizers.SGD(0.05, momentum=0.5, **accumulation), "mse")
        weights += fits(network, [CALLBACKS[name]()])[0]
    np.testing.assert_allclose(*weights, rtol=1e-6)


def clean(network):
    optimizer = network.optimizer
    assert not {"train_step", "_hooks_of_step"} & vars(network).keys()
    assert not {"apply", "save_own_variables", "load_own_variables"} & vars(optimizer).keys()
    assert not any(getattr(variable, "of_callback", False) for variable in optimizer.variables)


@one
def test_the_model_is_left_clean(name, tmp_path):
    network = model(name, layer=keras.layers.Dense)
    fits(network, [CALLBACKS[name]()], [CALLBACKS[name]()])
    clean(network)
    network.save(tmp_path / "model.keras")
    others = [keras.models.load_model(tmp_path / "model.keras"), pickle.loads(pickle.dumps(network)), copy.deepcopy(network)]
    number = len(network.optimizer.variables)
    weights = fits(network, [], [])[0]
    for other in others:
        assert len(other.optimizer.variables) == number
        np.testing.assert_allclose(fits(other, [], [])[0], weights, rtol=1e-6)


@only_tensorflow
@one
def test_exported_and_checkpointed(name, tmp_path):
    import tensorflow as tf

    class Save(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            tf.train.Checkpoint(model=self.model).write(str(tmp_path / "within"))

    network = model(name, layer=keras.layers.Dense)
    fits(network, [CALLBACKS[name](), Save()])
    expected = network.predict(X, verbose=0)
    network.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(X), expected, rtol=1e-6)
    path = tf.train.Checkpoint(model=network).write(str(tmp_path / "after"))
    for saved in (path, str(tmp_path / "within")):
        plain = model(name, layer=keras.layers.Dense)
        plain.optimizer.build(plain.trainable_variables)
        tf.train.Checkpoint(model=plain).read(saved).assert_existing_objects_matched()
        np.testing.assert_allclose(plain.predict(X, verbose=0), expected, rtol=1e-6)
        for mine, its in zip(plain.optimizer.variables, network.optimizer.variables, strict=True):
            np.testing.assert_array_equal(mine.numpy(), its.numpy())


@only_tensorflow
@one
def test_data_of_unknown_length(name):
    """The step without a batch that finds their end is none, also for Keras' optimizers, and for the seeds of dropout."""
    import tensorflow as tf

    def trained(known):
        network = model(name, layer=keras.layers.Dense)
        network = keras.Sequential([keras.Input((2,)), *network.layers, keras.layers.Dropout(0.5, seed=1)])
        options = {"gradient_accumulation_steps": 2} if name == "GradientNoiseScale" else {}
        network.compile(keras.optimizers.SGD(0.05, momentum=0.5, **options), "mse", jit_compile=False)
        data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(1)
        callback = CALLBACKS[name]()
        network.fit(data if known else data.filter(lambda x, y: True), epochs=3, verbose=0, callbacks=[callback])
        state = callback.state() if hasattr(callback, "state") else {}
        assert int(network.optimizer._iterations) == 6
        variables = [*network.variables, *network.optimizer.variables]
        return [variable.numpy() for variable in variables], state

    (known, state), (unknown, other) = trained(True), trained(False)
    for mine, its in zip(known, unknown, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert str(state) == str(other)

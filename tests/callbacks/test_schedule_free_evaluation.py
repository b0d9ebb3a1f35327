"""Averaged weights of Schedule-Free optimizers in `fit`, `evaluate`, `predict` and files."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core.training_loop import inner_optimizer
from keras_lrsched.callbacks.schedule_free_evaluation import ScheduleFreeEvaluation
from keras_lrsched.optimizers import ScheduleFreeAdamW, ScheduleFreeRAdam, ScheduleFreeSGD
from tests.contract.backends import JIT_WAYS
from tests.nightly import nightly, some

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(24, 3)).astype("float32"), RANDOM.normal(size=(24, 1)).astype("float32")
DATA = {"x": X, "y": Y, "batch_size": 4, "shuffle": False, "verbose": 0}
METHODS = [
    lambda **options: ScheduleFreeSGD(0.3, **options),
    lambda **options: ScheduleFreeAdamW(0.1, warmup_steps=3, **options),
    lambda **options: ScheduleFreeRAdam(0.1, beta_2=0.9, **options),
]


def network(optimizer, jit=False, policy="float32", batch_norm=False):
    keras.utils.set_random_seed(0)
    middle = [keras.layers.BatchNormalization()] if batch_norm else []
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), *middle, keras.layers.Dense(1)])
    model.dtype_policy = keras.DTypePolicy(policy)
    model.compile(optimizer, "mse", jit_compile=jit)
    model.optimizer.build(model.trainable_variables)  # within the first step, TensorFlow would trace the step twice
    return model


def weights(model):
    return np.concatenate([np.array(ops.convert_to_numpy(v)).ravel() for v in model.trainable_variables])


def sequences(model):
    """y and x, from whichever the model has."""
    optimizer = inner_optimizer(model.optimizer)
    gap = np.concatenate([np.array(ops.convert_to_numpy(state["gap"])).ravel() for state in optimizer._states])
    lead = (1 - 1 / optimizer.beta_of(0)) * gap
    now = weights(model)
    return (now - lead, now) if optimizer.is_averaged else (now, now + lead)


class Seen(keras.callbacks.Callback):
    """The weights at the events of a `fit`, and what they should be."""

    def __init__(self):
        super().__init__()
        self.epochs, self.tests, self.trained = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.trained.append(weights(self.model))

    def on_test_begin(self, logs=None):
        self.tests.append((weights(self.model), self.trained[-1]))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((weights(self.model), sequences(self.model)[1], logs))


def loss_with(model, values):
    """Of the model with these weights."""
    shapes = [v.shape for v in model.trainable_variables]
    parts = np.split(values, np.cumsum([np.prod(shape) for shape in shapes])[:-1])
    w, b, v, c = (part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
    return np.mean((np.tanh(X @ w + b) @ v + c - Y) ** 2)


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("method", some(METHODS))
def test_fit_validates_and_ends_with_the_average(method, jit):
    model, seen = network(method(), jit), Seen()
    history = model.fit(**DATA, epochs=3, validation_data=(X, Y), callbacks=[ScheduleFreeEvaluation(), seen]).history
    for (in_test, before), (at_end, average, _), loss in zip(seen.tests, seen.epochs, history["val_loss"], strict=True):
        assert np.all(in_test != before)
        np.testing.assert_allclose(at_end, average, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(in_test, average, rtol=1e-5, atol=1e-6)
        assert loss == pytest.approx(loss_with(model, average), rel=1e-4)
    assert model.optimizer.is_averaged
    np.testing.assert_array_equal(weights(model), seen.epochs[-1][0])
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(history["val_loss"][-1], rel=1e-5)


@pytest.mark.parametrize("method", some(METHODS, chosen=lambda method: method is METHODS[1]))
def test_training_is_as_if_nothing_had_been_evaluated(method):
    watched, alone = Seen(), Seen()
    model, other = network(method()), network(method())
    model.fit(**DATA, epochs=3, validation_data=(X, Y), callbacks=[ScheduleFreeEvaluation(), watched])
    other.fit(**DATA, epochs=3, callbacks=[alone])
    np.testing.assert_allclose(watched.trained, alone.trained, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights(model), weights(other), rtol=1e-4, atol=1e-5)  # `fit` alone ends with x, too


def test_training_weights_can_be_kept():
    model, seen = network(METHODS[0]()), Seen()
    model.fit(**DATA, callbacks=[ScheduleFreeEvaluation(keep_average=False), seen])
    assert not model.optimizer.is_averaged
    np.testing.assert_allclose(weights(model), seen.trained[-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("call", some(["evaluate", "predict"]))
def test_outside_of_fit(call):
    """In a loop of one's own, between updates; and after `fit`, where the average stays."""
    model, callback = network(METHODS[1]()), ScheduleFreeEvaluation()
    for i in range(4):
        model.train_on_batch(X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4])
    y, x = sequences(model)
    results = []
    for _ in range(2):
        results.append(
            np.ravel(getattr(model, call)(X, *([Y] if call == "evaluate" else []), verbose=0, callbacks=[callback]))
        )
        np.testing.assert_allclose(weights(model), y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(*results, rtol=1e-5)
    model.optimizer.use_average()
    np.testing.assert_allclose(weights(model), x, rtol=1e-5, atol=1e-6)
    again = getattr(model, call)(X, *([Y] if call == "evaluate" else []), verbose=0, callbacks=[callback])
    np.testing.assert_allclose(np.ravel(again), results[0], rtol=1e-5)
    assert model.optimizer.is_averaged


def test_file_has_the_average_and_training_goes_on_from_it(tmp_path):
    path = str(tmp_path / "{epoch}.keras")
    model, whole = network(METHODS[1]()), network(METHODS[1]())
    model.fit(**DATA, epochs=2, callbacks=[ScheduleFreeEvaluation(), keras.callbacks.ModelCheckpoint(path)])
    average = weights(model)
    loaded = keras.saving.load_model(path.format(epoch=2))
    np.testing.assert_array_equal(weights(loaded), average)
    assert loaded.optimizer.is_averaged
    loaded.fit(**DATA, epochs=1, callbacks=[ScheduleFreeEvaluation()])
    whole.fit(**DATA, epochs=3, callbacks=[ScheduleFreeEvaluation()])
    np.testing.assert_allclose(weights(loaded), weights(whole), rtol=1e-4, atol=1e-5)


def test_batch_norm_statistics_are_those_of_the_average():
    batches = [X[:12], X[12:]]
    model, callback = network(METHODS[0](), batch_norm=True), ScheduleFreeEvaluation(batch_norm_data=batches)
    layer = model.layers[1]
    for _ in range(2):
        model.train_on_batch(X, Y)
    of_training = np.array(ops.convert_to_numpy(layer.moving_mean))
    model.evaluate(X, Y, verbose=0, callbacks=[callback])
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.moving_mean), of_training)
    model.fit(**DATA, epochs=2, validation_data=(X, Y), callbacks=[callback])
    assert model.optimizer.is_averaged
    inputs = ops.convert_to_numpy(model.layers[0](X))
    np.testing.assert_allclose(ops.convert_to_numpy(layer.moving_mean), inputs.mean(0), rtol=1e-4, atol=1e-5)


def test_batch_norm_statistics_are_computed_once_for_the_same_weights(monkeypatch):
    calls = []
    module = "keras_lrsched.callbacks.schedule_free_evaluation.recompute_batch_norm"
    monkeypatch.setattr(module, lambda model, batches: calls.append(len(batches)))
    model = network(METHODS[0](), batch_norm=True)
    model.fit(**DATA, epochs=3, validation_data=(X, Y), callbacks=[ScheduleFreeEvaluation(batch_norm_data=[X])])
    assert calls == [1, 1, 1]


def test_next_fit_trains_with_the_statistics_of_the_training():
    model, whole = (network(METHODS[0](), batch_norm=True) for _ in range(2))
    callback = ScheduleFreeEvaluation(batch_norm_data=[X])
    for _ in range(2):
        model.fit(**DATA, callbacks=[callback])
    whole.fit(**DATA, epochs=2)
    model.optimizer.use_training_weights()
    callback.set_model(model)
    callback.on_train_begin()
    statistics = [np.array(ops.convert_to_numpy(each.layers[1].moving_variance)) for each in (model, whole)]
    np.testing.assert_allclose(*statistics, rtol=1e-4)


@nightly
def test_statistics_of_another_model_are_not_used():
    callback = ScheduleFreeEvaluation(batch_norm_data=[X])
    for seed in range(2):
        model = network(METHODS[0](), batch_norm=True)
        model.layers[0].kernel.assign(np.full((3, 4), seed - 0.5))
        model.fit(**DATA, callbacks=[callback])
        inputs = ops.convert_to_numpy(model.layers[0](X))
        np.testing.assert_allclose(ops.convert_to_numpy(model.layers[1].moving_mean), inputs.mean(0), rtol=1e-4, atol=1e-5)


FIRST_EPOCH = {"monitor": "loss", "mode": "max", "patience": 9, "restore_best_weights": True}
"""The loss falls, so that the first epoch counts as the best."""


@pytest.mark.parametrize("first", some([True, False]))
def test_early_stopping_restores_the_average_of_the_best_epoch(first):
    pair, seen = [ScheduleFreeEvaluation(), keras.callbacks.EarlyStopping(**FIRST_EPOCH)], Seen()
    model = network(METHODS[1]())
    model.fit(**DATA, epochs=3, callbacks=[*(pair if first else pair[::-1]), seen])
    np.testing.assert_allclose(weights(model), seen.epochs[0][1], rtol=1e-5, atol=1e-6)
    assert np.abs(weights(model) - seen.epochs[2][1]).max() > 1e-2
    assert model.optimizer.is_averaged


def test_early_stopping_without_the_average_is_refused():
    model = network(METHODS[1]())
    with pytest.raises(ValueError, match=r"Add the callback ScheduleFreeEvaluation. Received: EarlyStopping"):
        model.fit(**DATA, epochs=3, callbacks=[keras.callbacks.EarlyStopping(**FIRST_EPOCH)])
    if keras.backend.backend() != "jax":  # there, Keras takes all state out of a model before its first step
        assert int(ops.convert_to_numpy(model.optimizer.iterations)) == 0
    with pytest.raises(ValueError, match=r"Received: ScheduleFreeEvaluation\(keep_average=False\) beside EarlyStopping"):
        network(METHODS[1]()).fit(
            **DATA, callbacks=[ScheduleFreeEvaluation(keep_average=False), keras.callbacks.EarlyStopping(**FIRST_EPOCH)]
        )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others run the Python code of each step")
def test_early_stopping_with_a_step_compiled_before():
    model, seen = network(METHODS[1]()), Seen()
    model.fit(**DATA)
    with pytest.warns(UserWarning, match="the model has weights of the training. Add the callback ScheduleFreeEvaluation"):
        model.fit(**DATA, epochs=2, callbacks=[seen, keras.callbacks.EarlyStopping(**FIRST_EPOCH)])
    np.testing.assert_array_equal(weights(model), seen.trained[5])
    assert not model.optimizer.is_averaged


def test_a_checkpoint_without_the_callback_has_all_three(tmp_path):
    model, seen = network(METHODS[1]()), Seen()
    path = str(tmp_path / "{epoch}.weights.h5")
    model.fit(**DATA, epochs=3, callbacks=[seen, keras.callbacks.ModelCheckpoint(path, save_weights_only=True)])
    model.load_weights(path.format(epoch=1))
    np.testing.assert_array_equal(weights(model), seen.trained[5])
    assert not model.optimizer.is_averaged
    model.optimizer.use_average()
    np.testing.assert_allclose(weights(model), seen.epochs[0][1], rtol=1e-5, atol=1e-6)


@nightly
def test_loss_scaling():
    model = network(METHODS[1](), policy="mixed_float16")
    model.fit(**DATA, epochs=2, validation_data=(X, Y), callbacks=[ScheduleFreeEvaluation()])
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert model.optimizer.inner_optimizer.is_averaged


def test_other_optimizers_are_refused():
    model = network(keras.optimizers.Adam())
    with pytest.raises(ValueError, match=r"ScheduleFreeEvaluation needs ScheduleFreeSGD.*Received: optimizer=<.*Adam"):
        model.fit(**DATA, callbacks=[ScheduleFreeEvaluation()])


def test_model_without_batch_norm_is_refused():
    with pytest.raises(
        ValueError, match=r"`batch_norm_data` is given, but there is no BatchNorm. Received: model='sequential"
    ):
        network(METHODS[0]()).fit(**DATA, callbacks=[ScheduleFreeEvaluation(batch_norm_data=[X])])

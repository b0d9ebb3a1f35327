"""Averages of the weights in `fit`, `evaluate`, `predict` and files, against averages taken by hand."""

import copy

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import TrainingState
from keras_lrsched.callbacks.weight_averaging import WeightAveraging
from keras_lrsched.data import ScheduledBatches
from tests.contract.backends import JIT_WAYS
from tests.nightly import nightly, some

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(24, 3)).astype("float32"), RANDOM.normal(size=(24, 1)).astype("float32")
START = [RANDOM.normal(size=(3, 1)), RANDOM.normal(size=1)]
EPOCHS, STEPS = 3, 6
KINDS = ["ema", "swa", "lawa", "wsm"]


class Raw(keras.callbacks.Callback):
    """The kernel after each update."""

    def __init__(self):
        super().__init__()
        self.kernels = []

    def on_train_batch_end(self, batch, logs=None):
        self.kernels.append(np.array(self.model.trainable_variables[0].numpy()))


def network(jit=False, optimizer=None):
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.set_weights(START)
    model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.5), loss="mse", jit_compile=jit)
    model.optimizer.build(model.trainable_variables)  # within the first step, TensorFlow would trace the step twice
    return model


def fit(model, *callbacks, **options):
    options = {"batch_size": 4, "epochs": EPOCHS, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, Y, callbacks=list(callbacks), **options)


def kernel(model):
    return np.array(model.trainable_variables[0].numpy())


def loss_with(weights):
    return np.mean((X @ weights[0] + weights[1] - Y) ** 2)


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kind": "swa", "every": 1}, lambda w: w.mean(0)),
        ({"kind": "swa", "every": 1, "start": 5}, lambda w: w[4:].mean(0)),
        ({"kind": "swa", "every": 4, "start": 3}, lambda w: w[[2, 6, 10, 14]].mean(0)),
        ({"kind": "swa", "every": 5}, lambda w: w[[4, 9, 14]].mean(0)),
        ({"kind": "swa"}, lambda w: w[[5, 11, 17]].mean(0)),
        ({"kind": "swa", "start": 7}, lambda w: w[[11, 17]].mean(0)),
        ({"kind": "lawa", "every": 2, "num_checkpoints": 3}, lambda w: w[[13, 15, 17]].mean(0)),
        ({"kind": "wsm", "every": 2, "num_checkpoints": 4, "cooldown": "linear"}, lambda w: w[[11, 13, 15, 17]].mean(0)),
        ({"kind": "ema", "every": 9, "ema_momentum": 0.75}, lambda w: 0.75 * w[8] + 0.25 * w[17]),
    ],
)
def test_which_checkpoints(options, expected, jit):
    model, raw = network(jit), Raw()
    fit(model, WeightAveraging(**options), raw)
    np.testing.assert_allclose(kernel(model), expected(np.array(raw.kernels)), rtol=1e-5, atol=1e-7)


def test_is_keras_moving_average():
    """On x^2 / 2 from 1 with learning rate 0.1 and momentum 0.9; the numbers are Keras' own."""
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.layers.Input((1,)), dense])
    model.compile(keras.optimizers.SGD(0.1), loss=lambda y, y_pred: 0.5 * y_pred**2)
    seen = []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(kernel(model).item()))
    averaging = WeightAveraging("ema", every=1, ema_momentum=0.9)
    model.fit(np.ones((1, 1)), np.ones((1, 1)), epochs=5, verbose=0, callbacks=[averaging, look])
    np.testing.assert_allclose(seen, [0.9, 0.891, 0.8748, 0.85293, 0.8266860], rtol=2e-7)


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("kind", some(KINDS))
def test_training_does_not_notice(kind, jit):
    plain, model, raw = network(jit), network(jit), Raw()
    fit(plain)
    fit(model, WeightAveraging(kind, every=1, keep_average=False), raw, validation_data=(X, Y))
    np.testing.assert_array_equal(kernel(model), kernel(plain))
    np.testing.assert_array_equal(raw.kernels[-1], kernel(plain))
    for ours, theirs in zip(model.optimizer.variables, plain.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_validation_and_files_have_the_average(jit, tmp_path):
    model, averaging = network(jit), WeightAveraging("swa", every=1)
    averages = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: averages.append([a.copy() for a in averaging.rule.average()])
    )
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    history = fit(model, averaging, saving, look, validation_data=(X, Y))
    assert history.history["val_loss"] == pytest.approx([loss_with(a) for a in averages], rel=1e-5)
    for epoch, average in enumerate(averages, 1):
        other = network()
        other.load_weights(tmp_path / f"{epoch}.weights.h5")
        np.testing.assert_array_equal(kernel(other), average[0])


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_predict_and_evaluate_put_the_weights_back(jit):
    model, averaging = network(jit), WeightAveraging("ema", every=2, keep_average=False)
    fit(model, averaging)
    last, average = kernel(model), averaging.rule.average()
    assert np.abs(last - average[0]).max() > 1e-3
    predicted = model.predict(X, verbose=0, callbacks=[averaging])
    np.testing.assert_allclose(predicted, X @ average[0] + average[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(kernel(model), last)
    assert model.evaluate(X, Y, verbose=0, callbacks=[averaging]) == pytest.approx(loss_with(average), rel=1e-5)
    np.testing.assert_array_equal(kernel(model), last)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(loss_with(model.get_weights()), rel=1e-5)


def test_average_stays_after_fit_and_before_the_first_checkpoint_there_is_none():
    model, averaging = network(), WeightAveraging("lawa", start=8)
    history = fit(model, averaging, validation_data=(X, Y))
    np.testing.assert_array_equal(kernel(model), averaging.rule.average()[0])
    assert averaging.raw is None
    plain = fit(network(), validation_data=(X, Y))
    assert history.history["val_loss"][0] == plain.history["val_loss"][0]


def test_comes_after_the_optimizers_own_average():
    model = network(optimizer=keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    averaging = WeightAveraging("swa", every=1)
    fit(model, averaging)
    np.testing.assert_array_equal(kernel(model), averaging.rule.average()[0])


def test_early_stopping_keeps_the_best_average():
    model, averaging = network(), WeightAveraging("swa", every=1)
    stopping = keras.callbacks.EarlyStopping(patience=99, restore_best_weights=True, start_from_epoch=0)
    history = fit(model, averaging, stopping, validation_data=(X, Y))
    assert loss_with(model.get_weights()) == pytest.approx(min(history.history["val_loss"]), rel=1e-5)


def with_batch_norm(jit=False):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((3,)), *layers])
    model.compile(keras.optimizers.Adam(0.1), loss="mse", jit_compile=jit)
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_batch_norm_statistics(jit):
    model, averaging = with_batch_norm(jit), WeightAveraging("swa", batch_norm_data=[X[:12], X[12:]])
    fit(model, averaging, validation_data=(X, Y))
    inputs = X @ model.get_weights()[0] + model.get_weights()[1]
    np.testing.assert_allclose(model.layers[1].moving_mean.numpy(), inputs.mean(0), rtol=1e-4, atol=1e-5)
    plain = with_batch_norm(jit)
    fit(plain, validation_data=(X, Y))  # which draws random numbers on PyTorch
    other = with_batch_norm(jit)
    fit(other, WeightAveraging("swa", batch_norm_data=[X], keep_average=False), validation_data=(X, Y))
    for ours, theirs in zip(other.variables, plain.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)


@nightly
@pytest.mark.parametrize("kind", KINDS)
def test_resumed_run(kind, tmp_path):
    def script(path, epochs):
        keras.utils.set_random_seed(1)
        model = with_batch_norm()
        batches = ScheduledBatches(X, Y, batch_size=4, seed=2)
        averaging = WeightAveraging(kind, every=2, batch_norm_data=[X])
        model.fit(batches, epochs=epochs, verbose=0, callbacks=[averaging, TrainingState(path, every=1)])
        return [np.array(variable.numpy()) for variable in model.variables]

    script(tmp_path / "two", 2)
    whole, resumed = script(tmp_path / "one", EPOCHS), script(tmp_path / "two", EPOCHS)
    for first, second in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(first, second)


def test_second_fit_goes_on():
    once, twice = WeightAveraging("swa", every=2, keep_average=False), WeightAveraging("swa", every=2, keep_average=False)
    model = network()
    fit(network(), once, epochs=2)
    fit(model, twice, epochs=1)
    fit(model, twice, epochs=1)
    assert twice.step == 2 * STEPS
    np.testing.assert_array_equal(once.rule.average()[0], twice.rule.average()[0])


@nightly
def test_copy_is_independent():
    averaging = WeightAveraging("wsm", every=1)
    other = copy.deepcopy(averaging)
    fit(network(), averaging)
    assert other.rule.count == 0
    fit(network(), other)
    np.testing.assert_array_equal(other.rule.average()[0], averaging.rule.average()[0])


@nightly
def test_narrow_weights():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, dtype="bfloat16")])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    fit(model, WeightAveraging("swa", every=1), validation_data=(X, Y))
    assert keras.backend.standardize_dtype(model.trainable_variables[0].dtype) == "bfloat16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mean"}, "`kind` must be one of 'ema', 'swa', 'lawa', 'wsm'. Received: kind='mean'"),
        ({"start": -1}, "`start` must be a non-negative integer. Received: start=-1"),
        ({"every": 0}, "`every` must be a positive integer. Received: every=0"),
        ({"every": "batch"}, "`every` must be a positive integer. Received: every='batch'"),
        ({"ema_momentum": 1}, "`ema_momentum` must be a number of at least 0 and below 1. Received: ema_momentum=1"),
        ({"ema_start": "last"}, "`ema_start` must be one of .*Received: ema_start='last'"),
        ({"kind": "lawa", "num_checkpoints": 0}, "`num_checkpoints` must be a positive integer"),
        (
            {"kind": "swa", "num_checkpoints": 3},
            "`num_checkpoints` has no meaning for kind='swa'. Received: num_checkpoints=3",
        ),
        ({"kind": "lawa", "cooldown": "linear"}, "`cooldown` has no meaning for kind='lawa'"),
        ({"kind": "wsm", "cooldown": "steep"}, "Unknown profile.*Received: 'steep'"),
        ({"kind": "wsm", "ema_momentum": 0.5}, "`ema_momentum` has no meaning for kind='wsm'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        WeightAveraging(**options)


def test_no_batch_norm():
    with pytest.raises(ValueError, match=r"`batch_norm_data` is given, but there is no BatchNorm\. Received: model="):
        fit(network(), WeightAveraging(batch_norm_data=[X]))


def test_folds_and_stages():
    averaging, raw = WeightAveraging("swa", every=1), Raw()
    fit(with_batch_norm(), averaging)
    model = network()
    fit(model, averaging, raw)
    np.testing.assert_allclose(kernel(model), np.mean(raw.kernels, 0), rtol=1e-5)
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    raw.kernels = []
    fit(model, averaging, raw)
    np.testing.assert_allclose(kernel(model), np.mean(raw.kernels, 0), rtol=1e-5)


def test_other_weights_or_another_model():
    averaging, model = WeightAveraging("swa"), with_batch_norm()
    fit(model, averaging)
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match="Averages are of weights of the shapes"):
        fit(model, averaging)
    with pytest.raises(ValueError, match=r"weights of another model\. Received: model="):
        network().evaluate(X, Y, verbose=0, callbacks=[averaging])


@pytest.mark.parametrize("kind", some(KINDS))
@pytest.mark.parametrize("first", [True, False])
def test_validation_is_of_the_weights_that_are_saved(kind, first, tmp_path):
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    pair = [WeightAveraging(kind), saving]
    model = network()
    history = fit(model, *(pair if first else pair[::-1]), validation_data=(X, Y))
    saved = []
    for epoch in range(1, EPOCHS + 1):
        model.load_weights(tmp_path / f"{epoch}.weights.h5")
        saved.append(loss_with(model.get_weights()))
    np.testing.assert_allclose(history.history["val_loss"], saved, rtol=1e-5)


def test_an_evaluation_within_an_epoch_takes_nothing_in():
    class Evaluates(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.evaluate(X, Y, verbose=0, callbacks=[averaging])

    averaging, model, raw = WeightAveraging("swa"), network(), Raw()
    fit(model, averaging, raw, Evaluates(), epochs=2)
    np.testing.assert_allclose(kernel(model), np.mean(raw.kernels[STEPS - 1 :: STEPS], 0), rtol=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_takes_in_what_callbacks_leave(first):
    class GoesBack(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.set_weights(START)

    pair = [WeightAveraging("swa", every=1), GoesBack()]
    model = network()
    fit(model, *(pair if first else pair[::-1]))
    np.testing.assert_allclose(kernel(model), START[0], rtol=1e-5)


@pytest.mark.parametrize("data", some([(X, Y), X, [X[:12], X[12:]]]), ids=["xy", "x", "batches"])
def test_batch_norm_data(data):
    model = with_batch_norm()
    fit(model, WeightAveraging("swa", batch_norm_data=data))
    inputs = X @ model.get_weights()[0] + model.get_weights()[1]
    np.testing.assert_allclose(model.layers[1].moving_mean.numpy(), inputs.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("data", [X[:, :2], [], iter([X]), [X[0, 0]]], ids=["shape", "empty", "iterator", "rank"])
def test_batch_norm_data_is_checked_before_training(data):
    model = with_batch_norm()
    with pytest.raises(ValueError, match=r"`batch_norm_data` .*Received: "):
        fit(model, WeightAveraging("swa", batch_norm_data=data))
    assert int(model.optimizer.iterations) == 0

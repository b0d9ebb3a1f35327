"""The values of single batches against NumPy: losses, metrics, several outputs, metrics that are reset on the way."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks._batch_values import BatchValues
from tests.callbacks.own_step import OwnStep
from tests.contract.backends import BACKEND, JIT, JIT_WAYS
from tests.nightly import some

RANDOM = np.random.default_rng(0)
X, Y, WEIGHTS = RANDOM.normal(size=(10, 3)), RANDOM.normal(size=(10, 1)), RANDOM.uniform(0.5, 2, size=10)
PARTS = [slice(0, 4), slice(4, 8), slice(8, 10)]
W = np.array([[1.0], [-0.5], [0.25]])


class Reads(keras.callbacks.Callback):
    def __init__(self, *names, at_batch=None):
        super().__init__()
        self.batch_values = BatchValues(*names)
        self.at_batch = at_batch
        self.values, self.sizes = [], []

    def on_train_begin(self, logs=None):
        self.batch_values.start(self.model)

    def on_epoch_begin(self, epoch, logs=None):
        self.batch_values.rebase()

    def on_train_batch_begin(self, batch, logs=None):
        self.batch_values.before_batch()

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(self.batch_values.read(logs))
        self.sizes.append(self.batch_values.batch_size)
        if self.at_batch:
            self.at_batch(self, batch)

    def column(self, name):
        return [values[name] for values in self.values]


def frozen_model(jit, metrics=("mae",), **options):
    """Its weights stay, so the expected values need no training."""
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([W])
    model.compile(keras.optimizers.SGD(0.0), loss="mse", metrics=list(metrics), jit_compile=jit, **options)
    return model


def fit(model, *callbacks, y=Y, **options):
    options = {"epochs": 2, "batch_size": 4, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, y, callbacks=list(callbacks), **options)


def expected(function, weights=None):
    error = (X @ W - Y)[:, 0]
    values = function(error) * (1 if weights is None else weights)
    return [values[part].mean() for part in PARTS] * 2


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_loss_and_metric(jit):
    reads = Reads("loss", "mae")
    fit(frozen_model(jit), reads, validation_data=(X, Y))
    np.testing.assert_allclose(reads.column("loss"), expected(np.square), rtol=2e-6)
    np.testing.assert_allclose(reads.column("mae"), expected(np.abs), rtol=2e-6)
    assert reads.sizes == [4, 4, 2] * 2


def test_weighted_loss():
    reads = Reads("loss")
    fit(frozen_model(False), reads, sample_weight=WEIGHTS)
    np.testing.assert_allclose(reads.column("loss"), expected(np.square, WEIGHTS), rtol=2e-6)


def test_accuracy_of_each_batch_is_exact():
    labels = (X[:, :1] > 0.3).astype("float32")
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([W])
    model.compile(keras.optimizers.SGD(0.0), loss="mse", metrics=["accuracy"])
    reads = Reads("accuracy")
    fit(model, reads, y=labels)
    right = ((X @ W > 0.5) == labels)[:, 0]
    assert reads.column("accuracy") == [right[part].mean() for part in PARTS] * 2


def two_outputs():
    inputs = keras.Input((3,))
    outputs = {name: keras.layers.Dense(1, name=name, kernel_initializer="ones")(inputs) for name in ("a", "b")}
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.0), loss={"a": "mse", "b": "mae"}, metrics={"a": ["mae"], "b": ["mse"]})
    return model


def test_several_outputs():
    reads = Reads("loss", "a_loss", "b_loss", "a_mae", "b_mse")
    fit(two_outputs(), reads, y={"a": Y, "b": 2 * Y})
    a, b = (X.sum(1, keepdims=True) - Y)[:, 0], (X.sum(1, keepdims=True) - 2 * Y)[:, 0]
    for name, values in {"a_loss": a**2, "a_mae": abs(a), "b_loss": abs(b), "b_mse": b**2, "loss": a**2 + abs(b)}.items():
        np.testing.assert_allclose(reads.column(name), [values[part].mean() for part in PARTS] * 2, rtol=2e-6, err_msg=name)


def test_unknown_metric():
    with pytest.raises(ValueError, match=r"no metric 'acc'. The model has: loss, mae. Received: 'acc'"):
        fit(frozen_model(False), Reads("acc"))
    with pytest.raises(ValueError, match=r"The model has: a_loss, a_mae, b_loss, b_mse, loss. Received: 'mae'"):
        fit(two_outputs(), Reads("mae"), y={"a": Y, "b": Y})


def test_metric_that_is_no_mean():
    model = frozen_model(False, metrics=[keras.metrics.RootMeanSquaredError(name="rmse"), "mae"])
    with pytest.raises(ValueError, match=r"'rmse' is no mean over samples.*have: loss, mae. Received: 'rmse'"):
        fit(model, Reads("rmse"))


def test_value_of_a_train_step_of_ones_own():
    class Model(keras.Sequential):
        def train_step(self, *args):
            step = super().train_step(*args)
            if isinstance(step, tuple):
                return {**step[0], "answer": 42.0 + 0 * step[0]["loss"]}, step[1]
            return {**step, "answer": 42.0 + 0 * step["loss"]}

    model = Model([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", jit_compile=JIT[-1])
    reads = Reads("answer", "loss")
    fit(model, reads)
    assert reads.column("answer") == [42.0] * 6


TARGETS = np.arange(1.0, 11.0, dtype="float32")[:, None]
OF_BATCHES = [float(np.mean(TARGETS[part] ** 2)) for part in PARTS]


class LogsTheBatch(OwnStep):
    def logs_of(self, tracked, other, loss):
        return {"loss": loss, "mean": tracked}


class LogsTheOther(OwnStep):
    def logs_of(self, tracked, other, loss):
        return {"loss": other}


class LogsOneOfItsOwn(OwnStep):
    """The metric is none of `metrics`, so that Keras never resets it."""

    @property
    def metrics(self):
        return []


def fit_own(model, *callbacks, jit=False, **options):
    """Inputs of 0, so that nothing is learned."""
    model.compile("sgd", jit_compile=jit)
    options = {"epochs": 2, "batch_size": 4, "shuffle": False, "verbose": 0, **options}
    model.fit(0 * TARGETS, TARGETS, callbacks=list(callbacks), **options)


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("name", some(["loss", "total_loss"]))
def test_a_mean_in_a_train_step_of_ones_own(name, jit):
    """`batch_size` is not what the `Mean` counts, which is 1 for a scalar loss."""
    reads = Reads("loss")
    fit_own(OwnStep(name_of_tracker=name), reads, jit=jit)
    np.testing.assert_allclose(reads.column("loss"), OF_BATCHES * 2, rtol=2e-6)
    assert reads.sizes == [4, 4, 2] * 2


@pytest.mark.parametrize(("kind", "factor"), [(LogsTheBatch, 1), (LogsTheOther, 2)])
def test_what_a_train_step_of_ones_own_logs(kind, factor):
    reads = Reads("loss")
    fit_own(kind(), reads)
    np.testing.assert_allclose(reads.column("loss"), factor * np.array(OF_BATCHES * 2), rtol=2e-6)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX takes such a metric for a constant")
def test_a_metric_that_is_only_an_attribute():
    reads = Reads("loss")
    fit_own(LogsOneOfItsOwn(), reads)
    np.testing.assert_allclose(reads.column("loss"), OF_BATCHES * 2, rtol=2e-5)


def test_a_value_that_nobody_logs():
    with pytest.raises(ValueError, match=r"no metric 'd_loss'. The model has: loss, mean. Received: 'd_loss'"):
        fit_own(LogsTheBatch(), Reads("d_loss"))


def test_own_logs_of_keras_step():
    class Model(keras.Sequential):
        def __init__(self, layers):
            super().__init__(layers)
            self.mine = keras.metrics.Mean(name="mine")

        @property
        def metrics(self):
            return [*super().metrics, self.mine]

        def compute_metrics(self, x, y, y_pred, sample_weight=None):
            self.mine.update_state(keras.ops.mean(y))
            return {**super().compute_metrics(x, y, y_pred, sample_weight), "yours": self.mine.result()}

    model = Model([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    reads = Reads("yours", "loss")
    model.fit(0 * TARGETS, TARGETS, batch_size=4, shuffle=False, verbose=0, callbacks=[reads])
    np.testing.assert_allclose(reads.column("yours"), [TARGETS[part].mean() for part in PARTS], rtol=2e-6)
    assert reads.sizes == [4, 4, 2]


@pytest.mark.parametrize("own", [True, False])
def test_size_of_structures(own):
    """That of the first array; a size that the compiled step knows ahead is right, too."""

    class Model(OwnStep):
        def call(self, x):
            return self.dense(x["a"])

    inputs = keras.Input((1,), name="a")
    model = Model() if own else keras.Model({"a": inputs}, keras.layers.Dense(1)(inputs))
    model.compile("sgd", None if own else "mse")
    reads = Reads("loss")
    model.fit({"a": 0 * TARGETS}, TARGETS, batch_size=5, verbose=0, callbacks=[reads])
    assert reads.sizes == [5, 5]


def test_the_step_is_left_as_it_was():
    class Counts(OwnStep):
        calls = 0

        def logs_of(self, tracked, other, loss):
            self.calls += 1
            return {"loss": tracked}

    model, calls = Counts(), []
    model.compile("sgd", jit_compile=JIT[0])
    for _ in range(3):
        reads = Reads("loss")
        model.fit(0 * TARGETS, TARGETS, batch_size=4, shuffle=False, verbose=0, callbacks=[reads, Reads("loss")])
        assert reads.sizes == [4, 4, 2]
        calls.append(model.calls)
    if BACKEND == "tensorflow":
        assert calls[0] == calls[2]  # it is traced once
    assert "train_step" not in vars(model)


def test_vector_metrics_do_no_harm():
    labels = np.eye(3, dtype="float32")[np.arange(10) % 3]
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.F1Score()])
    reads = Reads("loss")
    fit(model, reads, y=labels)
    assert all(np.isfinite(reads.column("loss")))


def test_metrics_that_are_reset_within_an_epoch():
    def reset(callback, batch):
        callback.model.reset_metrics()
        callback.batch_values.rebase()

    reads = Reads("loss", "mae", at_batch=reset)
    fit(frozen_model(False), reads)
    np.testing.assert_allclose(reads.column("loss"), expected(np.square), rtol=2e-6)
    np.testing.assert_allclose(reads.column("mae"), expected(np.abs), rtol=2e-6)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX keeps the state inside the step")
def test_state_of_jax_stays_in_the_compiled_step():
    seen = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(model._jax_state_synced))
    model = frozen_model(True)
    fit(model, Reads("loss", "mae"), watch)
    assert seen[1:3] == [False, False]

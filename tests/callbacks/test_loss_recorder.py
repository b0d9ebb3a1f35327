"""The recorded loss against a linear model in NumPy."""

import copy
import pickle

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import LossRecorder, TrainingState
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.laws import LossCurve
from keras_lrsched.schedules import LinearDecay
from tests.contract.backends import BACKEND, JIT_WAYS
from tests.nightly import nightly, some

LINE = LinearDecay(0.05, 12)
RANDOM = np.random.default_rng(0)
X, Y, WEIGHTS = RANDOM.normal(size=(10, 3)), RANDOM.normal(size=(10, 1)), RANDOM.uniform(0.5, 2, size=10)
START = RANDOM.normal(size=(3, 1))


def linear_model(jit=False, **options):
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([START])
    model.compile(keras.optimizers.SGD(LINE), loss="mse", jit_compile=jit, **options)
    return model


def record(model, **options):
    recorder = LossRecorder()
    options = {"batch_size": 4, "epochs": 4, "shuffle": False, "verbose": 0, **options}
    model.fit(X, Y, callbacks=[recorder], **options)
    return recorder


def losses(weights=None, epochs=4):
    """The loss of each batch, of 4, 4 and 2 samples, before its update."""
    w, result = START, []
    for t in range(3 * epochs):
        part = slice(4 * (t % 3), 4 * (t % 3) + 4)
        error = X[part] @ w - Y[part]
        weight = 1.0 if weights is None else weights[part, None]
        result.append(np.mean(weight * error**2))
        w = w - LINE.values([t]) * 2 * X[part].T @ (weight * error) / len(error)
    return result


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_loss_of_each_batch(weights, jit):
    recorder = record(linear_model(jit), sample_weight=weights)
    np.testing.assert_allclose(recorder.loss, losses(weights), rtol=2e-5)
    np.testing.assert_allclose(recorder.learning_rate, LINE.values(12), rtol=1e-6)


def test_agrees_with_train_on_batch():
    model = linear_model()
    parts = [slice(0, 4), slice(4, 8), slice(8, 10)]
    expected = []
    for part in parts:
        model.reset_metrics()
        expected.append(model.train_on_batch(X[part], Y[part]))
    np.testing.assert_allclose(record(linear_model(), epochs=1).loss, expected, rtol=2e-6)


def test_is_not_what_keras_logs():
    logged = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: logged.append(logs["loss"]))
    recorder = LossRecorder()
    linear_model().fit(X[:8], Y[:8], batch_size=4, shuffle=False, verbose=0, callbacks=[watch, recorder])
    assert logged[1] == pytest.approx(np.mean(recorder.loss), rel=1e-5)
    assert abs(logged[1] - recorder.loss[1]) > 1e-2


def test_with_validation_between_the_epochs():
    recorder = record(linear_model(), validation_data=(X, Y))
    np.testing.assert_allclose(recorder.loss, losses(), rtol=2e-5)


def test_learning_rate_without_a_schedule():
    model = linear_model()
    model.compile(keras.optimizers.SGD(0.125), loss="mse")
    assert record(model).learning_rate == [0.125] * 12


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses it itself on PyTorch")
def test_steps_per_execution_is_refused():
    with pytest.raises(ValueError, match="Received: steps_per_execution=2"):
        record(linear_model(steps_per_execution=2))


def test_file_while_and_after_training(tmp_path):
    path = tmp_path / "new" / "run.csv"
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(path.read_text().count("\n") - 1)
    )
    recorder = LossRecorder(path, flush_every=2)
    linear_model().fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[recorder, look])
    assert seen == [0, 2, 2, 3, 5, 5]  # every two updates, and at the end of an epoch
    curve = LossCurve.load(path)
    assert curve.step.tolist() == list(range(6))
    assert curve.loss.tolist() == recorder.loss
    assert curve.rates.tolist() == recorder.learning_rate
    assert curve.batch_size.tolist() == recorder.batch_size == [4, 4, 2, 4, 4, 2]
    assert curve.tokens is None


def fit(model, recorder, **options):
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[recorder], **options)


def test_a_run_goes_on_from_an_earlier_one(tmp_path):
    path = tmp_path / "run.csv"
    model = linear_model()
    fit(model, LossRecorder(path))
    with path.open("a") as file:
        file.write("3,0.12")  # what a killed run may leave
    fit(model, LossRecorder(path))
    curve = LossCurve.load(path)
    np.testing.assert_allclose(curve.loss, losses(epochs=2), rtol=2e-5)
    np.testing.assert_allclose(curve.rates, LINE.values(6), rtol=1e-6)


def test_a_loop_of_fits_is_one_run(tmp_path):
    recorder = LossRecorder(tmp_path / "run.csv")
    model = linear_model()
    for _ in range(3):
        fit(model, recorder)
    np.testing.assert_allclose(recorder.loss, losses(epochs=3), rtol=2e-5)
    assert LossCurve.load(tmp_path / "run.csv").loss.tolist() == recorder.loss
    assert {row[-1] for row in rows(tmp_path / "run.csv")} == {"0"}


@pytest.mark.parametrize("reuse", some([True, False]))
@pytest.mark.parametrize("kind", ["models", "stages"])
def test_each_run_has_its_number(kind, reuse, tmp_path):
    path = tmp_path / "run.csv"
    model, recorder, found = linear_model(), LossRecorder(path), []
    for epochs in (2, 1):
        if kind == "models":
            model = linear_model()
        model.set_weights([START])
        model.compile(keras.optimizers.SGD(LINE), loss="mse")
        recorder = recorder if reuse else LossRecorder(path)
        fit(model, recorder, epochs=epochs)
        found.append(recorder.loss)
    assert list(map(len, found)) == [6, 3]
    with pytest.raises(
        ValueError, match=r"several runs.*`run`: 0 \(steps 0 to 5\), 1 \(steps 0 to 2\). Received: path=.*run=None"
    ):
        LossCurve.load(path)
    for run in (0, 1):
        assert LossCurve.load(path, run=run).loss.tolist() == found[run]


@nightly
def test_copies_for_the_trials_of_a_tuner(tmp_path):
    path, recorder = tmp_path / "run.csv", LossRecorder(tmp_path / "run.csv")
    copies = [copy.deepcopy(recorder) for _ in range(3)]
    for each in copies:
        fit(linear_model(), each)
    assert [int(row[-1]) for row in rows(path)] == np.arange(3).repeat(3).tolist()
    assert LossCurve.load(path, run=2).loss.tolist() == copies[2].loss


@pytest.mark.parametrize("copied", some([copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]))
def test_a_copy_after_a_run_records_a_run_of_its_own(copied, tmp_path):
    recorder = LossRecorder(tmp_path / "run.csv")
    fit(linear_model(), recorder)
    another = copied(recorder)
    assert another.loss == recorder.loss
    fit(linear_model(), another)
    assert [int(row[-1]) for row in rows(tmp_path / "run.csv")] == [0] * 3 + [1] * 3
    assert another.loss == recorder.loss


def test_a_killed_run_goes_on_in_its_rows(tmp_path):
    def run(killed_at=None):
        done = []

        def kill(batch, logs):
            done.append(batch)
            if len(done) == killed_at:
                raise InterruptedError

        recorder = LossRecorder(tmp_path / "run.csv", flush_every=1)
        data = ScheduledBatches(X, Y, batch_size=4, shuffle=False)
        state = TrainingState(tmp_path / "state", every=1)
        model = linear_model()
        killer = keras.callbacks.LambdaCallback(on_train_batch_end=kill)
        model.fit(data, epochs=2, verbose=0, callbacks=[recorder, killer, state])
        return recorder

    fit(linear_model(), LossRecorder(tmp_path / "run.csv"))  # another run
    with pytest.raises(InterruptedError):
        run(killed_at=4)
    recorder = run()
    np.testing.assert_allclose(recorder.loss, losses(epochs=2), rtol=2e-5)
    assert [(int(row[-1]), int(row[0])) for row in rows(tmp_path / "run.csv")] == [
        *((0, step) for step in range(3)),
        *((1, step) for step in range(6)),
    ]
    assert LossCurve.load(tmp_path / "run.csv", run=1).loss.tolist() == recorder.loss


def rows(path):
    return [line.split(",") for line in path.read_text().splitlines()[1:]]


def test_foreign_file_is_refused(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("epoch,loss\n0,1.0\n")
    with pytest.raises(ValueError, match=r"Received: path=.*with the columns epoch, loss"):
        linear_model().fit(X, Y, verbose=0, callbacks=[LossRecorder(path)])
    assert path.read_text() == "epoch,loss\n0,1.0\n"


@pytest.mark.parametrize(("given", "tokens"), [(None, [20, 10]), (7, [28, 14])])
def test_tokens(given, tokens, tmp_path):
    model = keras.Sequential([keras.layers.Input((5,), dtype="int32"), keras.layers.Embedding(3, 2)])
    model.compile("sgd", loss="mse")
    recorder = LossRecorder(tmp_path / "run.csv", tokens_per_example=given)
    model.fit(np.zeros((6, 5), "int32"), np.zeros((6, 5, 2)), batch_size=4, verbose=0, callbacks=[recorder])
    assert LossCurve.load(tmp_path / "run.csv").tokens.tolist() == tokens


@pytest.mark.parametrize("options", [{"flush_every": 0}, {"tokens_per_example": 1.5}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match=r"must be a positive integer\. Received"):
        LossRecorder(**options)

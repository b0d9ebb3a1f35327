"""The recorded norms against the formulas of a linear model, and the two runs that they are for."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import GradientNormRecorder, TrainingState
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.schedules import LinearDecay, RefinedSchedule
from tests.callbacks.linear_regression import STEPS, W, X, Y, fit, gradient, jit, linear_model, sgd
from tests.nightly import nightly

GRADIENTS = [gradient(sgd([0.0] * t)) for t in range(STEPS)]
NORMS = {"l2": [np.sqrt(np.sum(g**2)) for g in GRADIENTS], "l1": [np.sum(np.abs(g)) for g in GRADIENTS]}


@jit
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_norms(norm, jit, tmp_path):
    recorder = GradientNormRecorder(tmp_path / "new" / "norms.csv", norm, flush_every=3)
    fit(linear_model(keras.optimizers.SGD(0.1), jit), recorder)
    np.testing.assert_allclose(recorder.gradient_norm, NORMS[norm], rtol=3e-6)
    assert RefinedSchedule.from_run(recorder.path, norm=norm).gradient_norms == recorder.gradient_norm


@pytest.mark.parametrize("clip", [{"clipnorm": 0.5}, {"global_clipnorm": 0.5}, {"clipvalue": 0.5}])
def test_before_clipping(clip):
    fit(linear_model(keras.optimizers.SGD(0.1, **clip)), recorder := GradientNormRecorder(), epochs=1)
    assert recorder.gradient_norm == pytest.approx(NORMS["l2"][:1], rel=2e-6)


def test_once_an_update_and_only_what_is_applied():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model = linear_model(keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=256.0))
    recorder = GradientNormRecorder()
    model.fit(X, Y, batch_size=1, epochs=STEPS, shuffle=False, verbose=0, callbacks=[recorder])
    np.testing.assert_allclose(recorder.gradient_norm, NORMS["l2"], rtol=3e-6)


def test_a_run_that_goes_on_is_one_run_with_what_it_goes_on_from(tmp_path):
    path = tmp_path / "norms.csv"
    model = linear_model(keras.optimizers.SGD(0.1))
    fit(model, GradientNormRecorder(path), epochs=2)
    with path.open("a") as file:
        file.write("2,123.0,0\n3,456.0,0\n4,7")  # what a run that was killed later may leave
    fit(model, GradientNormRecorder(path), epochs=2)  # goes on from weights that were kept otherwise
    text = path.read_text().splitlines()
    assert [line.split(",")[::2] for line in text[1:]] == [
        ["0", "0"],
        ["1", "0"],
        ["2", "0"],
        ["3", "0"],
        ["2", "1"],
        ["3", "1"],
    ]
    np.testing.assert_allclose(RefinedSchedule.from_run(path).gradient_norms, NORMS["l2"], rtol=3e-6)


def test_each_run_has_its_number(tmp_path):
    recorder = GradientNormRecorder(tmp_path / "norms.csv")
    for _ in range(2):  # two models; each is trained on by a second `fit`
        model = linear_model(keras.optimizers.SGD(0.1))
        fit(model, recorder, epochs=2)
        fit(model, recorder, epochs=2)
        assert len(recorder.gradient_norm) == 4
    with pytest.raises(
        ValueError, match=r"several runs.*: 0 \(steps 0 to 3\), 1 \(steps 0 to 3\). Received: path=.*run=None"
    ):
        RefinedSchedule.from_run(recorder.path)
    assert RefinedSchedule.from_run(recorder.path, run=1).gradient_norms == recorder.gradient_norm


def test_killed_run_goes_on_in_the_file(tmp_path):
    def run(stop_at=None):
        def stop(batch, logs):
            if batch == stop_at:
                raise InterruptedError

        recorder = GradientNormRecorder(tmp_path / "norms.csv", flush_every=1)
        data = ScheduledBatches(np.tile(X, (4, 1)), np.tile(Y, (4, 1)), batch_size=2, shuffle=False)
        end = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
        state = TrainingState(tmp_path / "state", every=2)
        linear_model(keras.optimizers.SGD(0.1)).fit(data, verbose=0, callbacks=[recorder, end, state])
        return recorder

    with pytest.raises(InterruptedError):
        run(stop_at=2)
    np.testing.assert_allclose(run().gradient_norm, NORMS["l2"], rtol=3e-6)
    np.testing.assert_allclose(RefinedSchedule.from_run(tmp_path / "norms.csv").gradient_norms, NORMS["l2"], rtol=3e-6)


@nightly
def test_two_runs(tmp_path):
    """The gradient is large at the start, so that the refined schedule begins with a warmup."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 8))
    y = np.tanh(x @ random.normal(size=(8, 1)))

    def train(schedule, *callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(schedule), loss="mse")
        model.fit(x, y, batch_size=20, epochs=10, verbose=0, callbacks=callbacks)
        return model.evaluate(x, y, verbose=0)

    path = tmp_path / "norms.csv"
    first = train(LinearDecay(0.1, 200), GradientNormRecorder(path))
    refined = RefinedSchedule.from_run(path, peak_learning_rate=0.1)
    assert len(refined.gradient_norms) == 200
    values = refined.values(200)
    assert values[0] < 0.5 * values.max()
    assert values[-1] == 0
    assert train(refined) < 1.5 * first


def test_norms_that_are_not_finite_are_left_out_of_the_file(tmp_path):
    class Back(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.set_weights([W])

    recorder = GradientNormRecorder(tmp_path / "norms.csv")
    targets = np.concatenate([Y, [[np.nan], [0]], Y])
    options = {"batch_size": 2, "shuffle": False, "verbose": 0}
    linear_model(keras.optimizers.SGD(0.1)).fit(np.tile(X, (3, 1)), targets, callbacks=[recorder, Back()], **options)
    np.testing.assert_allclose(recorder.gradient_norm, [NORMS["l2"][0], np.nan, NORMS["l2"][0]], rtol=2e-6)
    assert [line.partition(",")[0] for line in recorder.path.read_text().splitlines()] == ["step", "0", "2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "norms.txt"}, "must be a .csv file. Received: path='norms.txt'"),
        ({"norm": "linf"}, "must be one of 'l2', 'l1'. Received: norm='linf'"),
        ({"flush_every": 0}, "must be a positive integer. Received: flush_every=0"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        GradientNormRecorder(**options)


def test_foreign_file_is_refused(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("epoch,loss\n0,1.0\n")
    with pytest.raises(ValueError, match=r"Received: path=.*with the columns epoch, loss"):
        fit(linear_model(keras.optimizers.SGD(0.1)), GradientNormRecorder(path))
    assert path.read_text() == "epoch,loss\n0,1.0\n"

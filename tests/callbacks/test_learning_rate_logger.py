"""The logged learning rates against those that the updates used."""

import csv
import sys

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import (
    LearningRateLogger,
    LossRecorder,
    ScheduleHyperparameter,
    TrainingState,
    learning_rate_logger,
)
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.schedules import LinearDecay, Tabulated
from tests.contract.backends import BACKEND

LINE = LinearDecay(0.5, 8)
DECAYS = Tabulated([0.5, 0.25, 0.125, 0.0625])


def a_model(optimizer, **options):
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, name="dense")])
    model.compile(optimizer, loss="mse", **options)
    return model


def fit(model, *callbacks, batches=4, epochs=2, **options):
    ones = np.ones((batches, 1))
    options = {"verbose": 0, **options}
    return model.fit(ones, ones, batch_size=1, epochs=epochs, callbacks=list(callbacks), **options).history


def columns(path):
    """The columns of a file, by name."""
    with open(path, newline="") as file:
        header, *lines = csv.reader(file)
    return dict(zip(header, np.array(lines, "float64").T, strict=True))


def test_history_has_the_last_value_of_each_epoch(capsys):
    decay = ScheduleHyperparameter("optimizer.weight_decay", DECAYS)
    # The logger stands first: it must find a callback that begins after it.
    history = fit(a_model(keras.optimizers.SGD(LINE, weight_decay=1.0)), LearningRateLogger(), decay, verbose=2)
    np.testing.assert_allclose(history["learning_rate"], LINE.values([3, 7]))
    np.testing.assert_allclose(history["optimizer.weight_decay"], [0.0625, 0.0625])
    assert "learning_rate: 0.3125" in capsys.readouterr().out


def test_file(tmp_path):
    path = tmp_path / "new" / "log.csv"
    decay = ScheduleHyperparameter("optimizer.weight_decay", DECAYS)
    fit(a_model(keras.optimizers.SGD(LINE, weight_decay=1.0)), decay, LearningRateLogger(path))
    log = columns(path)
    assert list(log) == ["epoch", "step", "learning_rate", "optimizer.weight_decay", "run"]
    np.testing.assert_array_equal(log["run"], 0)
    np.testing.assert_array_equal(log["epoch"], [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(log["step"], range(8))
    np.testing.assert_array_equal(log["optimizer.weight_decay"], DECAYS.values(8))
    np.testing.assert_array_equal(log["learning_rate"], LINE.values(8))


@pytest.mark.parametrize(
    ("start", "scheduled"),
    [(keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5), False), (0.25, False), (9.0, True)],
)
def test_every_kind_of_learning_rate_agrees_with_the_optimizer(start, scheduled, tmp_path):
    def halve(epoch, logs):
        if not isinstance(start, keras.optimizers.schedules.LearningRateSchedule):
            model.optimizer.learning_rate = 0.125

    model = a_model(keras.optimizers.SGD(start))
    recorder, path = LossRecorder(), tmp_path / "log.csv"
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=halve), LearningRateLogger(path), recorder]
    if scheduled:
        callbacks.append(ScheduleHyperparameter("optimizer.learning_rate", LINE))
    fit(model, *callbacks)
    expected = LINE.values(8) if scheduled else recorder.learning_rate
    np.testing.assert_allclose(columns(path)["learning_rate"], expected, rtol=1e-6)


def test_gradient_accumulation(tmp_path):
    model = a_model(keras.optimizers.SGD(LINE, weight_decay=1.0, gradient_accumulation_steps=2))
    fit(model, ScheduleHyperparameter("optimizer.weight_decay", DECAYS), LearningRateLogger(tmp_path / "log.csv"))
    log = columns(tmp_path / "log.csv")
    np.testing.assert_array_equal(log["optimizer.weight_decay"], DECAYS.values(np.arange(8) // 2))
    np.testing.assert_array_equal(log["learning_rate"], LINE.values(8))  # Keras counts batches here


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses steps_per_execution on PyTorch")
@pytest.mark.parametrize("rate", [LINE, 0.25])
def test_steps_per_execution(rate, tmp_path):
    model = a_model(keras.optimizers.SGD(rate), steps_per_execution=3)
    fit(model, LearningRateLogger(tmp_path / "log.csv"))
    log = columns(tmp_path / "log.csv")
    np.testing.assert_array_equal(log["step"], range(8))
    np.testing.assert_array_equal(log["learning_rate"], LINE.values(8) if rate is LINE else [0.25] * 8)


def test_an_epoch_that_does_not_fit_into_memory_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_rate_logger, "FLUSH_EVERY", 3)
    history = fit(a_model(keras.optimizers.SGD(LINE)), LearningRateLogger(tmp_path / "log.csv"))
    np.testing.assert_array_equal(columns(tmp_path / "log.csv")["learning_rate"], LINE.values(8))
    assert history["learning_rate"] == pytest.approx(LINE.values([3, 7]))


def test_wrapped_optimizers(tmp_path):
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(LINE))
    assert fit(a_model(scaled), LearningRateLogger())["learning_rate"] == pytest.approx(LINE.values([3, 7]))
    both = keras.optimizers.OptimizerMap(keras.optimizers.SGD(LINE, name="inner"))
    history = fit(a_model(keras.optimizers.MultiOptimizer(both)), LearningRateLogger())
    assert history["optimizer.optimizers.inner.learning_rate"] == pytest.approx(LINE.values([3, 7]))
    assert "learning_rate" not in history


def test_each_run_has_its_number(tmp_path):
    logger = LearningRateLogger(tmp_path / "log.csv")
    for _ in range(2):  # two models, each in a loop of `fit`
        model = a_model(keras.optimizers.SGD(LINE))
        fit(model, logger, epochs=1)
        fit(model, logger, epochs=1)
    fit(model, LearningRateLogger(tmp_path / "log.csv"), epochs=1)
    log = columns(tmp_path / "log.csv")
    assert log["run"].tolist() == [0] * 8 + [1] * 8 + [2] * 4
    assert log["step"].tolist() == [*range(8), *range(8), *range(8, 12)]
    np.testing.assert_array_equal(log["learning_rate"], LINE.values([*range(8), *range(12)]))


def test_a_killed_run_goes_on_in_its_rows(tmp_path):
    def run(killed_at=None):
        done = []

        def kill(batch, logs):
            done.append(batch)
            if len(done) == killed_at:
                raise InterruptedError

        state = TrainingState(tmp_path / "state", every=1)
        data = ScheduledBatches(np.ones((6, 1)), np.ones((6, 1)), batch_size=1)
        logger = LearningRateLogger(tmp_path / "log.csv")
        model = a_model(keras.optimizers.SGD(LINE))
        killer = keras.callbacks.LambdaCallback(on_train_batch_end=kill)
        model.fit(data, verbose=0, callbacks=[logger, killer, state])

    with pytest.raises(InterruptedError):
        run(killed_at=4)
    assert columns(tmp_path / "log.csv")["step"].tolist() == [0, 1, 2]
    with (tmp_path / "log.csv").open("a") as file:
        file.write("0,3,0.3,0\n0,0,0.5,7\n0,4,0.")  # rows that were not saved; another run; a line that was cut off
    run()
    log = columns(tmp_path / "log.csv")
    assert log["run"].tolist() == [0, 0, 0, 7, 0, 0, 0]
    np.testing.assert_array_equal(log["learning_rate"][[0, 1, 2, 4, 5, 6]], LINE.values(6))


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss\n0,1.5\n")
    with pytest.raises(ValueError, match=r"Received: path=.* with the columns epoch, loss"):
        fit(a_model(keras.optimizers.SGD(LINE)), LearningRateLogger(path))
    assert path.read_text() == "epoch,loss\n0,1.5\n"


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    decay = ScheduleHyperparameter("optimizer.weight_decay", DECAYS)
    fit(a_model(keras.optimizers.SGD(LINE, weight_decay=1.0)), decay, LearningRateLogger(log_dir=tmp_path))
    events = EventAccumulator(str(tmp_path)).Reload()
    for name, schedule in {"learning_rate": LINE, "optimizer.weight_decay": DECAYS}.items():
        series = events.Tensors(name)
        assert [event.step for event in series] == list(range(8))
        values = [tensor_util.make_ndarray(event.tensor_proto).item() for event in series]
        np.testing.assert_allclose(values, schedule.values(8), rtol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras' TensorBoard writes weights and graphs by TensorFlow")
def test_beside_the_tensorboard_of_keras(tmp_path):
    """It logs the rate of the next update as `learning_rate`."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    history = fit(a_model(keras.optimizers.SGD(LINE)), LearningRateLogger(), keras.callbacks.TensorBoard(tmp_path))
    events = EventAccumulator(str(tmp_path / "train")).Reload().Tensors("epoch_learning_rate_used")
    values = [tensor_util.make_ndarray(event.tensor_proto).item() for event in events]
    assert history["learning_rate"] == pytest.approx(values) == LINE.values([3, 7]).tolist()


def test_without_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(ImportError, match=r"keras-lrsched\[compare\]"):
        LearningRateLogger(log_dir="logs")
    LearningRateLogger("log.csv")

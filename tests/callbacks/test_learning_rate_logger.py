"""What the log says against what the updates used."""

import csv
import sys

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import LearningRateLogger, LossRecorder, ScheduleHyperparameter
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


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


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
    header, *lines = rows(path)
    assert header == ["epoch", "step", "optimizer.weight_decay", "learning_rate"]
    values = np.array(lines, "float64").T
    np.testing.assert_array_equal(values[0], [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(values[1], range(8))
    np.testing.assert_array_equal(values[2], DECAYS.values(8))
    np.testing.assert_array_equal(values[3], LINE.values(8))


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
    np.testing.assert_allclose([float(line[-1]) for line in rows(path)[1:]], expected, rtol=1e-6)
    assert rows(path)[0] == ["epoch", "step", "learning_rate"]


def test_learning_rate_that_is_set_at_each_step(tmp_path):
    class Setter(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.5 / (batch + 1)

    fit(a_model(keras.optimizers.SGD(0.1)), Setter(), LearningRateLogger(tmp_path / "log.csv"), epochs=1)
    np.testing.assert_allclose([float(line[2]) for line in rows(tmp_path / "log.csv")[1:]], [0.5, 0.25, 0.5 / 3, 0.125])


def test_gradient_accumulation(tmp_path):
    model = a_model(keras.optimizers.SGD(LINE, weight_decay=1.0, gradient_accumulation_steps=2))
    fit(model, ScheduleHyperparameter("optimizer.weight_decay", DECAYS), LearningRateLogger(tmp_path / "log.csv"))
    lines = np.array(rows(tmp_path / "log.csv")[1:], "float64")
    np.testing.assert_array_equal(lines[:, 2], DECAYS.values(np.arange(8) // 2))
    np.testing.assert_array_equal(lines[:, 3], LINE.values(8))  # Keras counts batches here


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses steps_per_execution on PyTorch")
@pytest.mark.parametrize("rate", [LINE, 0.25])
def test_steps_per_execution(rate, tmp_path):
    model = a_model(keras.optimizers.SGD(rate), steps_per_execution=3)
    fit(model, LearningRateLogger(tmp_path / "log.csv"))
    lines = np.array(rows(tmp_path / "log.csv")[1:], "float64")
    np.testing.assert_array_equal(lines[:, 1], range(8))
    np.testing.assert_array_equal(lines[:, 2], LINE.values(8) if rate is LINE else [0.25] * 8)


def test_wrapped_optimizers(tmp_path):
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(LINE))
    assert fit(a_model(scaled), LearningRateLogger())["learning_rate"] == pytest.approx(LINE.values([3, 7]))
    both = keras.optimizers.OptimizerMap(keras.optimizers.SGD(LINE, name="inner"))
    history = fit(a_model(keras.optimizers.MultiOptimizer(both)), LearningRateLogger())
    assert history["optimizer.optimizers.inner.learning_rate"] == pytest.approx(LINE.values([3, 7]))
    assert "learning_rate" not in history


def test_a_resumed_run_goes_on(tmp_path):
    path = tmp_path / "log.csv"
    model = a_model(keras.optimizers.SGD(LINE))
    fit(model, LearningRateLogger(path), epochs=1)
    model.save(tmp_path / "model.keras")
    fit(keras.models.load_model(tmp_path / "model.keras"), LearningRateLogger(path), initial_epoch=1)
    lines = [line for line in rows(path) if line[0] != "epoch"]
    assert len(lines) == len(rows(path)) - 1
    assert [line[:2] for line in lines] == [[str(step // 4), str(step)] for step in range(8)]
    np.testing.assert_array_equal([float(line[2]) for line in lines], LINE.values(8))


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss\n0,1.5\n")
    with pytest.raises(ValueError, match=r"with the columns \['epoch', 'loss'\]"):
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


def test_without_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(ImportError, match=r"keras-lrsched\[compare\]"):
        LearningRateLogger(log_dir="logs")
    LearningRateLogger("log.csv")

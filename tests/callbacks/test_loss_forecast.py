"""LossForecast on runs whose losses are prescribed: what it forecasts, and what it does."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import LossForecast, loss_forecast
from keras_lrsched.laws import AnnealingLaw, LossCurve, forecast
from keras_lrsched.schedules import LinearDecay
from tests.contract.backends import JIT
from tests.nightly import nightly

STEPS = 400
LOSSES = 2.0 + 3.0 * np.arange(1, STEPS + 1) ** -0.5


class Rates(keras.callbacks.Callback):
    """The learning rate of each step."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(np.asarray(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))))


def train(losses=LOSSES, learning_rate=0.1, epochs=1, callbacks=(), **options):
    """A `fit` in whose step t the metric of the batch is losses[t]."""
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    first = lambda y, y_pred: y[:, 0]  # noqa: E731
    first.__name__ = "first"
    model.compile(keras.optimizers.SGD(learning_rate), loss="mse", metrics=[first], jit_compile=JIT[0])
    forecasts, rates = LossForecast(STEPS, monitor="first", **options), Rates()
    y = np.asarray(losses).reshape(-1, 1)
    histories = [
        model.fit(0 * part, part, batch_size=1, shuffle=False, verbose=0, callbacks=[forecasts, rates, *callbacks])
        for part in np.array_split(y, epochs)
    ]
    return forecasts, rates.rates, histories


def test_the_forecasts_are_those_of_the_curve():
    forecasts, _, histories = train(every=100, epochs=2)
    assert [row[0] for row in forecasts.history] == [100, 200, 300]
    curve = LossCurve(LOSSES[:200], np.full(STEPS, 0.1), np.arange(200))
    assert forecasts.history[1][1:] == pytest.approx(list(forecast(curve)), rel=1e-3)
    low, predicted, high = forecasts.history[1][1:]
    logs = histories[0].history
    assert (logs["loss_forecast_low"], logs["loss_forecast"], logs["loss_forecast_high"]) == ([low], [predicted], [high])


def test_before_the_first_forecast_the_logs_have_no_number():
    _, _, histories = train(LOSSES[:10], every=100)
    assert np.isnan(histories[0].history["loss_forecast"]).all()


def test_a_law_and_the_schedule_of_the_optimizer():
    law = AnnealingLaw(2.0, 3.0, 0.5, 5.0, decay=0.9)
    schedule = LinearDecay(0.1, STEPS)
    losses = 1.1 * law.loss_at(schedule.values(STEPS), np.arange(STEPS))
    forecasts, _, _ = train(losses[:200], learning_rate=schedule, law=law, every=200)
    assert forecasts.history[0][2] == pytest.approx(losses[-8:].mean(), rel=1e-3)


def test_stops_a_run_that_stays_above():
    forecasts, rates, _ = train(every=50, stop_above=1.5)
    assert [row[1] > 1.5 for row in forecasts.history] == [True, True]
    assert len(rates) == 100
    assert len(train(every=50, stop_above=2.5)[1]) == STEPS


def test_begins_the_cooldown_when_nothing_is_to_be_gained():
    flat = np.full(STEPS, 2.0)
    forecasts, rates, _ = train(flat, every=50, cooldown_steps=100, cooldown="linear")
    assert forecasts.cooldown_begin == 100
    assert len(rates) == 200
    assert rates == pytest.approx([0.1] * 100 + [0.1 * (1 - t / 100) for t in range(100)], rel=1e-5)


@nightly
def test_begins_the_cooldown_at_the_latest_where_it_must():
    steep = 10.0 * np.arange(1, STEPS + 1) ** -0.5
    forecasts, rates, _ = train(steep, every=50, cooldown_steps=100)
    assert forecasts.cooldown_begin == 300
    assert len(rates) == STEPS
    assert rates[298:302] == pytest.approx([0.1, 0.1, 0.1, 0.09], rel=1e-5)


@pytest.mark.parametrize(("level", "begin"), [(2.0, 300), (500.0, 100)])
def test_a_law_decides_on_the_cooldown(level, begin):
    """By how much the plateau gains: a lot, or next to nothing."""
    law = AnnealingLaw(level, 3.0, 0.5, 0.05, decay=0.9)
    forecasts, _, _ = train(every=50, cooldown_steps=100, law=law)
    assert forecasts.cooldown_begin == begin


@nightly
def test_a_long_curve_is_merged(monkeypatch):
    monkeypatch.setattr(loss_forecast, "MOST_POINTS", 64)
    forecasts, _, _ = train(every=100)
    assert forecasts.width == 8
    assert len(forecasts.losses) == STEPS // 8
    assert forecasts.losses[0] == pytest.approx(LOSSES[:8].mean(), rel=1e-4)
    assert forecasts.history[-1][2] == pytest.approx(train(every=100)[0].history[-1][2], rel=0.01)


@nightly
def test_losses_that_are_not_finite_are_left_out():
    losses = LOSSES.copy()
    losses[190:200] = np.nan  # all of Keras' means are, until the epoch ends
    forecasts, _, _ = train(losses, epochs=2, every=300)
    assert forecasts.history[0][2] == pytest.approx(2.15, rel=0.02)


@nightly
def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    train(every=100, log_dir=tmp_path)
    curve = LossCurve.read(tmp_path, loss="loss_forecast", learning_rate=0.1, total_steps=STEPS, first=1)
    assert len(curve.loss) == 3


@pytest.mark.parametrize(
    "bad",
    [
        {"total_steps": 0},
        {"law": 3},
        {"every": 0},
        {"begin": 1.0},
        {"level": 1.0},
        {"stop_above": 0.0},
        {"cooldown_steps": 100},
        {"cooldown_steps": 10, "schedule": 0.1},
        {"cooldown": "zigzag"},
        {"min_gain": 2},
    ],
)
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match="Received: "):
        LossForecast(**({"total_steps": 100} | bad))


def test_a_schedule_and_a_cooldown():
    with pytest.raises(ValueError, match="with a float instead of a schedule"):
        train(learning_rate=LinearDecay(0.1, STEPS), cooldown_steps=100)

"""VolSched against the numbers of the official code."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks.volsched import VolSched, volatility_multiplier
from tests.contract.backends import JIT_WAYS
from tests.nightly import some

I = np.arange(60)  # noqa: E741 - the index of the formulas
A = 0.5 + 0.3 * (1 - np.exp(-I / 20)) + 0.05 * np.sin(3 * I)
B = 0.5 + np.where(I < 50, 0.01, 0.1) * np.sin(3 * I)

OFFICIAL = [
    (A, 10, 0.05, 0.992834632064),
    (A, 10, 1, 0.865624702889),
    (A, 20, 0.05, 1.007007216144),
    (A, 20, 1, 1.131586424619),
    (A, 50, 0.05, 1.000412372425),
    (A, 50, 1, 1.008215310974),
    (B, 10, 0.05, 0.970425990456),
    (B, 10, 1, 0.529800594417),
    (B, 10, 5, -0.386685875474),
]


@pytest.mark.parametrize(("series", "every", "sensitivity", "expected"), OFFICIAL)
def test_multipliers_of_the_official_code(series, every, sensitivity, expected):
    assert volatility_multiplier(series, every, sensitivity) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("series", [A[:10], np.ones(30), [0.5] * 20 + [np.nan], [0.0] * 30])
def test_multiplier_is_one_where_it_is_not_defined(series):
    assert volatility_multiplier(series, 10, 0.05) == 1.0


class Rates(keras.callbacks.Callback):
    """The learning rate after each step; the first is what the first step used."""

    def on_train_batch_begin(self, batch, logs=None):
        if not hasattr(self, "rates"):
            self.rates = [float(self.model.optimizer.learning_rate)]

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))


def train(series, epochs=1, jit=False, **options):
    """A `fit` in whose step t the metric of the batch is series[t]."""
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, trainable=False), keras.layers.Dense(1)])
    first = lambda y, y_pred: y[:, 0]  # noqa: E731
    first.__name__ = "first"
    model.compile(keras.optimizers.SGD(0.1), loss="mse", metrics=[first], jit_compile=jit)
    rates = Rates()
    volsched = VolSched(monitor="first", **options)
    y = np.asarray(series).reshape(-1, 1)
    parts = np.array_split(y, epochs)
    for part in parts:
        model.fit(0 * part, part, batch_size=1, shuffle=False, verbose=0, callbacks=[volsched, rates])
    return volsched, rates.rates


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("epochs", some([3, 1]))
def test_trajectory(jit, epochs):
    _, rates = train(A, epochs, jit, total_steps=100, every=10)
    expected = [0.1, 0.09755282581, 0.08995966445, 0.08158491472, 0.06679191584, 0.05334538871, 0.03659663614]
    np.testing.assert_allclose([rates[i] for i in (9, 10, 20, 30, 40, 50, 60)], expected, rtol=2e-6)


def test_trajectory_with_warmup():
    _, rates = train(A[:36], total_steps=100, every=10, warmup_steps=5, warmup_start=0.1)
    expected = [0.01, 0.0325, 0.055, 0.0775, 0.1, 0.1, 0.1, 0.1, 0.09660098801, 0.09030745361, 0.07799962469]
    steps = (0, 1, 2, 3, 4, 5, 6, 14, 15, 25, 35)
    np.testing.assert_allclose([rates[i] for i in steps], expected, rtol=2e-6)


def test_negative_multiplier_is_kept_away():
    options = {"total_steps": 1000, "every": 10, "sensitivity": 5}
    official, rates = train(B, multiplier_range=None, **options)
    assert official.multipliers[-1] == pytest.approx(-0.386685875474, rel=1e-3)
    assert rates[-1] == pytest.approx(1e-4)
    ours, rates = train(B, **options)
    assert ours.multipliers[-1] == 0.5
    assert rates[-1] > 0.01


def test_stays_at_the_end():
    volsched, rates = train(np.tile(A, 2)[:45], total_steps=25, every=10)
    assert rates[30:] == pytest.approx([1e-4] * 16)
    assert len(volsched.multipliers) == 3


def test_state_goes_on():
    whole, _ = train(A, total_steps=100, every=10)
    half, _ = train(A[:35], total_steps=100, every=10)
    other = VolSched(100, every=10, monitor="first")
    other.restore_state(half.state())
    assert other.step == 35
    assert other.metrics == half.metrics
    assert other.multipliers == whole.multipliers[:3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_steps": 0}, "`total_steps` must be a positive integer. Received: total_steps=0"),
        ({"every": 1}, "`every` must be at least 2"),
        ({"sensitivity": 0}, "`sensitivity` must be a positive number"),
        ({"min_learning_rate": -1}, "`min_learning_rate` must be a non-negative number"),
        ({"multiplier_range": (2, 1)}, "`multiplier_range` must be strictly increasing"),
        ({"multiplier_range": (1, 2, 3)}, r"`multiplier_range` must be two numbers. Received: multiplier_range=\(1, 2, 3\)"),
        ({"warmup_steps": 100}, "`warmup_steps` must be less than `total_steps`"),
        ({"warmup_start": 2}, "`warmup_start` must be a number between 0 and 1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        VolSched(**{"total_steps": 100, **options})


def test_unknown_metric():
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", metrics=["mae"])
    with pytest.raises(ValueError, match=r"no metric 'accuracy'\. The model has: .*mae"):
        model.fit(np.ones((2, 1)), np.ones((2, 1)), verbose=0, callbacks=[VolSched(10)])

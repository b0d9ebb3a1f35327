"""All but the processes: workers are called in this one, in the place of Ray's."""

import contextlib

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import AutoLRS, ScheduleHyperparameter
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.schedules import Tabulated
from keras_lrsched.tune import ParallelAutoLRS, parallel_autolrs
from tests.nightly import nightly

X = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
Y = X @ np.array([[1.0], [-2.0]], "float32")
OPTIONS = {"search_steps": 8, "exploitation_steps": 12, "max_exploitation_steps": 24, "candidates": 3}


def make_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dropout(0.1), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
    return model


class Here:
    """A stand-in for `ActorPool`, a worker and `ray`, without processes."""

    def __init__(self, worker):
        self.worker = worker

    def map(self, call, values):
        return [call(self, value) for value in values]

    @property
    def run(self):
        return self

    def remote(self, trial, rate):
        return self.worker.run(trial, rate)

    def put(self, trial):
        return trial


@pytest.fixture
def here(monkeypatch):
    def workers(self):
        names = ("search_steps", "exploitation_steps", "validation_data", "validation_batch_size")
        options = {name: getattr(self, name) for name in names}
        return Here(parallel_autolrs.Worker(self.make_model, keras.backend.backend(), options))

    monkeypatch.setattr(ParallelAutoLRS, "_workers", workers)
    monkeypatch.setattr(parallel_autolrs, "load_ray", lambda: Here(None))


def fit(autolrs, epochs=4):
    model = make_model()
    batches = ScheduledBatches(X, Y, batch_size=4, seed=0)  # 16 an epoch
    model.fit(batches, epochs=epochs, verbose=0, callbacks=[autolrs])
    return model


@nightly
def test_searches_as_autolrs_does(here):
    data = {"validation_data": (X[:8], Y[:8])}
    one = AutoLRS(1e-3, 0.3, search="log_grid", **OPTIONS, **data)
    many = ParallelAutoLRS(make_model, 1e-3, 0.3, search="log_grid", **OPTIONS, **data)
    weights = [fit(autolrs).get_weights()[0] for autolrs in (one, many)]
    assert [stage["step"] for stage in many.stages] == [0, 12, 36, 60]
    assert many.search_steps_done == one.search_steps_done == 3 * (8 + 16 + 16 + 16)
    for ours, theirs in zip(many.stages, one.stages, strict=True):
        np.testing.assert_allclose(ours["tried"], theirs["tried"], rtol=1e-4)
    np.testing.assert_allclose(*weights, rtol=1e-4)


def test_the_schedule_replays(here):
    autolrs = ParallelAutoLRS(make_model, 1e-3, 0.3, search="log_grid", warmup_steps=5, **OPTIONS)
    found = fit(autolrs, epochs=2)
    schedule = autolrs.schedule()
    assert isinstance(schedule, Tabulated)
    assert schedule.total_steps == 32
    np.testing.assert_allclose(schedule.values(5), 0.3 * np.arange(1, 6) / 5)
    replayed = fit(ScheduleHyperparameter("optimizer.learning_rate", schedule), epochs=2)
    np.testing.assert_allclose(replayed.get_weights()[0], found.get_weights()[0], rtol=1e-4)


def test_an_error_in_a_trial_ends_the_workers(here, monkeypatch):
    """After an error, Keras calls no callback."""
    ended = []

    def broken(self, trial, rate):
        raise ValueError("mine")

    monkeypatch.setattr(parallel_autolrs.Worker, "run", broken)
    autolrs = ParallelAutoLRS(make_model, 1e-3, 0.3, search="log_grid", **OPTIONS)
    autolrs._cluster = contextlib.ExitStack()
    autolrs._cluster.callback(ended.append, True)
    with pytest.raises(ValueError, match="mine"):
        fit(autolrs, epochs=1)
    assert ended == [True]


def test_as_many_rates_as_workers():
    pytest.importorskip("sklearn")
    autolrs = ParallelAutoLRS(make_model, 1e-3, 1.0, workers=4, candidates=10)
    first = autolrs.next_rates([])
    assert len(set(first)) == 4
    tried = [[rate, abs(np.log10(rate) + 2)] for rate in first]
    assert len(autolrs.next_rates(tried)) == 4
    assert len(autolrs.next_rates([*tried, *tried])) == 2
    assert all(1e-3 <= rate <= 1.0 for rate in first)


def test_a_grid_is_tried_at_once():
    autolrs = ParallelAutoLRS(make_model, 1e-3, 1.0, workers=2, candidates=4, search="log_grid")
    np.testing.assert_allclose(autolrs.next_rates([]), [1e-3, 1e-2, 1e-1, 1.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"make_model": 3}, "`make_model` must be a function. Received: make_model=3"),
        ({"workers": 0}, "`workers` must be a positive integer. Received: workers=0"),
        ({"validation_data": "x"}, "`validation_data` must be arrays"),
        ({"min_learning_rate": 2.0}, "`min_learning_rate` must be below `max_learning_rate`"),
    ],
)
def test_bad_input(options, message):
    arguments = {"make_model": make_model, "min_learning_rate": 1e-3, "max_learning_rate": 1.0, "search": "log_grid"}
    with pytest.raises(ValueError, match=message):
        ParallelAutoLRS(**{**arguments, **options})


def test_refuses_what_workers_would_not_do(here):
    model = make_model()
    momentum = ScheduleHyperparameter("optimizer.momentum", 0.9)
    autolrs = ParallelAutoLRS(make_model, 1e-3, 1.0, search="log_grid")
    with pytest.raises(ValueError, match="leave ScheduleHyperparameter and what reads gradients out"):
        model.fit(X, Y, verbose=0, callbacks=[momentum, autolrs])
    momentum.on_train_end()


def test_another_backend():
    with pytest.raises(ValueError, match="in the program"):
        parallel_autolrs.Worker(make_model, "other", {})


def test_without_ray(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    autolrs = ParallelAutoLRS(make_model, 1e-3, 1.0, search="log_grid")
    with pytest.raises(ImportError, match=r"keras-lrsched\[ray\]"):
        make_model().fit(X, Y, verbose=0, callbacks=[autolrs])

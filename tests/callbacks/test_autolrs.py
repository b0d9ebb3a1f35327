"""AutoLRS: stages, searches that leave no trace, candidates that diverge; its parts against the official functions."""

import copy
import sys

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks._autolrs import lower_confidence_bound
from keras_lrsched.callbacks.autolrs import AutoLRS
from keras_lrsched.callbacks.gradient_controller import GradientController
from keras_lrsched.callbacks.loss_recorder import LossRecorder
from keras_lrsched.data.scheduled_batches import ScheduledBatches
from tests.contract.backends import JIT_WAYS
from tests.nightly import nightly, some

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 4)).astype("float32")
Y = X @ RANDOM.normal(size=(4, 1)).astype("float32") + 0.1 * RANDOM.normal(size=(60, 1)).astype("float32")


def make_model(jit=False, rate=0.01):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(6, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.1, seed=1),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(rate, momentum=0.5), loss="mse", metrics=["mae"], jit_compile=jit)
    return model


def make_batches(**options):
    return ScheduledBatches(X, Y, **{"batch_size": 16, "seed": 3, **options})


def small(**options):
    options = {"search_steps": 8, "exploitation_steps": 10, "max_exploitation_steps": 20, "candidates": 3, **options}
    return AutoLRS(**{"min_learning_rate": 1e-3, "max_learning_rate": 0.1, "search": "log_grid", **options})


class Rates(keras.callbacks.Callback):
    """The learning rates that the steps of `fit` used, by the optimizer's step number, and the logged loss."""

    def on_train_begin(self, logs=None):
        self.rates, self.counts, self.losses = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))
        self.counts.append(int(self.model.optimizer.iterations))
        self.losses.append(float(logs["loss"]))


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_stages(jit):
    model, autolrs, rates = make_model(jit), small(), Rates()
    history = model.fit(make_batches(), epochs=15, verbose=0, callbacks=[autolrs, rates]).history
    assert [stage["step"] for stage in autolrs.stages] == [0, 10, 30, 50]
    assert [stage["search_steps"] for stage in autolrs.stages] == [24, 48, 48, 48]
    assert history["search_steps"][-1] == autolrs.search_steps_done == 168
    chosen = [stage["learning_rate"] for stage in autolrs.stages]
    np.testing.assert_allclose(rates.rates, np.repeat(chosen, [10, 20, 20, 10]), rtol=1e-6)
    assert rates.counts == list(range(1, 61))  # what was searched is in no counter
    for stage in autolrs.stages:
        np.testing.assert_allclose([rate for rate, _ in stage["tried"]], [1e-3, 1e-2, 1e-1], rtol=1e-9)
        assert stage["learning_rate"] == min(stage["tried"], key=lambda pair: pair[1])[0]
    assert history["loss"][-1] < 0.3 * history["loss"][0]


class Replay(keras.callbacks.Callback):
    """Sets the rates that it is given."""

    def __init__(self, rates):
        super().__init__()
        self.rates = iter(rates)

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = next(self.rates)


@pytest.mark.parametrize("data", some(["scheduled", "arrays"]))
def test_search_leaves_no_trace(data):
    """The run is the one with the rates that were found, given beforehand."""

    def run(control):
        model, watch = make_model(), Rates()
        given = {"x": X, "y": Y, "batch_size": 16, "shuffle": False} if data == "arrays" else {"x": make_batches()}
        history = model.fit(**given, epochs=5, verbose=0, callbacks=[control, watch]).history
        history.pop("search_steps", None)
        return model.get_weights(), history, watch

    weights, history, watch = run(small())
    expected_weights, expected_history, expected_watch = run(Replay(watch.rates))
    for found, expected in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert history == expected_history
    assert watch.losses == expected_watch.losses


class Batches(GradientController):
    """Counts batches within the compiled step."""

    sets_learning_rate = False

    def begin(self):
        super().begin()
        self.count = self.add_variable("count")

    def before_apply(self, gradients, variables):
        self.count.assign_add(1)

    def after_update(self):
        self.counted = int(self.read(self.count))


@pytest.mark.parametrize("first", some([True, False]))
def test_other_callbacks_do_not_see_the_search(first):
    batches, autolrs, recorder = Batches(), small(), LossRecorder()
    others = [batches, recorder]
    make_model().fit(make_batches(), epochs=3, verbose=0, callbacks=[autolrs, *others] if first else [*others, autolrs])
    assert batches.counted == len(recorder.loss) == 12
    assert len(autolrs.stages) == 2
    assert np.isfinite(recorder.loss).all()
    assert recorder.batch_size == [16, 16, 16, 12] * 3


def test_candidates_see_the_batches_that_come_next(monkeypatch):
    seen = []
    model, batches, ahead = make_model(), make_batches(), make_batches()
    begin = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: ahead.restore_state(batches.state()))
    original = keras.Sequential.train_on_batch

    def watched(self, x, *args, **kwargs):
        seen.append(np.array(x))
        return original(self, x, *args, **kwargs)

    monkeypatch.setattr(keras.Sequential, "train_on_batch", watched)
    model.fit(batches, epochs=5, verbose=0, callbacks=[begin, small()])
    expected = [ahead.peek(i)[0] for i in range(26)]
    for candidate in range(3):
        for i in range(8):
            np.testing.assert_array_equal(seen[8 * candidate + i], expected[i])
        for i in range(16):
            np.testing.assert_array_equal(seen[24 + 16 * candidate + i], expected[10 + i])


@nightly
def test_validation_after_the_first_long_stage(monkeypatch):
    seen = []
    model, autolrs = (
        make_model(),
        small(search_steps=32, candidates=2, validation_data=(X[:20], Y[:20]), exploitation_steps=20),
    )
    original = keras.Sequential.evaluate

    def watched(self, x, **kwargs):
        seen.append((autolrs.step, len(x)))
        return original(self, x, **kwargs)

    monkeypatch.setattr(keras.Sequential, "evaluate", watched)
    model.fit(make_batches(), epochs=12, verbose=0, callbacks=[autolrs])
    assert [stage["step"] for stage in autolrs.stages] == [0, 20, 40]
    at = [step for step, size in seen]
    # once for the first loss of all, then for the loss before each search and for 16 of each of the 2 candidates
    assert [at.count(step) for step in (0, 20, 40)] == [1, 33, 33]
    assert {size for _, size in seen} == {20}


def test_validation_loss_that_grew_is_not_extrapolated():
    autolrs = small(search_steps=16, validation_data=(X, Y))
    autolrs.is_validating, autolrs.first_loss = True, 2.0
    falling = list(1.0 + np.exp(-0.2 * np.arange(16)))
    assert autolrs._prospect([2.1, *falling[1:]], 2.0) == falling[-1]
    autolrs.first_loss = 2.2
    assert autolrs._prospect(falling, 2.0) != falling[-1]


@pytest.mark.parametrize("search", some(["bayes", "log_grid"]))
def test_diverging_candidates(search):
    if search == "bayes":
        pytest.importorskip("sklearn")
    model, autolrs = make_model(), small(max_learning_rate=1e20, search=search, candidates=6)
    history = model.fit(make_batches(), epochs=2, verbose=0, callbacks=[autolrs]).history
    for stage in autolrs.stages:
        losses = np.array([loss for _, loss in stage["tried"]])
        assert np.isfinite(losses).all()
        assert losses.max() < 100
        assert stage["learning_rate"] < 1
    assert autolrs.stages[0]["search_steps"] < 48  # ends where the loss is no number
    assert np.isfinite(history["loss"]).all()


@nightly
def test_all_candidates_diverge():
    model, autolrs = make_model(), small(min_learning_rate=1e15, max_learning_rate=1e20)
    model.fit(make_batches(), epochs=1, verbose=0, callbacks=[autolrs])
    assert autolrs.stages[0]["learning_rate"] == pytest.approx(1e15)
    assert len({loss for _, loss in autolrs.stages[0]["tried"]}) == 1


def test_loss_that_is_broken_before():
    with pytest.raises(ValueError, match=r"no number before any rate is tried, at step 0\. Received: nan"):
        make_model().fit(X, np.nan * Y, verbose=0, callbacks=[small()])


def test_warmup():
    model, autolrs, rates = make_model(), small(warmup_steps=5, warmup_learning_rate=0.05), Rates()
    model.fit(make_batches(), epochs=5, verbose=0, callbacks=[autolrs, rates])
    np.testing.assert_allclose(rates.rates[:5], [0.01, 0.02, 0.03, 0.04, 0.05], rtol=1e-6)
    assert [stage["step"] for stage in autolrs.stages] == [5, 15]


@nightly
def test_second_fit_goes_on():
    whole, parts = small(), small()
    make_model().fit(make_batches(), epochs=6, verbose=0, callbacks=[whole])
    model, batches = make_model(), make_batches()
    for _ in range(2):
        model.fit(batches, epochs=3, verbose=0, callbacks=[parts])
    assert parts.state() == whole.state()
    other = copy.deepcopy(small())
    other.restore_state(whole.state())
    assert other.stage_steps == (16, 20)


class Parts(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[20 * i : 20 * i + 20], Y[20 * i : 20 * i + 20]


@pytest.mark.parametrize("data", some([(Parts(),), (X, Y)]))
def test_other_data(data):
    model, autolrs = make_model(), small()
    model.fit(*data, verbose=0, callbacks=[autolrs], class_weight=None)
    assert len(autolrs.stages) > 0
    starts = autolrs.stages[0]["tried"]
    assert starts[0][1] != starts[2][1]


def test_generator_is_refused():
    def generate():
        while True:
            yield X, Y

    with pytest.raises(ValueError, match="reads the data several times"):
        make_model().fit(generate(), steps_per_epoch=2, verbose=0, callbacks=[small()])


def asked(kappa, candidates=10):
    """The rates that are tried where the best is 0.01."""
    tried = []
    for _ in range(candidates):
        rate = lower_confidence_bound(1e-3, 1e-1, tried, kappa, [0, 0])
        tried.append([rate, (np.log10(rate) + 2) ** 2])
    return np.array(tried)[:, 0]


def test_kappa_explores_or_concentrates():
    pytest.importorskip("sklearn")
    wide, narrow = asked(1e6), asked(1.96)
    assert np.diff(np.sort(np.log10(wide))).max() < 0.5  # the range has a length of 2
    assert np.diff(np.sort(np.log10(wide))).min() > 0.05
    assert np.sum(np.abs(np.log10(narrow) + 2) < 0.1) >= 4
    assert np.sum(np.abs(np.log10(wide) + 2) < 0.1) <= 2
    assert all(1e-3 <= rate <= 0.1 * (1 + 1e-12) for rate in (*wide, *narrow))


def test_search_is_repeatable():
    pytest.importorskip("sklearn")
    np.testing.assert_array_equal(asked(1.96, 6), asked(1.96, 6))


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"keras-lrsched\[adaptive\]"):
        small(search="bayes")
    small(search="log_grid")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_learning_rate": 0}, "`min_learning_rate` must be a positive number"),
        ({"min_learning_rate": 1}, "`min_learning_rate` must be below `max_learning_rate`"),
        ({"search_steps": 7}, "`search_steps` must be at least 8, for a fit. Received: search_steps=7"),
        ({"exploitation_steps": 0}, "`exploitation_steps` must be a positive integer"),
        ({"max_exploitation_steps": 1.5}, "`max_exploitation_steps` must be a positive integer"),
        ({"candidates": 0}, "`candidates` must be a positive integer"),
        ({"search": "random"}, "`search` must be one of 'bayes', 'log_grid'. Received: search='random'"),
        ({"kappa": -1}, "`kappa` must be a non-negative number"),
        ({"validation_batch_size": 0}, "`validation_batch_size` must be a positive integer"),
        ({"warmup_steps": -1}, "`warmup_steps` must be a non-negative integer"),
        ({"warmup_learning_rate": 0}, "`warmup_learning_rate` must be a positive number"),
        ({"seed": -1}, "`seed` must be a non-negative integer"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_counts_optimizer_steps():
    """With gradients of two batches accumulated, the run and its searches are those with batches of twice the size."""

    def run(batch_size, accumulated):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.01, gradient_accumulation_steps=accumulated), "mse")
        autolrs, watch = small(), Rates()
        model.fit(make_batches(batch_size=batch_size), epochs=4, verbose=0, callbacks=[autolrs, watch])
        return autolrs, watch.rates

    (whole, rates), (halves, rates_of_halves) = run(20, None), run(10, 2)
    assert [stage["step"] for stage in whole.stages] == [stage["step"] for stage in halves.stages] == [0, 10]
    for one, other in zip(whole.stages, halves.stages, strict=True):
        np.testing.assert_allclose(one["tried"], other["tried"], rtol=1e-3)
    assert rates_of_halves == list(np.repeat(rates, 2))


def test_model_without_input():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(6, "tanh"), keras.layers.Dropout(0.1), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    autolrs = small()
    model.fit(X, Y, batch_size=16, verbose=0, callbacks=[autolrs])
    assert len(autolrs.stages) == 1
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 4


def test_refuses_a_loop_of_ones_own():
    callbacks = keras.callbacks.CallbackList([small()], model=make_model(), epochs=1, steps=4)
    with pytest.raises(ValueError, match=r"AutoLRS trains on the data of `fit`.*Received: no running `fit`"):
        callbacks.on_train_begin()


@nightly
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data")
def test_a_search_for_a_step_that_does_not_come_is_undone():
    """Where Keras does not know the number of batches, `on_train_batch_begin` comes once more at the end of an epoch."""
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((X[:50], Y[:50])).batch(5).filter(lambda x, y: True)
    model, autolrs, watch = make_model(), small(max_exploitation_steps=10), Rates()
    model.fit(data, verbose=0, callbacks=[autolrs, watch])
    assert len(watch.rates) == 10
    assert [stage["step"] for stage in autolrs.stages] == [0]
    assert autolrs.search_steps_done == 24
    assert autolrs.learning_rate == watch.rates[-1]
    model.fit(data, epochs=2, verbose=0, callbacks=[autolrs, watch])
    assert [stage["step"] for stage in autolrs.stages] == [0, 10, 20]


@nightly
def test_monitor():
    with pytest.raises(ValueError, match=r"The model has: .*mae.* Received: 'd_loss'"):
        make_model().fit(make_batches(), verbose=0, callbacks=[small(monitor="d_loss")])
    autolrs = small(monitor="mae", validation_data=(X, Y), max_exploitation_steps=10, candidates=1)
    make_model().fit(make_batches(), epochs=4, verbose=0, callbacks=[autolrs])
    assert autolrs.is_validating
    assert autolrs.first_loss == pytest.approx(make_model().evaluate(X, Y, verbose=0)[1], rel=1e-4)

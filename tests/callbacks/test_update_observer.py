"""The values that recorders store for updates, against those that the updates used.

The loss is minus the output of a layer with one weight and no bias, so each update moves the weight by the learning rate.
"""

import csv
import itertools

import keras
import numpy as np
import pytest

from keras_lrsched import optimizers
from keras_lrsched._core import training_loop
from keras_lrsched.callbacks import HypergradientLearningRate, LearningRateLogger, LossRecorder, ScheduleHyperparameter
from keras_lrsched.callbacks._update_observer import UpdateObserver, optimizers_of
from keras_lrsched.schedules import LinearDecay, PerUpdate
from tests.contract.backends import BACKEND, JIT_WAYS
from tests.nightly import nightly

STEPS = 6
LINE = LinearDecay(0.5, 8)
ONES = np.ones((STEPS, 1), "float32")


class Moves(keras.callbacks.Callback):
    """By how much each batch moves the weight."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_begin(self, logs=None):
        self.weights.append(self.model.get_weights()[0].item())

    def on_train_batch_end(self, batch, logs=None):
        self.weights.append(self.model.get_weights()[0].item())

    @property
    def moves(self):
        return np.diff(self.weights)


class Sets(keras.callbacks.Callback):
    """Sets the learning rate, before or after each batch."""

    def __init__(self, at):
        super().__init__()
        setattr(self, f"on_train_batch_{at}", self.set)

    def set(self, batch, logs=None):
        next(iter(optimizers_of(self.model).values())).learning_rate = 0.25 / (batch + 1)


KINDS = {"keras": keras.optimizers.SGD, "ours": lambda rate, **options: optimizers.SGD(rate, momentum=0.0, **options)}

RATES = {
    "constant": lambda: 0.25,
    "schedule": lambda: LINE,
    "of Keras": lambda: keras.optimizers.schedules.InverseTimeDecay(0.5, 1, 0.5),
    "set before": lambda: 0.5,
    "set after": lambda: 0.5,
    "scheduled": lambda: 0.5,
    "function": lambda: lambda: 0.25,
}

WRAPPERS = {
    "none": lambda inner: inner,
    "Lookahead": lambda inner: optimizers.Lookahead(inner, sync_period=100),
    "LossScaleOptimizer": lambda inner: keras.optimizers.LossScaleOptimizer(inner, initial_scale=256.0),
    "LayerwiseLearningRate": lambda inner: optimizers.LayerwiseLearningRate(inner, {"kernel": 1.0}),
    "both": lambda inner: keras.optimizers.LossScaleOptimizer(optimizers.Lookahead(inner, 100), initial_scale=256.0),
    "MultiOptimizer": lambda inner: keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(inner)),
}


def a_model(optimizer, **options):
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(optimizer, loss=lambda y, y_pred: -y_pred, **options)
    return model


def logged(path, name="learning_rate"):
    with open(path, newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def check(tmp_path, kind, accumulation, rate, wrapper, **compile_options):
    inner = KINDS[kind](RATES[rate](), name="inner", gradient_accumulation_steps=accumulation)
    model = a_model(WRAPPERS[wrapper](inner), **compile_options)
    name = "optimizer.optimizers.inner.learning_rate" if wrapper == "MultiOptimizer" else "optimizer.learning_rate"
    moves, recorder, path = Moves(), LossRecorder(), tmp_path / f"{kind}{accumulation}{rate}{wrapper}.csv"
    setters = {
        "set before": [Sets("begin")],
        "set after": [Sets("end")],
        "scheduled": [ScheduleHyperparameter(name, LINE)],
    }
    callbacks = [*setters.get(rate, []), recorder, LearningRateLogger(path), moves]
    history = model.fit(ONES, ONES, batch_size=1, verbose=0, callbacks=callbacks).history
    every = accumulation or 1
    used = moves.moves[every - 1 :: every]
    assert len(set(used.round(4))) == (1 if rate in ("constant", "function") else len(used))
    np.testing.assert_allclose(recorder.learning_rate[every - 1 :: every], used, rtol=1e-5)
    column = name if wrapper == "MultiOptimizer" else "learning_rate"
    assert logged(path, column) == pytest.approx(recorder.learning_rate)
    assert history[column][-1] == pytest.approx(used[-1], rel=1e-5)
    if wrapper != "MultiOptimizer":
        assert history["learning_rate_used"] == history["learning_rate"]


def combinations():
    """Each rate with each wrapper, around both kinds of optimizers, with and without accumulation in turn."""
    inner = [*itertools.product(KINDS, (None, 2))]
    for (i, rate), (j, wrapper) in itertools.product(enumerate(RATES), enumerate(WRAPPERS)):
        kind, accumulation = inner[(i + j) % len(inner)]
        if rate == "scheduled":  # step by step, it needs to be read at every batch
            accumulation = None
        if (rate, wrapper) != ("function", "MultiOptimizer"):
            marks = () if wrapper in ("none", "both") else nightly
            yield pytest.param(kind, accumulation, rate, wrapper, marks=marks)


@pytest.mark.parametrize(("kind", "accumulation", "rate", "wrapper"), [*combinations()])
def test_step_by_step(kind, accumulation, rate, wrapper, tmp_path):
    check(tmp_path, kind, accumulation, rate, wrapper, run_eagerly=True)


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize(("rate", "wrapper"), [*zip(RATES, itertools.cycle(WRAPPERS), strict=False)])
def test_compiled(rate, wrapper, jit, tmp_path):
    kind = "ours" if rate in ("schedule", "function", "scheduled") else "keras"
    accumulation = None if rate == "scheduled" and BACKEND == "torch" else 2  # as above
    check(tmp_path, kind, accumulation, rate, "none" if rate == "function" else wrapper, jit_compile=jit)


def used_and_recorded(model, *callbacks, data=None, epochs=1, **options):
    moves, recorder = Moves(), LossRecorder()
    data = {"x": ONES, "y": ONES, "batch_size": 1} if data is None else {"x": data}
    history = model.fit(**data, epochs=epochs, verbose=0, callbacks=[*callbacks, recorder, moves], **options).history
    return moves.moves, recorder.learning_rate, history


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("at", ["begin", "end"])
def test_the_place_in_the_list_makes_no_difference(place, at, tmp_path):
    moves, recorder, path = Moves(), LossRecorder(), tmp_path / "log.csv"
    callbacks = [recorder, LearningRateLogger(path)]
    callbacks.insert(place, Sets(at))
    a_model(keras.optimizers.SGD(0.5), run_eagerly=True).fit(
        ONES, ONES, batch_size=1, verbose=0, callbacks=[moves, *callbacks]
    )
    assert recorder.learning_rate == logged(path) == pytest.approx(moves.moves, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_of_updates(kind):
    schedule = PerUpdate(LINE, 2) if kind == "keras" else LINE
    optimizer = KINDS[kind](schedule, gradient_accumulation_steps=2)
    used, recorded, _ = used_and_recorded(a_model(optimizer, run_eagerly=True))
    np.testing.assert_allclose(used[1::2], LINE.values(3), rtol=1e-5)
    np.testing.assert_allclose(recorded, LINE.values(3).repeat(2), rtol=1e-6)


def test_a_rate_that_changes_within_the_step(tmp_path):
    path = tmp_path / "log.csv"
    changes = HypergradientLearningRate(hypergradient_learning_rate=0.1)
    used, recorded, history = used_and_recorded(a_model(keras.optimizers.SGD(0.25)), changes, LearningRateLogger(path))
    assert len(set(used.round(4))) == STEPS
    assert recorded == logged(path) == pytest.approx(used, rel=1e-5)
    assert history["learning_rate_used"] == [recorded[-1]]


def test_a_function_that_changes():
    rate = keras.Variable(0.25)

    class Halves(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            rate.assign(rate * 0.5)

    model = a_model(keras.optimizers.SGD(lambda: rate))
    used, recorded, _ = used_and_recorded(model, Halves())
    assert recorded == pytest.approx(used, rel=1e-5)  # on JAX a compiled step does not see the change
    assert [each.name for each in model.optimizer.variables] == ["iteration"]


BAD = np.array([[1], [np.inf], [1], [np.nan], [1], [1]], "float32")


@pytest.mark.parametrize("how", ["loss scale", "nonfinite"])
def test_steps_that_are_left_out(how, tmp_path):
    if how == "loss scale":
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(LINE), initial_scale=1.0)
    else:
        optimizer = optimizers.SGD(LINE, momentum=0.0, nonfinite="skip")
    moves, recorder, path = Moves(), LossRecorder(), tmp_path / "log.csv"
    model = a_model(optimizer)
    callbacks = [recorder, LearningRateLogger(path), moves]
    model.fit(BAD, ONES, batch_size=1, shuffle=False, verbose=0, callbacks=callbacks)
    assert (moves.moves == 0).tolist() == [False, True, False, True, False, False]
    np.testing.assert_allclose(recorder.learning_rate, LINE.values([0, 1, 1, 2, 2, 3]))
    np.testing.assert_allclose(logged(path), LINE.values(4))
    assert logged(path, "step") == [0, 1, 2, 3]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others fetch a batch before its step")
def test_data_of_unknown_length(tmp_path):
    import tensorflow as tf

    path = tmp_path / "log.csv"
    data = tf.data.Dataset.from_tensor_slices((ONES[:3], ONES[:3])).batch(1).filter(lambda x, y: True)
    model = a_model(keras.optimizers.SGD(LINE))
    used, recorded, _ = used_and_recorded(model, LearningRateLogger(path), data=data, epochs=2)
    np.testing.assert_allclose(used, LINE.values([0, 1, 2, 4, 5, 6]), rtol=1e-5)  # Keras counts the end of the data
    assert recorded == logged(path) == pytest.approx(used, rel=1e-5)
    assert logged(path, "step") == [0, 1, 2, 4, 5, 6]


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses steps_per_execution on PyTorch")
@pytest.mark.parametrize("rate", ["schedule", "set after", "scheduled"])
def test_several_batches_in_an_execution(rate, tmp_path):
    model = a_model(keras.optimizers.SGD(RATES[rate]()), steps_per_execution=4)
    moves, path = Moves(), tmp_path / "log.csv"
    setters = {"set after": [Sets("end")], "scheduled": [ScheduleHyperparameter("optimizer.learning_rate", LINE)]}
    callbacks = [*setters.get(rate, []), LearningRateLogger(path), moves]
    model.fit(ONES, ONES, batch_size=1, verbose=0, callbacks=callbacks)
    rates = np.array(logged(path))
    np.testing.assert_allclose([rates[:4].sum(), rates[4:].sum()], moves.moves, rtol=1e-5)


def test_a_counter_that_is_set_back(tmp_path):
    class Back(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                self.model.optimizer.iterations.assign(2)  # as if the last step had not been

    used, recorded, _ = used_and_recorded(a_model(keras.optimizers.SGD(LINE)), Back())
    np.testing.assert_allclose(recorded, LINE.values([0, 1, 2, 2, 3, 4]))
    np.testing.assert_allclose(used, recorded, rtol=1e-5)


# Several optimizers


class Pair(keras.Model):
    """Two layers, each with its own optimizer, one of which makes two steps in each batch."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros") for _ in "ab")
        self.a.build((None, 1))
        self.b.build((None, 1))
        self.built = True

    def compile(self, a_optimizer, b_optimizer, **options):
        super().compile(**options)
        self.a_optimizer, self.b_optimizers = a_optimizer, [b_optimizer]

    def train_step(self, data):
        import tensorflow as tf

        x, _ = data
        logs = {}
        for name, layer, optimizer in [("a", self.a, self.a_optimizer), *2 * [("b", self.b, self.b_optimizers[0])]]:
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(layer(x))
            optimizer.apply_gradients(zip(tape.gradient(loss, layer.weights), layer.weights, strict=True))
            logs[f"{name}_loss"] = loss
        return logs


only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="a training step of TensorFlow")


@only_tensorflow
def test_several_optimizers(tmp_path):
    model = Pair()
    model.compile(keras.optimizers.SGD(0.25), optimizers.Lookahead(keras.optimizers.SGD(LINE), 100))
    path, recorder = tmp_path / "log.csv", LossRecorder(monitor="b_loss", learning_rate="b_optimizers.0.learning_rate")
    model.fit(ONES[:4], ONES[:4], batch_size=1, verbose=0, callbacks=[LearningRateLogger(path), recorder])
    assert logged(path, "a_optimizer.learning_rate") == [0.25] * 8
    np.testing.assert_allclose(logged(path, "b_optimizers.0.learning_rate"), LINE.values(8))
    np.testing.assert_allclose(recorder.learning_rate, LINE.values(8)[1::2])
    with open(path, newline="") as file:  # `compile` has made an optimizer that nobody uses
        assert {row["learning_rate"] for row in csv.DictReader(file)} == {""}


@only_tensorflow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            r"no 'loss' in the logs .*: name what is .* by `monitor`, one of a_loss, b_loss. Received: monitor='loss'",
        ),
        ({"monitor": "a_loss"}, r"one of optimizer.learning_rate, a_optimizer.learning_rate, b_optimizers.0.learning_rate"),
        ({"monitor": "a_loss", "learning_rate": "c"}, r"Received: learning_rate='c'"),
    ],
)
def test_what_is_recorded_must_be_clear(options, message):
    model = Pair()
    model.compile(keras.optimizers.SGD(0.25), keras.optimizers.SGD(0.25), run_eagerly=True)
    with pytest.raises(ValueError, match=message):
        model.fit(ONES, ONES, verbose=0, callbacks=[LossRecorder(**options)])


@only_tensorflow
def test_logs_without_a_loss_are_refused_before_anything_is_trained():
    model = Pair()
    model.compile(keras.optimizers.SGD(0.25), keras.optimizers.SGD(0.25))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"by `monitor`, one of a_loss, b_loss"):
            model.fit(ONES, ONES, verbose=0, callbacks=[LossRecorder()])
        assert not any(np.any(weight) for weight in model.get_weights())


def test_functions_that_cannot_be_observed():
    model = a_model(keras.optimizers.SGD(lambda: 0.25), steps_per_execution=1 if BACKEND == "torch" else 2)
    if BACKEND != "torch":
        with pytest.raises(ValueError, match=r"give a float or a schedule. Received: steps_per_execution=2"):
            model.fit(ONES, ONES, verbose=0, callbacks=[LearningRateLogger()])
    model = a_model(
        keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD(lambda: 0.25, name="a")))
    )
    with pytest.raises(ValueError, match=r"function as the learning rate of optimizer.optimizers.a"):
        model.fit(ONES, ONES, verbose=0, callbacks=[LearningRateLogger()])


def test_paths_of_optimizers():
    model = a_model(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(name="main")))
    model.teacher = a_model(keras.optimizers.SGD(name="teacher"))
    model.others = {"one": keras.optimizers.SGD(name="one"), "same": model.optimizer}
    model.several = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD(name="two")))
    found = {path: optimizer.name for path, optimizer in optimizers_of(model).items()}
    assert found == {
        "optimizer": "main",
        "teacher.optimizer": "teacher",
        "others.one": "one",
        "several.optimizers.two": "two",
    }


def test_one_observer_for_all():
    class Looks(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.found = [type(it) for it in training_loop.callback_list().callbacks]

    looks = Looks()
    a_model("sgd", run_eagerly=True).fit(ONES, ONES, verbose=0, callbacks=[looks, LossRecorder(), LearningRateLogger()])
    assert looks.found.index(UpdateObserver) == 0
    assert looks.found.count(UpdateObserver) == 1

"""The range test: its rates, what it suggests on curves with a known answer, and that it leaves no trace."""

import copy

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks.autolrs import AutoLRS
from keras_lrsched.callbacks.learning_rate_finder import LearningRateFinder, smoothed
from keras_lrsched.callbacks.snapshot import Snapshot
from keras_lrsched.data.scheduled_batches import ScheduledBatches
from tests.contract.backends import JIT_WAYS
from tests.nightly import nightly, some

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 4)).astype("float32")
Y = X @ RANDOM.normal(size=(4, 1)).astype("float32")


def make_model(jit=False, optimizer=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.1, seed=1),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer or keras.optimizers.SGD(0.02, momentum=0.9), loss="mse", jit_compile=jit)
    return model


def test_rates():
    finder = LearningRateFinder()
    assert [finder.rate(i) for i in (1, 50, 99)] == pytest.approx([1.2022644e-07, 1e-3, 8.3176377], rel=1e-7)
    linear = LearningRateFinder(1.0, 3.0, total_steps=4, kind="linear")
    assert [linear.rate(i) for i in range(4)] == [1.0, 1.5, 2.0, 2.5]


def test_smoothing_is_free_of_bias():
    np.testing.assert_allclose(smoothed([3.0, 3.0, 3.0], 0.98), 3.0)
    np.testing.assert_allclose(smoothed([1.0, 2.0, 4.0], 0.5), [1.0, 5 / 3, 3.0])
    np.testing.assert_allclose(smoothed([1.0, 2.0, 4.0], 0), [1.0, 2.0, 4.0])


def recorded(losses, **options):
    finder = LearningRateFinder(smoothing=0, **options)
    finder.losses = list(losses)
    finder.learning_rates = [finder.rate(i) for i in range(len(losses))]
    return finder


def test_suggestions_on_a_known_curve():
    u = np.arange(100)
    fall = 2 - np.tanh((u - 40) / 8) + 1e-6 * np.exp((u - 50) / 3)  # falls fastest at 40
    finder = recorded(fall)
    assert finder.suggestion() == pytest.approx(finder.rate(40))
    assert finder.suggestion("last_good") == pytest.approx(finder.rate(np.argmin(fall)))
    assert np.argmin(fall) == 70


def test_slope_is_taken_over_the_logarithm_of_the_rate():
    finder = recorded(
        np.zeros(50), kind="linear", min_learning_rate=0.1, max_learning_rate=5.0, total_steps=50, skip_begin=0
    )
    finder.losses = list(3 - np.tanh(np.log(finder.learning_rates) / 0.3))  # falls fastest at 1, over the logarithm
    assert finder.suggestion() == pytest.approx(1.0, abs=0.06)


def test_too_few_steps_for_a_suggestion():
    with pytest.raises(ValueError, match=r"at least 17 steps .*Received: 16 steps"):
        recorded(np.ones(16)).suggestion()
    with pytest.raises(ValueError, match=r"`method` must be one of 'steepest', 'last_good'\. Received: method='valley'"):
        recorded(np.ones(20)).suggestion("valley")


def everything(model):
    return [*map(np.copy, model.get_weights()), *(keras.ops.convert_to_numpy(v) for v in model.optimizer.variables)]


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_leaves_no_trace(jit):
    model = make_model(jit)
    model.fit(X, Y, batch_size=16, verbose=0)
    before, numbers = Snapshot(model).state(), copy.deepcopy(np.random.get_state(legacy=False))
    finder = LearningRateFinder(1e-3, 100.0, total_steps=30)
    model.fit(X, Y, batch_size=16, epochs=50, verbose=0, callbacks=[finder], validation_data=(X, Y))
    after = Snapshot(model).state()
    for kind in before:
        for old, new in zip(before[kind], after[kind], strict=True):
            np.testing.assert_array_equal(new, old)
    np.testing.assert_equal(np.random.get_state(legacy=False), numbers)
    assert 15 < len(finder.losses) <= 30


def test_the_same_again_and_data_are_rewound():
    model = make_model()
    batches = ScheduledBatches(X, Y, batch_size=16, steps_per_epoch=7)
    model.fit(batches, epochs=1, verbose=0)
    place = batches.state()
    finder = LearningRateFinder(1e-4, 0.5, total_steps=20, skip_end=2)
    first = finder.find(model, batches), finder.losses
    assert batches.state() == place
    assert (finder.find(model, batches), finder.losses) == first


def test_losses_are_those_of_batches_at_the_rates():
    finder = LearningRateFinder(1e-3, 0.1, total_steps=6, skip_begin=0, skip_end=0)
    model = make_model(optimizer=keras.optimizers.SGD(1.0))
    start = model.get_weights()
    finder.find(model, X, Y, batch_size=32, shuffle=False)
    np.testing.assert_array_equal(model.get_weights()[0], start[0])
    expected = []
    for i, rate in enumerate(finder.learning_rates):
        model.optimizer.learning_rate = rate
        part = slice(32 * (i % 2), 32 * (i % 2) + 32)
        expected.append(model.train_on_batch(X[part], Y[part]))
    np.testing.assert_allclose(finder.losses, expected, rtol=2e-6)


def test_stops_on_divergence():
    model = make_model(optimizer=keras.optimizers.SGD(0.1))
    finder = LearningRateFinder(1e-2, 1e6, total_steps=100)
    finder.find(model, X, Y, batch_size=64)
    assert len(finder.losses) < 80
    assert np.isfinite(finder.losses).all()
    assert finder.suggestion() < finder.suggestion("last_good") * 1.01 < 100
    assert np.isfinite(model.evaluate(X, Y, verbose=0))


def test_stops_at_a_loss_that_is_no_number():
    model = make_model()
    y = Y.copy()
    y[40] = np.nan
    finder = LearningRateFinder(1e-5, 1e-4, total_steps=40, skip_begin=0, skip_end=0)
    finder.find(model, X, y, batch_size=8, shuffle=False)
    assert len(finder.losses) == len(finder.learning_rates) == 5
    assert np.isfinite(model.predict(X, verbose=0)).all()


def test_fit_that_is_too_short_is_put_back_too():
    model = make_model()
    start = model.get_weights()
    finder = LearningRateFinder(1e-3, 0.1)
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=[finder])
    assert len(finder.losses) == 8
    np.testing.assert_array_equal(model.get_weights()[0], start[0])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.02)


def test_error_within_find_is_put_back_too():
    def fail(batch, logs):
        if batch == 2:
            raise RuntimeError("broken")

    model = make_model()
    start = model.get_weights()
    broken = keras.callbacks.LambdaCallback(on_train_batch_end=fail)
    with pytest.raises(RuntimeError, match="broken"):
        LearningRateFinder().find(model, X, Y, batch_size=16, callbacks=[broken])
    np.testing.assert_array_equal(model.get_weights()[0], start[0])


def test_plot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    finder = recorded(2 - np.tanh((np.arange(100) - 40) / 8))
    ax = finder.plot()
    assert ax.get_xscale() == "log"
    assert [line.get_label() for line in ax.get_lines()][2] == f"steepest: {finder.rate(40):.2g}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_learning_rate": 0}, "`min_learning_rate` must be a positive number. Received: min_learning_rate=0"),
        ({"min_learning_rate": 20}, "`min_learning_rate` must be below `max_learning_rate`"),
        ({"total_steps": 0}, "`total_steps` must be a positive integer"),
        ({"kind": "cosine"}, "`kind` must be one of 'exponential', 'linear'. Received: kind='cosine'"),
        ({"smoothing": 1}, "`smoothing` must be"),
        ({"stop_factor": 0.5}, "`stop_factor` must be a number of at least 1"),
        ({"skip_begin": -1}, "`skip_begin` must be a non-negative integer"),
        ({"skip_end": 1.5}, "`skip_end` must be a non-negative integer"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        LearningRateFinder(**options)


def test_an_argument_of_fit_is_given_once():
    model, finder = make_model(), LearningRateFinder(total_steps=20)
    expected = finder.find(model, X, Y, batch_size=16, shuffle=False)
    assert finder.find(model, X, Y, batch_size=16, fit_options={"shuffle": False}) == expected
    with pytest.raises(ValueError, match="Received twice: batch_size, shuffle"):
        finder.find(model, X, Y, batch_size=16, shuffle=False, fit_options={"batch_size": 8, "shuffle": True})


def test_a_schedule_is_refused():
    model = make_model(optimizer=keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)))
    with pytest.raises(ValueError, match="construct SGD with a float instead of a schedule"):
        LearningRateFinder().find(model, X, Y)


@pytest.mark.parametrize("steps", some([3, None]))
def test_counts_optimizer_steps(steps):
    """A step of the test has one rate, and a loss at weights that the step before has changed."""
    weight = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), weight])
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=steps), "mse")
    finder = LearningRateFinder(1e-3, 1.0, total_steps=10, stop_factor=1e6, skip_begin=0, skip_end=0)
    finder.find(model, np.ones((6, 1)), np.zeros((6, 1)), batch_size=1)
    weights = np.cumprod([1.0, *(1 - 2 * np.array(finder.learning_rates[:-1]))])
    np.testing.assert_allclose(finder.learning_rates, [finder.rate(i) for i in range(10)])
    np.testing.assert_allclose(finder.losses, weights**2, rtol=1e-4, atol=1e-6)


def test_rates_and_losses_are_pairs_at_the_end_of_data_of_unknown_length():
    """Where Keras calls `on_train_batch_begin` once more than `on_train_batch_end` in each epoch."""

    def data():
        for _ in range(9):
            yield np.ones((1, 1)), np.zeros((1, 1))

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    finder = LearningRateFinder(1e-3, 1.0, total_steps=20, stop_factor=1e6, skip_begin=0, skip_end=0)
    model.fit(data(), epochs=1, verbose=0, callbacks=[finder])
    assert len(finder.losses) == len(finder.learning_rates) == 9
    weights = np.cumprod([1.0, *(1 - 2 * np.array(finder.learning_rates[:-1]))])
    np.testing.assert_allclose(finder.losses, weights**2, rtol=1e-4)


@nightly
def test_model_without_input():
    model = keras.Sequential([keras.layers.Dense(4, "tanh"), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    LearningRateFinder(total_steps=30).find(model, X, Y, batch_size=16)
    assert model.built
    assert int(model.optimizer.iterations) == 0
    assert float(model.optimizer.learning_rate) == pytest.approx(0.001)


def test_monitor():
    model = make_model()
    model.compile("sgd", "mse", metrics=["mae"])
    finder = LearningRateFinder(1e-4, 1e-3, total_steps=6, skip_begin=0, skip_end=0, monitor="mae")
    finder.find(model, X, Y, batch_size=32, shuffle=False)
    assert finder.losses[0] != pytest.approx(model.evaluate(X[:32], Y[:32], verbose=0)[0], rel=1e-3)
    with pytest.raises(ValueError, match=r"The model has: .*mae.* Received: 'd_loss'. LearningRateFinder.*`monitor`"):
        LearningRateFinder(monitor="d_loss").find(model, X, Y)


def stateful():
    keras.utils.set_random_seed(0)
    layers = [keras.Input(batch_shape=(4, 3, 2)), keras.layers.GRU(3, stateful=True), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


SEQUENCES = {"x": RANDOM.normal(size=(16, 3, 2)).astype("float32"), "y": RANDOM.normal(size=(16, 1)).astype("float32")}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="`fit` of Keras keeps such states on TensorFlow only")
@pytest.mark.parametrize("kind", some(["finder", "autolrs"]))
def test_states_of_recurrent_layers_are_put_back(kind):
    """They are in no list of variables of the model."""
    model = stateful()
    data = {**SEQUENCES, "batch_size": 4, "shuffle": False, "verbose": 0}
    model.fit(**data)
    if kind == "finder":
        before = np.array(keras.ops.convert_to_numpy(model.layers[0].states[0]))
        LearningRateFinder(1e-5, 0.1, stop_factor=1e6, total_steps=20).find(model, **data)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(model.layers[0].states[0]), before)
        assert np.abs(before).max() > 0
        return
    autolrs = AutoLRS(0.05, 0.1, search_steps=8, exploitation_steps=8, candidates=1, search="log_grid")
    model.fit(**data, callbacks=[autolrs])  # the rate that was found is 0.05
    plain = stateful()
    plain.fit(**data)
    plain.optimizer.learning_rate = 0.05
    plain.fit(**data)
    for one, other in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a step for TensorFlow")
@nightly
def test_optimizers_of_ones_own_are_put_back():
    import tensorflow as tf

    class Pair(keras.Model):
        """One part is trained by `model.optimizer`, one by another."""

        def __init__(self):
            super().__init__()
            self.parts = [keras.layers.Dense(1) for _ in range(2)]
            for part in self.parts:
                part.build((None, 4))
            self.built = True
            self.other_optimizer = keras.optimizers.Adam(0.05)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape(persistent=True) as tape:
                loss = tf.reduce_mean((self.parts[0](x) + self.parts[1](x) - y) ** 2)
            for optimizer, part in zip((self.optimizer, self.other_optimizer), self.parts, strict=True):
                optimizer.apply(tape.gradient(loss, part.trainable_variables), part.trainable_variables)
            return {"loss": loss}

    model = Pair()
    model.compile(keras.optimizers.Adam(0.05))
    model.fit(X, Y, batch_size=16, verbose=0)
    before = [np.array(v) for v in (*model.variables, *model.optimizer.variables, *model.other_optimizer.variables)]
    LearningRateFinder(1e-4, 1.0, total_steps=20).find(model, X, Y, batch_size=16)
    after = [*model.variables, *model.optimizer.variables, *model.other_optimizer.variables]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(np.array(new), old)

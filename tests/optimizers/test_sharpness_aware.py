"""SAM in `fit`: its steps, what the second pass leaves alone, and what it works with."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core import backends
from keras_lrsched.optimizers import AdamW, Lookahead, MoMo, SharpnessAware
from keras_lrsched.schedules import LinearDecay
from tests.contract.backends import BACKEND, JIT, JIT_WAYS
from tests.contract.optimizer_problem import RUNS
from tests.contract.test_optimizers import digits
from tests.nightly import nightly, some

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 3)).astype("float32")
Y = X @ np.array([[1.0], [-2.0], [0.5]], "float32")
every_jit = pytest.mark.parametrize("jit", JIT_WAYS)
EAGER = {"run_eagerly": BACKEND != "jax"}
"""For a few steps, which no graph is worth."""


class Quartic(keras.layers.Layer):
    """f = sum(A w^2 / 2 + w^4 / 4), whatever the input."""

    def build(self, shape):
        start = keras.initializers.Constant(0.5 * np.sin(1 + np.arange(12)))
        self.w = self.add_weight(shape=(12,), initializer=start, name="w")

    def call(self, x):
        curvature = ops.convert_to_tensor(1 + 0.1 * np.arange(12), "float32")
        return 0 * x + ops.sum(curvature * self.w**2 / 2 + self.w**4 / 4)


@every_jit
@pytest.mark.parametrize(("run", "options"), [("sam_sgd", {}), ("sam_sgd_adaptive", {"rho": 2.0, "adaptive": True})])
def test_reference_trajectory(run, options, jit):
    model = keras.Sequential([keras.Input((1,)), Quartic()])
    sam = SharpnessAware(model, **options)
    sam.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss=lambda y, y_pred: y_pred, jit_compile=jit)
    for expected in RUNS[run]["traj"]:
        loss = sam.train_on_batch(np.zeros((2, 1)), np.zeros((2, 1)))
        np.testing.assert_allclose(model.get_weights()[0], expected["W"], rtol=1e-6, atol=2e-7)
    w = np.array(RUNS[run]["traj"][-2]["W"])
    assert loss == pytest.approx(np.sum((1 + 0.1 * np.arange(12)) * w**2 / 2 + w**4 / 4), rel=1e-5)


@every_jit
def test_scheduled_radius(jit):
    """Update t has the radius of the schedule at t - 1."""
    weights = []
    for rho in (LinearDecay(0.4, 3, alpha=0.25), None):
        model = keras.Sequential([keras.Input((1,)), Quartic()])
        sam = SharpnessAware(model, rho=rho or 0.4)
        sam.compile(keras.optimizers.SGD(0.1), loss=lambda y, y_pred: y_pred, jit_compile=jit)
        for _ in range(4):
            sam.train_on_batch(np.zeros((2, 1)), np.zeros((2, 1)))
            weights.append(model.get_weights()[0])
    assert_close(weights[:1], weights[4:5])
    w = 0.5 * np.sin(1 + np.arange(12))
    for t, radius in enumerate((0.4, 0.3, 0.2, 0.1)):
        g = slope(w)
        w = w - 0.1 * slope(w + radius * g / np.linalg.norm(g))
        np.testing.assert_allclose(weights[t], w, rtol=1e-5, atol=1e-6)
    again = SharpnessAware.from_config(SharpnessAware(network(), LinearDecay(0.4, 3)).get_config())
    assert again.rho.get_config() == LinearDecay(0.4, 3).get_config()


def slope(w):
    return (1 + 0.1 * np.arange(12)) * w + w**3


@every_jit
@pytest.mark.parametrize("adaptive", some([False, True]))
def test_friendly(adaptive, jit):
    """The second gradient is taken beside the mean of the first ones, as in the authors' code."""
    model = keras.Sequential([keras.Input((1,)), Quartic()])
    sam = SharpnessAware(model, 0.3, adaptive=adaptive, friendly=True, sigma=0.9, momentum=0.6)
    sam.compile(keras.optimizers.SGD(0.1), loss=lambda y, y_pred: y_pred, jit_compile=jit)
    w, m = 0.5 * np.sin(1 + np.arange(12)), None
    for _ in range(4):
        sam.train_on_batch(np.zeros((2, 1)), np.zeros((2, 1)))
        g = slope(w)
        d, m = (g, g) if m is None else (g - 0.9 * m, 0.6 * m + 0.4 * g)
        step = w**2 * d / np.linalg.norm(w * d) if adaptive else d / np.linalg.norm(d)
        w = w - 0.1 * slope(w + 0.3 * step)
        np.testing.assert_allclose(model.get_weights()[0], w, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="`friendly` needs a model that is built"):
        SharpnessAware(keras.Sequential([keras.layers.Dense(1)]), friendly=True)


def network(*hidden, seed=0, **options):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(4, name="first", **options), *hidden, keras.layers.Dense(1, name="last", **options)]
    return keras.Sequential([keras.Input((3,)), *layers])


def trained(model, optimizer, jit=JIT[0], rho=0.05, epochs=2, wrap=True, **options):
    model = SharpnessAware(model, rho) if wrap else model
    model.compile(optimizer, "mse", jit_compile=jit, **options)
    model.optimizer.build(model.trainable_variables)  # within the first step, TensorFlow would trace it twice
    history = model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0).history
    return model.get_weights(), history


def assert_close(one, other, rtol=1e-4, atol=1e-6):
    for mine, yours in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, yours, rtol=rtol, atol=atol)


@nightly
@every_jit
def test_a_tiny_step_aside_is_an_ordinary_step(jit):
    """With dropout, BatchNorm, regularization: the loss, metrics, statistics and seeds are those of Keras' own step."""
    results = []
    for wrap in (True, False):
        hidden = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=1)]
        model = network(*hidden, kernel_regularizer="l2")
        results.append(trained(model, "sgd", jit, rho=1e-6, wrap=wrap, metrics=["mae"]))
    (mine, history), (yours, expected) = results
    assert_close(mine, yours)
    assert set(history) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4)


@every_jit
def test_second_pass_has_the_same_dropout_and_moves_no_statistics(jit):
    dropout = keras.layers.Dropout(0.5, seed=1)
    norm = keras.layers.BatchNormalization(momentum=0.5)
    model = network(norm, dropout)
    first = keras.Model(model.inputs, model.layers[0].output)
    before = ops.convert_to_numpy(first(X[:16]))
    seed = np.array(ops.convert_to_numpy(dropout.seed_generator.state))
    sam = SharpnessAware(model, rho=1.0)
    sam.compile("sgd", "mse", jit_compile=jit)
    sam.train_on_batch(X[:16], Y[:16])
    mean = ops.convert_to_numpy(norm.moving_mean)
    np.testing.assert_allclose(mean, 0.5 * before.mean(axis=0), rtol=1e-5, atol=1e-6)
    other = keras.random.SeedGenerator(1)
    keras.random.uniform((1,), seed=other)
    assert np.any(ops.convert_to_numpy(dropout.seed_generator.state) != seed)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(dropout.seed_generator.state), ops.convert_to_numpy(other.state)
    )  # once


@every_jit
def test_gradient_is_taken_at_the_other_weights(jit):
    """By hand, for a linear model, with sample weights."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    w, weight = model.get_weights()[0], RANDOM.uniform(0.5, 2, size=32).astype("float32")

    def slope(at):
        return 2 * X.T @ (weight[:, None] * (X @ at - Y)) / 32

    sam = SharpnessAware(model, rho=0.5)
    sam.compile(keras.optimizers.SGD(0.125), "mse", jit_compile=jit)
    sam.fit(X, Y, sample_weight=weight, batch_size=32, verbose=0)
    expected = w - 0.125 * slope(w + 0.5 * slope(w) / np.linalg.norm(slope(w)))
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [{"loss_scale_factor": 1024.0}, "dynamic"])
def test_loss_scaling_is_undone_before_the_step_aside(scale):
    plain, _ = trained(network(), keras.optimizers.SGD(0.05), rho=0.2, **EAGER)
    if scale == "dynamic":
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=1024.0)
    else:
        optimizer = keras.optimizers.SGD(0.05, **scale)
    scaled, _ = trained(network(), optimizer, rho=0.2, **EAGER)
    assert_close(scaled, plain)


def test_infinite_gradients_of_mixed_float16_are_skipped():
    model = network(dtype="mixed_float16")
    model.dtype_policy = keras.DTypePolicy("mixed_float16")
    sam = SharpnessAware(model)
    sam.compile(AdamW(0.01), "mse", jit_compile=JIT[0])
    assert isinstance(sam.optimizer, keras.optimizers.LossScaleOptimizer)
    before = model.get_weights()
    sam.fit(X, Y * np.float32(1e30), verbose=0)
    assert_close(model.get_weights(), before, 0, 0)
    history = sam.fit(X, Y, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]


@pytest.mark.parametrize(
    "optimizer",
    some(
        [
            lambda: AdamW(LinearDecay(0.02, 100), gradient_accumulation_steps=2, clipnorm=1.0, use_ema=True),
            lambda: Lookahead(keras.optimizers.Adam(0.02), sync_period=2),
            lambda: MoMo(0.1),
        ]
    ),
)
def test_optimizers(optimizer):
    _, history = trained(network(), optimizer(), epochs=20)
    assert history["loss"][-1] < 0.7 * history["loss"][0]


def test_ways_to_fit():
    reference, _ = trained(network(), "sgd")
    eager, _ = trained(network(), "sgd", jit=False, run_eagerly=True)
    assert_close(eager, reference)
    if BACKEND != "torch":
        assert_close(trained(network(), "sgd", steps_per_execution=2)[0], reference)


def test_several_inputs_and_outputs():
    one, two = keras.Input((3,), name="one"), keras.Input((3,), name="two")
    outputs = {"sum": keras.layers.Dense(1)(one + two), "product": keras.layers.Dense(1)(one * two)}
    sam = SharpnessAware(keras.Model({"one": one, "two": two}, outputs))
    sam.compile("sgd", {"sum": "mse", "product": "mae"}, metrics={"sum": ["mae"]}, jit_compile=JIT[0])
    history = sam.fit({"one": X, "two": X}, {"sum": Y, "product": Y}, epochs=3, verbose=0).history
    assert {"loss", "sum_loss", "product_loss", "sum_mae"} <= set(history)
    assert history["loss"][-1] < history["loss"][0]


def test_a_model_that_is_not_built_yet():
    sam = SharpnessAware(keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(1)]))
    sam.compile("sgd", "mse", jit_compile=JIT[0])
    sam.fit(X, Y, verbose=0)
    assert len(sam.model.get_weights()) == 4


def test_saved_whole_and_saved_without(tmp_path):
    model = network()
    sam = SharpnessAware(model, rho=0.3, adaptive=True)
    sam.compile(AdamW(0.01), "mse", jit_compile=JIT[0], **EAGER)
    sam.fit(X, Y, shuffle=False, verbose=0)
    sam.save(tmp_path / "sam.keras")
    model.save(tmp_path / "model.keras")
    alone = keras.saving.load_model(tmp_path / "model.keras")
    assert type(alone) is keras.Sequential
    np.testing.assert_allclose(alone.predict(X, verbose=0), sam.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
    again = keras.saving.load_model(tmp_path / "sam.keras")
    assert (again.rho, again.adaptive) == (0.3, True)
    for each in (sam, again):
        each.fit(X, Y, shuffle=False, verbose=0)
    assert int(again.optimizer.iterations) == 2
    assert_close(again.get_weights(), sam.get_weights(), 1e-6, 1e-7)


@nightly
def test_digits():
    x, y = digits()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(32, "relu"), keras.layers.BatchNormalization(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    sam = SharpnessAware(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sam.compile(AdamW(0.01), loss, metrics=["accuracy"], jit_compile=JIT[-1])
    sam.fit(x, y, batch_size=32, epochs=3, verbose=0, validation_data=(x, y))
    assert sam.evaluate(x, y, verbose=0)[1] > 0.9


class OwnStep(keras.Sequential):
    def train_step(self, *args):
        raise NotImplementedError


class OwnLoss(keras.Sequential):
    def compute_loss(self, *args, **kwargs):
        raise NotImplementedError


class OwnFit(keras.Sequential):
    def fit(self, *args, **kwargs):
        raise NotImplementedError


class OwnMetrics(keras.Sequential):
    def compute_metrics(self, *args, **kwargs):
        raise NotImplementedError


OWN = [(OwnStep, "train_step"), (OwnLoss, "compute_loss"), (OwnFit, "fit"), (OwnMetrics, "compute_metrics")]


@pytest.mark.parametrize(("kind", "method"), OWN)
def test_models_with_their_own_step(kind, method):
    with pytest.raises(ValueError, match=f"`model` must not have its own `{method}`. Received: model=<"):
        SharpnessAware(kind([keras.layers.Dense(1)]))


class Task(keras.Model):
    """As the tasks of KerasHub, whose `fit` applies the preprocessor."""

    def __init__(self, preprocessor):
        inputs = keras.Input((2,))
        super().__init__(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))
        self.preprocessor = preprocessor

    def fit(self, x, y, **options):
        return super().fit(x if self.preprocessor is None else self.preprocessor(x), y, **options)


def test_tasks_with_a_preprocessor():
    with pytest.raises(ValueError, match=r"`model` has a preprocessor, .* Received: model=Task, preprocessor=<"):
        SharpnessAware(Task(lambda x: 2 * x))
    x, y, weights = np.ones((4, 2), "float32"), np.zeros((4, 1), "float32"), []
    for task in (Task(None), Task(lambda x: 2 * x)):
        model = SharpnessAware(task) if task.preprocessor is None else task
        model.compile(keras.optimizers.SGD(0.0), "mse")
        weights.append(model.fit(2 * x if task.preprocessor is None else x, y, verbose=0).history["loss"])
    assert weights[0] == weights[1]


@pytest.mark.parametrize("rho", [0, -1, None, "0.05", float("nan")])
def test_bad_rho(rho):
    with pytest.raises(ValueError, match="`rho` must be a positive number"):
        SharpnessAware(network(), rho)


def test_bad_model():
    with pytest.raises(ValueError, match=r"`model` must be a `keras.Model`. Received: model='sgd'"):
        SharpnessAware("sgd")


@pytest.mark.skipif(BACKEND == "jax", reason="there, Keras has no replicas")
def test_several_replicas_are_refused(monkeypatch):
    sam = SharpnessAware(network())
    sam.compile("sgd", "mse", jit_compile=JIT[0])
    monkeypatch.setattr(backends, "replicas", lambda: 2)
    with pytest.raises(ValueError, match=r"SharpnessAware works with one replica. Received: num_replicas_in_sync=2"):
        sam.fit(X, Y, verbose=0)


@pytest.mark.skipif(BACKEND == "jax", reason="there a missing gradient is one of zero, and an optimizer has all variables")
def test_a_weight_without_a_gradient_stays():
    """Neither decay nor momentum moves it, as in Keras' own step: also a layer that is frozen after a first `fit`."""

    class Spare(keras.layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.spare = self.add_weight(shape=(2,), initializer="ones", name="spare")

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), Spare(1)])
    optimizer, sam = AdamW(0.01, weight_decay=0.1), SharpnessAware(model)
    for trainable in (True, False):
        model.layers[0].trainable = trainable
        sam.compile(optimizer, "mse")
        before = model.layers[0].get_weights()[0]
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            sam.fit(X, Y, batch_size=16, verbose=0)
        np.testing.assert_array_equal(model.layers[1].spare, [1.0, 1.0])
        assert np.array_equal(model.layers[0].get_weights()[0], before) is not trainable

"""Hypergradient descent against the numbers of the official code."""

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks.hypergradient_learning_rate import HypergradientLearningRate
from tests.contract.backends import BACKEND, JIT_WAYS
from tests.nightly import nightly, some

P1 = {"h": [1.0], "c": [0.0], "start": [1.0]}
P3 = {"h": [1.0, 10.0, 0.1], "c": [0.5, -0.25, 2.0], "start": [1.0, -1.0, 0.5]}
FREE = {"rule": "additive", "min_learning_rate": None, "max_learning_rate": None}
jit = pytest.mark.parametrize("jit", JIT_WAYS)

SGD_P1 = [0.99, 0.9791199, 0.9674102833, 0.9549243644, 0.9417174329, 0.9278463005]
SGD_P1_RATES = [0.01, 0.01099, 0.0119593287, 0.01290653936, 0.01383034301, 0.01472961193]
SGD_P3 = [
    [0.995, -0.925, 0.5015],
    [0.9648569861, -0.5139589019, 0.5106251124],
    [0.9281497281, -0.3055247426, 0.5223859055],
    [0.8936189018, -0.2607433234, 0.5343030532],
    [0.8617746903, -0.252051854, 0.5461607062],
    [0.8324466876, -0.2503884767, 0.5579465508],
]
SGD_P3_RATES = [0.01, 0.0608949775, 0.07896462587, 0.08065128648, 0.08090112368, 0.08106703828]
ADAM_P1 = [0.9900000032, 0.9799037785, 0.9697143549, 0.9594348919, 0.9490686769, 0.9386191208]
ADAM_P1_RATES = [0.01, 0.01009899997, 0.01019696342, 0.01029386315, 0.01038967242, 0.01048436501]
ADAM_P3 = [
    [0.9900000063, -0.9900000004, 0.5099999789],
    [0.9792023513, -0.9792001241, 0.5208019186],
    [0.9676256958, -0.9676167063, 0.5323916004],
    [0.9552917186, -0.955268338, 0.5447531874],
    [0.9422253215, -0.9421759636, 0.5578691913],
    [0.9284548255, -0.9283629648, 0.5717204535],
]
ADAM_P3_RATES = [0.01, 0.01080389991, 0.0115955103, 0.01237373387, 0.01313747751, 0.01388565812]


class Watch(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.rates, self.weights = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))
        self.weights.append(self.model.get_weights()[0].ravel())


def quadratic(optimizer, problem, jit=False):
    """A model whose loss is 0.5 sum h (w - c)^2, in one batch."""
    n = len(problem["h"])
    model = keras.Sequential([keras.layers.Input((n,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array(problem["start"])[:, None]])
    model.compile(optimizer, loss=lambda y, y_pred: 0.5 * n * y[:, 1:] * (y_pred - y[:, :1]) ** 2, jit_compile=jit)
    return model, np.eye(n), np.stack([problem["c"], problem["h"]], axis=1)


def train(optimizer, problem, steps=6, jit=False, **options):
    model, x, y = quadratic(optimizer, problem, jit)
    watch = Watch()
    callbacks = [HypergradientLearningRate(**options), watch]
    history = model.fit(x, y, batch_size=3, epochs=steps, shuffle=False, verbose=0, callbacks=callbacks)
    assert history.history["learning_rate"] == pytest.approx(watch.rates)
    return watch


def with_gradients(optimizer, gradients, jit=False, **options):
    """The learning rates for given gradients: those of w . x are x."""
    gradients = np.asarray(gradients)
    model = keras.Sequential([keras.layers.Input((gradients.shape[1],)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer, loss=lambda y, y_pred: y_pred, jit_compile=jit)
    watch = Watch()
    callbacks = [HypergradientLearningRate(**options), watch]
    model.fit(gradients, 0 * gradients, batch_size=1, shuffle=False, verbose=0, callbacks=callbacks)
    return watch.rates


@jit
@pytest.mark.parametrize(
    ("problem", "weights", "rates"), [(P3, SGD_P3, SGD_P3_RATES), pytest.param(P1, SGD_P1, SGD_P1_RATES, marks=nightly)]
)
def test_official_numbers_of_sgd(problem, weights, rates, jit):
    watch = train(keras.optimizers.SGD(0.01), problem, jit=jit, hypergradient_learning_rate=1e-3, **FREE)
    np.testing.assert_allclose(watch.rates, rates, rtol=2e-6)
    np.testing.assert_allclose(np.squeeze(watch.weights), weights, rtol=3e-6)


@jit
@pytest.mark.parametrize(
    ("problem", "weights", "rates"), [(P3, ADAM_P3, ADAM_P3_RATES), pytest.param(P1, ADAM_P1, ADAM_P1_RATES, marks=nightly)]
)
@pytest.mark.parametrize("kind", some([keras.optimizers.Adam, keras.optimizers.AdamW]))
def test_official_numbers_of_adam(problem, weights, rates, kind, jit):
    optimizer = kind(0.01, epsilon=1e-8, weight_decay=0.0)
    watch = train(optimizer, problem, jit=jit, hypergradient_learning_rate=1e-4, **FREE)
    np.testing.assert_allclose(watch.rates, rates, rtol=4e-6)  # Keras has the bias correction in float32
    np.testing.assert_allclose(np.squeeze(watch.weights), weights, rtol=3e-6)


def official_with_momentum(problem, nesterov, momentum=0.9, b=1e-3, rate=0.01, steps=6):
    """The official update, whose momentum is multiplied by the newest rate; gives its gradients, rates and weights."""
    h, c, w = (np.array(problem[key]) for key in ("h", "c", "start"))
    v = u = 0 * w
    gradients, rates, weights = [], [], []
    for _ in range(steps):
        g = h * (w - c)
        rate += b * (g @ u)
        v = momentum * v + g
        u = g + momentum * v if nesterov else v
        w = w - rate * u
        gradients.append(g)
        rates.append(rate)
        weights.append(w)
    return gradients, rates, weights


MOMENTUM = [
    (P1, False, 0.7204129305, [0.01, 0.01099, 0.01282184262, 0.01531848433, 0.01826896875, 0.02142940847]),
    (P1, True, 0.640195204, [0.01, 0.0118639, 0.01440217209, 0.0174012023, 0.02061560487, 0.0237834363]),
    (P3, False, 1.046195894, [0.01, 0.0608949775, 0.04149446594, -0.02098118256, -0.03926860278, -0.02789672201]),
]


@jit
@pytest.mark.parametrize(("problem", "nesterov", "last", "rates"), MOMENTUM)
def test_official_rates_with_momentum(problem, nesterov, last, rates, jit):
    gradients, expected, weights = official_with_momentum(problem, nesterov)
    np.testing.assert_allclose(expected, rates, rtol=1e-8)
    assert weights[-1][0] == pytest.approx(last, rel=1e-8)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=nesterov)
    found = with_gradients(optimizer, gradients, jit, hypergradient_learning_rate=1e-3, **FREE)
    np.testing.assert_allclose(found, rates, rtol=5e-6)


DELTAS = [(0.1, -0.2, 0.05), (0.08, -0.1, 0.06), (-0.05, 0.1, 0.02), (0.3, 0.4, -0.1), (3, 1, 0)]


@jit
def test_fedhyper(jit):
    rates = with_gradients(keras.optimizers.SGD(1.0), DELTAS, jit, rule="fedhyper", normalize=False, max_learning_rate=9.0)
    np.testing.assert_allclose(rates, [1, 1.031, 1.0182, 1.0412, 2.3412], rtol=1e-6)


def test_fedhyper_is_bounded():
    options = {"rule": "fedhyper", "normalize": False, "max_learning_rate": None}
    assert with_gradients(keras.optimizers.SGD(0.5), [(3.0,), (3.0,), (3.0,)], **options) == pytest.approx([0.5, 2.5, 2.5])
    assert with_gradients(keras.optimizers.SGD(0.5), [(3.0,), (-3.0,)], **options) == pytest.approx([0.5, 0.1])


def cosines(gradients):
    g = np.asarray(gradients)
    return np.sum(g[1:] * g[:-1], axis=1) / np.linalg.norm(g[1:], axis=1) / np.linalg.norm(g[:-1], axis=1)


@jit
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_multiplicative_rule_is_free_of_scale(scale, jit):
    gradients = scale * np.array(DELTAS)
    rates = with_gradients(keras.optimizers.SGD(1e-3), gradients, jit, hypergradient_learning_rate=0.1)
    np.testing.assert_allclose(rates[1:], 1e-3 * np.cumprod(1 + 0.1 * cosines(DELTAS)), rtol=3e-6)
    assert rates[0] == pytest.approx(1e-3)


def test_direction_is_summed_over_all_weights():
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3), loss="mse")
    start = [np.sin(1 + np.arange(each.size)).reshape(each.shape) for each in model.get_weights()]
    model.set_weights(start)
    x, y = np.array([[1.0, -2.0]]), np.array([[3.0]])
    model.fit(x, y, epochs=1, verbose=0)
    middle = model.get_weights()
    model.fit(x, y, epochs=1, verbose=0)
    first, second = (
        np.concatenate([((a - b) / 1e-3).ravel() for a, b in zip(before, after, strict=True)])
        for before, after in ((start, middle), (middle, model.get_weights()))
    )
    model.set_weights(start)
    watch = Watch()
    options = {"rule": "additive", "hypergradient_learning_rate": 1e-6}
    model.fit(x, y, epochs=2, verbose=0, callbacks=[HypergradientLearningRate(**options), watch])
    assert watch.rates[1] - 1e-3 == pytest.approx(1e-6 * first @ second, rel=2e-3)


@nightly
def test_starts_from_zero_and_is_clamped():
    options = {"rule": "additive", "hypergradient_learning_rate": 1e-2, "max_learning_rate": 0.05}
    watch = train(keras.optimizers.SGD(0.0), P1, 12, **options)
    assert watch.rates[:3] == pytest.approx([0.0, 0.01, 0.0199])
    assert watch.rates[-1] == pytest.approx(0.05)
    watch = train(keras.optimizers.SGD(0.15), P3, 20, **{**options, "min_learning_rate": 0.01, "max_learning_rate": 1.0})
    assert min(watch.rates) == pytest.approx(0.01)


def test_default_rates_of_the_official_code():
    rates = with_gradients(keras.optimizers.SGD(0.01), [(30.0,), (30.0,)], rule="additive")
    assert rates[1] == pytest.approx(0.01 + 900e-6, rel=1e-5)
    rates = with_gradients(keras.optimizers.Adam(0.01), [(3e4,), (3e4,)], rule="additive")
    assert rates[1] == pytest.approx(0.01 + 3e-4, rel=1e-5)


@nightly
def test_helps_a_rate_that_is_far_too_small():
    random = np.random.default_rng(0)
    x = random.normal(size=(256, 8))
    y = np.tanh(x @ random.normal(size=(8, 1)))

    def last_loss(*callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(1e-4), loss="mse")
        return model.fit(x, y, batch_size=32, epochs=30, verbose=0, callbacks=callbacks).history["loss"][-1]

    assert last_loss(HypergradientLearningRate()) < 0.5 * last_loss()


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (keras.optimizers.RMSprop(), "Received: optimizer=RMSprop"),
        (keras.optimizers.Adam(amsgrad=True), "amsgrad=True"),
        (keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "Received: gradient_accumulation_steps=2"),
        (keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)), "with a float instead of a schedule"),
    ],
)
def test_refused_optimizers(optimizer, message):
    with pytest.raises(ValueError, match=message):
        train(optimizer, P1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "sum"}, "`rule` must be one of 'multiplicative', 'additive', 'fedhyper'"),
        ({"hypergradient_learning_rate": 0}, "`hypergradient_learning_rate` must be a positive number"),
        ({"min_learning_rate": "0"}, "`min_learning_rate` must be a finite number. Received: min_learning_rate='0'"),
        ({"min_learning_rate": 2}, "`min_learning_rate` must be below `max_learning_rate`"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        HypergradientLearningRate(**options)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has no mixed_float16 on a CPU")
def test_within_loss_scaling():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=128.0)
    watch = train(optimizer, P3, hypergradient_learning_rate=1e-3, **FREE)
    np.testing.assert_allclose(watch.rates, SGD_P3_RATES, rtol=2e-6)

"""Schedule-Free+: the average, the step size, a beta_1 that changes, and where the loss comes from."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.callbacks import ScheduleHyperparameter
from keras_lrsched.optimizers import ScheduleFreeAdamW, ScheduleFreeSGD, get
from keras_lrsched.schedules import LinearDecay
from tests.contract.optimizer_problem import RUNS, gradients, variables

OPTIONS = {
    "adamc_schedulefree_plus": {"weight_decay": 20, "average_warmup": 2},
    "adamc_schedulefree_plus_anneal": {"learning_rate": 0.5, "polyak_beta": 0.9, "beta_1_anneal_steps": 4, "r": 2},
}


def number(tensor):
    return np.array(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def plus(**options):
    return get("schedule_free_plus", **options)


@pytest.mark.parametrize("name", OPTIONS)
def test_average_and_step_size(name):
    """x and the rate of the reference, which the trajectories of the contract, of y, do not show."""
    run, optimizer, weights = RUNS[name], plus(**OPTIONS[name]), variables()
    optimizer._stores_corrected_norm = True
    for t, (loss, expected) in enumerate(zip(run["meta"]["losses"], run["traj"], strict=True), start=1):
        optimizer.set_loss(loss)
        optimizer.apply(gradients(t), [*weights.values()])
        y = [number(v) for v in weights.values()]
        optimizer.use_average()
        for variable, key in zip(weights.values(), ("W_x", "b_x"), strict=True):
            np.testing.assert_allclose(number(variable).ravel(), expected[key], rtol=2e-6, atol=2e-6)
        optimizer.use_training_weights()
        for variable, value in zip(weights.values(), y, strict=True):
            np.testing.assert_allclose(number(variable), value, rtol=1e-6, atol=1e-7)
    largest = max(each["lr"] for each in run["traj"])
    np.testing.assert_allclose(number(optimizer._scalars["largest_rate"]), largest, rtol=1e-5)


def test_mean_of_norms_is_corrected_once():
    """With gradients of one size the mean is that size in each update."""
    optimizer, w = plus(polyak_beta=0.9), keras.Variable([1.0, -1.0])
    for t in range(1, 4):
        optimizer.set_loss(2.0)
        optimizer.apply([ops.convert_to_tensor([0.5, 0.5])], [w])
        np.testing.assert_allclose(number(optimizer._scalars["mean_norm"]), np.sqrt(np.pi / 2) * (1 - 0.9**t), rtol=1e-5)


def test_gradients_of_zero_do_nothing():
    optimizer, w = plus(), keras.Variable([1.0, -1.0])
    for loss in (1.0, 0.0):
        optimizer.set_loss(loss)
        optimizer.apply([ops.zeros(2)], [w])
    np.testing.assert_array_equal(number(w), [1.0, -1.0])
    assert number(optimizer._scalars["largest_rate"]) == 0


def test_a_variable_that_rests_keeps_its_share_of_the_average():
    """Its y belongs to the beta_1 of its last update, and its x comes back through later changes of it."""
    optimizer = plus(beta_1_anneal_steps=6, beta_1=0.5, beta_1_max=0.99)
    w, v = keras.Variable([1.0, -1.0]), keras.Variable([2.0, 0.5])
    for t in range(3):
        optimizer.set_loss(1.0)
        optimizer.apply([ops.convert_to_tensor([0.5, 0.1 * t]), ops.convert_to_tensor([0.3, -0.2 * t])], [w, v])
    y = number(v)
    optimizer.use_average()
    x = number(v)
    assert np.all(x != y)
    optimizer.use_training_weights()
    for _ in range(3):
        optimizer.set_loss(1.0)
        optimizer.apply([ops.convert_to_tensor([0.5, 0.1])], [w])
    np.testing.assert_allclose(number(v), y, rtol=1e-6)
    optimizer.use_average()
    np.testing.assert_allclose(number(v), x, rtol=1e-6)


@pytest.mark.parametrize("name", ["beta_1", "momentum"])
def test_beta_1_follows_a_schedule(name):
    """x and z are those of three sequences in NumPy, with y between them by another share in each update."""
    kind = ScheduleFreeAdamW if name == "beta_1" else ScheduleFreeSGD
    optimizer, w = kind(0.1, **{name: 0.9}), keras.Variable([1.0, -1.0])
    shares, rng = [0.9, 0.5, 0.7, 0.95], np.random.default_rng(0)
    x = z = np.array([1.0, -1.0])
    v = np.zeros(2)
    for t, beta in enumerate(shares, start=1):
        g = rng.normal(size=2)
        setattr(optimizer, name, beta)
        optimizer.apply([ops.convert_to_tensor(g, "float32")], [w])
        v = 0.999 * v + 0.001 * g**2
        z = z - 0.1 * (g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) if name == "beta_1" else g)
        x = x + (z - x) / t
        np.testing.assert_allclose(number(w), beta * x + (1 - beta) * z, rtol=1e-5)
    optimizer.use_average()
    np.testing.assert_allclose(number(w), x, rtol=1e-5)


def test_fit_gives_the_loss():
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(plus(learning_rate=LinearDecay(1.0, 100)), loss="mse", run_eagerly=keras.backend.backend() != "jax")
    schedule = ScheduleHyperparameter("optimizer.beta_1", LinearDecay(0.9, 10, alpha=0.5))
    model.fit(np.ones((32, 1)), np.zeros((32, 1)), batch_size=8, verbose=0, callbacks=[schedule])
    first = 1.0 / (np.sqrt(np.pi / 2) * 2.0)  # the loss over the slope
    assert number(model.optimizer._scalars["largest_rate"]) == pytest.approx(first, rel=1e-4)
    assert abs(number(layer.kernel)[0, 0]) < 0.5


def test_needs_a_loss_only_with_plus():
    w = keras.Variable([1.0])
    with pytest.raises(ValueError, match="ScheduleFreeAdamW requires the loss"):
        plus().apply([ops.ones(1)], [w])
    ScheduleFreeAdamW(0.1).apply([ops.ones(1)], [w])


def test_refuses_to_correct_weight_decay_twice():
    with pytest.raises(ValueError, match=r"corrected_weight_decay=0.5, plus=True"):
        plus(corrected_weight_decay=0.5)

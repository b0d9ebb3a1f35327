"""The loss reaches MoMo, in `fit` and by hand; and its step is the one that it should be."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core import backends
from keras_lrsched.optimizers import MoMo, MoMoAdam
from tests.contract.backends import BACKEND, JIT, JIT_WAYS
from tests.nightly import some

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 3)).astype("float32")
Y = X @ np.array([[1.0], [-2.0], [0.5]], "float32")


def network(optimizer, jit=False, policy="float32", **options):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.1))
    model = keras.Sequential([keras.Input((3,)), dense])
    model.dtype_policy = keras.DTypePolicy(policy)
    model.compile(optimizer, "mse", jit_compile=jit, **options)
    model.optimizer.build(model.trainable_variables)  # within the first step, TensorFlow would trace it twice
    return model


def loss_of(model, x, y):
    kernel, bias = model.get_weights()
    return np.mean((x @ kernel + bias - y) ** 2) + 0.1 * np.sum(kernel**2)


def loss_in(optimizer):
    return float(ops.convert_to_numpy(optimizer._scalars["loss"]))


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("method", [MoMo, MoMoAdam])
def test_fit_tells_the_loss_of_each_batch(method, jit):
    """With its regularization, and not the running mean of the epoch."""
    model = network(method(), jit)
    for i in range(4):
        x, y = X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4]
        expected = loss_of(model, x, y)
        model.train_on_batch(x, y)
        assert loss_in(model.optimizer) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("options", some([{"run_eagerly": True}, {}, {"steps_per_execution": 2}]))
def test_ways_to_fit(options):
    if "steps_per_execution" in options and BACKEND == "torch":
        pytest.skip("Keras does not have it there")
    jit = JIT[0] and "run_eagerly" not in options
    reference, model = network(MoMo(0.1), JIT[0]), network(MoMo(0.1), jit, **options)
    for each in (reference, model):
        each.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], reference.get_weights()[0], rtol=1e-5)
    assert loss_of(model, X, Y) < 0.8 * loss_of(network(MoMo()), X, Y)


def test_accumulated_batches_have_the_mean_of_their_losses():
    eager = {"jit": JIT[0], "run_eagerly": BACKEND != "jax"}  # no graph is worth a few steps
    model, whole = network(MoMo(gradient_accumulation_steps=3), **eager), network(MoMo(), **eager)
    for _ in range(2):
        whole.train_on_batch(X, Y)
        expected = loss_of(model, X, Y)
        for i in range(3):
            model.train_on_batch(X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8])
        assert loss_in(model.optimizer) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(model.get_weights()[0], whole.get_weights()[0], rtol=1e-5)


def test_a_scaled_loss_is_known_unscaled():
    plain, scaled = (network(MoMo(loss_scale_factor=factor), run_eagerly=True) for factor in (None, 128.0))
    for model in (plain, scaled):
        model.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    np.testing.assert_allclose(scaled.get_weights()[0], plain.get_weights()[0], rtol=1e-5)


def test_mixed_bfloat16_works_and_mixed_float16_is_refused():
    network(MoMo(), policy="mixed_bfloat16", run_eagerly=True).fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match=r"MoMo requires the loss.*not through a LossScaleOptimizer"):
        network(MoMo(), policy="mixed_float16", run_eagerly=True).fit(X, Y, verbose=0)


def test_each_update_needs_its_own_loss():
    w, optimizer = keras.Variable([3.0, 4.0]), MoMo()
    for _ in range(2):
        before = np.array(ops.convert_to_numpy(w))
        with pytest.raises(ValueError, match="MoMo requires the loss: call `set_loss`"):
            optimizer.apply([ops.ones(2)], [w])
        np.testing.assert_array_equal(ops.convert_to_numpy(w), before)
        optimizer.set_loss(12.5)
        optimizer.apply([ops.ones(2)], [w])


@pytest.mark.parametrize("loss", [[1.0, 2.0], np.ones((1, 1))])
def test_loss_that_is_no_number(loss):
    with pytest.raises(ValueError, match=r"`loss` must be one number. Received: a tensor of shape \("):
        MoMo().set_loss(loss)


def test_several_replicas_are_refused(monkeypatch):
    monkeypatch.setattr(backends, "replicas", lambda: 2)
    optimizer = MoMo()
    optimizer.set_loss(1.0)
    with pytest.raises(ValueError, match=r"MoMo works with one replica. Received: num_replicas_in_sync=2"):
        optimizer.apply([ops.ones(2)], [keras.Variable([3.0, 4.0])])


@pytest.mark.parametrize("loss", [0.3, 3.0, 30.0])
def test_step_with_different_decay_and_rates_is_the_minimum(loss):
    """No point nearby has a lower model of the loss plus distance plus decay."""
    start, slope = RANDOM.normal(size=(2, 6)), RANDOM.normal(size=(2, 6))
    weights = [keras.Variable(start[0], name="decayed"), keras.Variable(start[1], name="fast")]
    options = {"weight_decay": 0.5, "exclude_from_weight_decay": ["fast"], "learning_rate_multipliers": {"fast": 3.0}}
    optimizer = MoMo(0.2, lb=0.1, **options)
    optimizer.set_loss(loss)
    optimizer.apply([ops.convert_to_tensor(g, "float32") for g in slope], weights)
    rate, decay = np.array([[0.2], [0.6]]), np.array([[0.5], [0.0]])

    def objective(x):
        model = max(loss + np.sum(slope * (x - start)), 0.1)
        return model + np.sum((x - start) ** 2 / (2 * rate) + decay / 2 * x**2)

    found = np.array([ops.convert_to_numpy(w) for w in weights], "float64")
    others = [objective(found + 1e-2 * RANDOM.normal(size=found.shape)) for _ in range(500)]
    assert objective(found) < min(others)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="float64 needs no switch there")
@pytest.mark.parametrize("method", [MoMo, MoMoAdam])
def test_variables_in_float64(method):
    optimizer, weights = method(0.1), [keras.Variable([3.0, 4.0], dtype=dtype) for dtype in ("float64", "float32")]
    for _ in range(3):
        optimizer.set_loss(12.5)
        optimizer.apply([ops.convert_to_tensor(w) + 0.0 for w in weights], weights)
    np.testing.assert_allclose(weights[0].numpy(), weights[1].numpy(), rtol=1e-6)
    assert np.all(weights[0].numpy() < [3.0, 4.0])


@pytest.mark.parametrize("method", [MoMo, MoMoAdam])
def test_losses_below_the_bound_are_warned_of(method):
    for losses, expected in (([0.5, 0.1], 0), ([0.5, -0.25, 0.5], 1)):
        optimizer, w = method(0.1), keras.Variable([1.0])
        for loss in losses:
            optimizer.set_loss(loss)
            optimizer.apply([ops.ones((1,))], [w])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.finalize_variable_values([w])
        messages = [str(each.message) for each in caught if "`lb`" in str(each.message)]
        assert len(messages) == expected
        assert all(message.endswith("lb=0.0, a loss of -0.25") for message in messages)

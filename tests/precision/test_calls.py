"""The ways in which programs call quantized layers: phases that are not passed on, empty and bad batches."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import SGD, AdamW
from keras_lrsched.precision import LossScaleOptimizer, get_recipe, quantize_model, recipe_names
from keras_lrsched.precision.layers import QuantizedDense
from tests.contract.backends import BACKEND
from tests.nightly import nightly, some

X = 100 * np.random.default_rng(0).normal(size=(16, 32)).astype("float32")


class WithoutTraining(keras.Model):
    """As in many examples, `call` takes no `training`."""

    def __init__(self):
        super().__init__()
        self.one, self.two = keras.layers.Dense(32), keras.layers.Dense(1)

    def call(self, x):
        return self.two(self.one(x))


def test_fit_is_training_and_evaluation_is_not():
    model = WithoutTraining()
    model(X)
    quantize_model(model, "fp8_delayed", head=model.two.path)
    model.compile(SGD(0.0), "mse")
    model.fit(X, X[:, :1], batch_size=4, verbose=0)
    assert int(model.one.gemm.calls.numpy()) == 4
    model.evaluate(X, X[:, :1], batch_size=4, verbose=0)
    model.predict(X, batch_size=4, verbose=0)
    assert int(model.one.gemm.calls.numpy()) == 4
    exact = X @ np.array(model.one.kernel.numpy())
    quantized = ops.convert_to_numpy(model.one(X, training=False))
    assert np.abs(quantized - exact).mean() < 0.1 * np.abs(exact).mean()  # with the scale 1 it is 0.6


def test_a_gradient_that_nobody_announced_is_training():
    """In a loop of a user's own, on which no step of Keras is."""
    layer = QuantizedDense(2, recipe=get_recipe("mxfp8", head=True))
    layer.build((None, 32))
    kernel = ops.convert_to_tensor(layer.kernel)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = ops.sum(layer(X))
        assert tape.gradient(loss, layer.kernel.value) is not None
    elif BACKEND == "jax":
        import jax

        def loss_of(kernel):
            with keras.StatelessScope([(layer.kernel, kernel)]) as scope:
                loss = ops.sum(layer(X))
            return loss, scope.get_current_value(layer.gemm.calls)

        _, calls = jax.grad(loss_of, has_aux=True)(kernel)
        layer.gemm.calls.assign(calls)
    else:
        ops.sum(layer(X)).backward()
    expected = 0 if BACKEND == "torch" else 1  # there, gradients are recorded in any case, and `training` has to be passed
    assert int(layer.gemm.calls.numpy()) == expected
    layer(X)
    assert int(layer.gemm.calls.numpy()) == expected


@pytest.mark.parametrize("name", recipe_names())
def test_no_tokens_give_none(name):
    layer = QuantizedDense(128, recipe=name)
    layer.build((None, 128))
    for training in (False, True):
        assert tuple(layer(ops.zeros((0, 128)), training=training).shape) == (0, 128)


@pytest.mark.parametrize("seed", [2**19, 20240101, 2**40 + 3])
def test_seeds_of_any_size(seed):
    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32), keras.layers.Dense(1)])
    quantize_model(model, "int8_jetfire", seed=seed)
    assert np.isfinite(ops.convert_to_numpy(model(X, training=True))).all()


STATEFUL = ("fp8_delayed", "aqt_int4", "double_rounding")
LEFT_OUT = [("loss scale", "fp8_delayed"), ("skip", "aqt_int4"), ("skip", "double_rounding")]


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        pytest.param(optimizer, name, marks=() if (optimizer, name) in LEFT_OUT else nightly)
        for optimizer in ("loss scale", "skip")
        for name in (*STATEFUL, "fp8_current", "coat")
    ],
)
def test_a_batch_that_is_not_finite_is_left_out_for_good(name, optimizer):
    """The optimizer finds out, and no statistic has it."""
    recipe = get_recipe(name, **({"statistics_steps": 2} if name == "aqt_int4" else {}))
    model = keras.Sequential([keras.Input((32,)), *(keras.layers.Dense(32) for _ in range(2)), keras.layers.Dense(1)])
    quantize_model(model, recipe)
    inner = SGD(1e-6) if optimizer == "loss scale" else SGD(1e-6, nonfinite="skip")
    model.compile(LossScaleOptimizer(inner, 128.0) if optimizer == "loss scale" else inner, "mse", jit_compile=False)
    bad = X.copy()
    bad[5, 3] = np.inf
    model.fit(bad, X[:, :1], batch_size=4, shuffle=False, verbose=0)
    model.fit(X, X[:, :1], batch_size=4, shuffle=False, verbose=0)
    assert int(inner.iterations.numpy()) == 7
    assert all(np.isfinite(variable.numpy()).all() for variable in model.variables)
    assert all(np.isfinite(value.numpy()).all() for value in model.layers[1].gemm.state.values())
    assert np.isfinite(model.predict(X, verbose=0)).all()


def test_averaged_weights_leave_out_what_gradients_overwrite():
    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32), keras.layers.Dense(1)])
    quantize_model(model, "fp8_delayed")
    often = (
        {} if BACKEND == "jax" else {"ema_overwrite_frequency": 2}
    )  # there, Keras' conditional fails, whatever the layers
    model.compile(AdamW(1e-3, use_ema=True, **often), "mse")
    model.fit(X, X[:, :1], batch_size=4, verbose=0)
    assert float(model.layers[0].gemm.state["gradient_amax"].numpy()) > 0


@pytest.mark.parametrize("name", some(["double_rounding", "int8_jetfire"]))
def test_rematerialization_changes_nothing(name):
    def trained(scope):
        keras.utils.set_random_seed(0)
        with scope:
            model = keras.Sequential(
                [keras.Input((32,)), *(keras.layers.Dense(32) for _ in range(2)), keras.layers.Dense(1)]
            )
        quantize_model(model, name)
        model.compile(SGD(1e-6), "mse")
        model.fit(X, X[:, :1], batch_size=8, shuffle=False, verbose=0)
        return [np.array(variable.numpy()) for variable in (model.layers[1].kernel, model.layers[1].gemm.calls)]

    for one, other in zip(trained(keras.RematScope(mode=None)), trained(keras.RematScope(mode="full")), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")
@pytest.mark.parametrize("name", STATEFUL)
def test_statistics_of_one_replica_are_refused(name):
    import tensorflow as tf

    layer = QuantizedDense(32, recipe=get_recipe(name), context={"index": 1, "count": 3})
    layer.build((None, 32))
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_lrsched._core.backends.is_batch_sharded", lambda: True)
        with pytest.raises(ValueError, match="such as fp8_current or mxfp8"):
            layer(X, training=True)
        layer(X, training=False)


def delayed(model, optimizer, batches=4):
    """The counter and the histories of the first layer after so many batches, the oldest first."""
    quantize_model(model, "fp8_delayed")
    model.compile(optimizer, "mse", jit_compile=False, run_eagerly=BACKEND != "jax")
    model.fit(X, X[:, :1], batch_size=16 // batches, shuffle=False, verbose=0)
    product = next(layer for layer in model.layers if getattr(layer, "gemm", None) is not None).gemm
    histories = {name: np.array(product.state[f"{name}_amax_history"].numpy()) for name in ("inputs", "gradient")}
    return int(product.calls.numpy()), {name: history[history > 0] for name, history in histories.items()}


def dense(*units):
    return keras.Sequential([keras.Input((32,)), *map(keras.layers.Dense, units)])


AMAX = np.abs(X).reshape(4, -1).max(axis=1)


def test_each_accumulated_batch_counts():
    calls, histories = delayed(dense(32, 1), SGD(1e-6, gradient_accumulation_steps=2))
    assert calls == 4
    np.testing.assert_array_equal(histories["inputs"], AMAX)


def test_each_call_of_a_shared_layer_counts():
    inputs, shared = keras.Input((32,)), keras.layers.Dense(32, use_bias=False)
    model = keras.Model(inputs, keras.layers.Dense(1)(shared(0.5 * inputs) + shared(inputs)))
    calls, histories = delayed(model, SGD(1e-6))
    assert calls == 8
    np.testing.assert_allclose(histories["inputs"], np.stack([0.5 * AMAX, AMAX], axis=1).ravel(), rtol=1e-6)


def test_a_finite_batch_counts_when_the_optimizer_leaves_its_step_out():
    """As in Transformer Engine; the gradient, which has overflown, is in no history."""
    optimizer = SGD(1e-6)
    calls, histories = delayed(dense(32, 1), LossScaleOptimizer(optimizer, initial_scale=2.0**126))
    assert not int(optimizer.iterations.numpy())
    assert calls == 4
    np.testing.assert_array_equal(histories["inputs"], AMAX)
    assert not histories["gradient"].size

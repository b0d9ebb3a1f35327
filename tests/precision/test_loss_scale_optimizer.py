"""Loss scaling as fairseq does it."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched import optimizers
from keras_lrsched.precision import LossScaleOptimizer, QuantizedState
from tests.contract.backends import BACKEND, JIT, JIT_WAYS, compiled_update
from tests.nightly import nightly, some

GOOD, BAD = 1.0, float("inf")
MODES = some(("eager", *JIT), first=2) if BACKEND != "torch" else ("eager",)


@pytest.fixture(params=MODES, ids=lambda mode: mode if mode == "eager" else f"jit_compile={mode}")
def scales(request):
    """A function: the scale after each of some gradients of one variable, which are given unscaled."""

    def run(gradients, **options):
        w = keras.Variable([0.0], name="w")
        optimizer = LossScaleOptimizer(keras.optimizers.SGD(1.0), **options)
        optimizer.build([w])
        update = optimizer.apply if request.param == "eager" else compiled_update(optimizer, [w], request.param)
        history = []
        for gradient in gradients:
            before, scale = w.numpy().item(), float(optimizer.dynamic_scale)
            update([ops.convert_to_tensor([gradient * scale], "float32")])
            assert w.numpy().item() == (before - gradient if np.isfinite(gradient) else before)
            history.append(float(optimizer.dynamic_scale))
        return history

    return run


def fairseq(overflows, initial_scale, window, tolerance=0.0):
    """The scale after each batch, written after `DynamicLossScaler` of facebookresearch/fairseq."""
    scale, last_overflow, last_change, count, history = initial_scale, -1, -1, 0, []
    for i, overflow in enumerate(overflows):
        if overflow:
            last_overflow, count = i, count + 1
            if count / (i - last_change) >= tolerance:
                scale, last_change, count = scale / 2, i, 0
        elif (i - last_overflow) % window == 0:
            scale, last_change = 2 * scale, i
        history.append(scale)
    return history


def test_sequence_by_hand(scales):
    gradients = [GOOD, GOOD, GOOD, GOOD, BAD, GOOD, GOOD, BAD, BAD, GOOD, GOOD, GOOD, GOOD, GOOD, GOOD]
    expected = [128, 128, 256, 256, 128, 128, 128, 64, 32, 32, 32, 64, 64, 64, 128]
    assert scales(gradients, initial_scale=128.0, dynamic_growth_steps=3) == expected
    assert fairseq([g == BAD for g in gradients], 128, 3) == expected


def test_tolerance_by_hand(scales):
    """Half of the batches since the last change: an overflow that is not enough begins a new window all the same."""
    gradients = [GOOD, BAD, GOOD, GOOD, BAD, BAD, GOOD, GOOD, GOOD]
    expected = [128, 64, 64, 64, 64, 32, 32, 32, 64]
    assert scales(gradients, initial_scale=128.0, dynamic_growth_steps=3, tolerance=0.5) == expected
    assert fairseq([g == BAD for g in gradients], 128, 3, 0.5) == expected


@pytest.mark.parametrize("tolerance", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("window", [1, 4])
def test_sequence_of_fairseq(scales, window, tolerance):
    bad = np.random.default_rng(0).random(60) < 0.3
    options = {"initial_scale": 2.0**40, "dynamic_growth_steps": window, "tolerance": tolerance}
    assert scales(np.where(bad, BAD, GOOD), **options) == fairseq(bad, 2.0**40, window, tolerance)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_defaults(scales, bad):
    """Those of Keras, where it has them."""
    assert scales([GOOD, bad, GOOD]) == [2.0**15, 2.0**14, 2.0**14]
    config = LossScaleOptimizer("sgd").get_config()
    assert config["dynamic_growth_steps"] == 2000
    assert (config["min_scale"], config["tolerance"]) == (1e-4, 0.0)


# The end


def test_abort_in_eager_code():
    """128 / 2^20 is the last scale above 1e-4."""
    w = keras.Variable([1.0])
    optimizer = LossScaleOptimizer(keras.optimizers.SGD(1.0), 128.0)
    for _ in range(20):
        optimizer.apply([ops.array([BAD])], [w])
    optimizer.raise_if_aborted()
    with pytest.raises(FloatingPointError, match=r"minimum of 0\.0001.*Lower the learning rate"):
        optimizer.apply([ops.array([BAD])], [w])
    assert float(optimizer.dynamic_scale) == 128 / 2**20
    assert w.numpy().item() == 1
    optimizer.finalize_variable_values([w])  # it has been raised


@pytest.mark.skipif(BACKEND == "torch", reason="compiles nothing")
@pytest.mark.parametrize("jit", JIT)
def test_abort_in_compiled_code(jit):
    w = keras.Variable([1.0])
    optimizer = LossScaleOptimizer(keras.optimizers.SGD(1.0), 4.0, min_scale=1.0)
    update = compiled_update(optimizer, [w], jit)
    update([ops.array([BAD])])
    optimizer.raise_if_aborted()
    if jit:
        update([ops.array([BAD])])
        with pytest.raises(FloatingPointError, match=r"minimum of 1\.0"):
            optimizer.raise_if_aborted()
    else:
        import tensorflow as tf

        with pytest.raises(tf.errors.InvalidArgumentError, match="The loss scale has come down to its minimum"):
            update([ops.array([BAD])])
    assert float(optimizer.dynamic_scale) == 2
    optimizer.raise_if_aborted()  # it has been raised
    update([ops.array([2.0])])
    assert w.numpy().item() == 0
    optimizer.raise_if_aborted()


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("has_new_scale", some([True, False]))
def test_training_goes_on_after_an_abort(tmp_path, has_new_scale, jit):
    """With the scale set anew, the same optimizer and the one in a file; or with the scale as it is."""
    one = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    one.compile(LossScaleOptimizer(keras.optimizers.SGD(0.01), 4.0, min_scale=1.0), "mse", jit_compile=jit)
    one.optimizer.build(one.trainable_variables)
    x = np.ones((4, 4), "float32")
    good = one.get_weights()
    try:
        one.fit(x * np.float32("inf"), x[:, :1], batch_size=2, verbose=0)
    except (FloatingPointError, *graph_errors()):
        pass
    else:
        pytest.fail("no error")
    one.set_weights(good)
    if has_new_scale:
        one.optimizer.dynamic_scale.assign(128.0)
    one.save(tmp_path / "model.keras")
    one.fit(x, x[:, :1], batch_size=2, verbose=0)
    assert not np.array_equal(one.get_weights()[0], good[0])
    two = keras.saving.load_model(tmp_path / "model.keras")
    two.fit(x, x[:, :1], batch_size=2, verbose=0, shuffle=False)
    np.testing.assert_array_equal(one.get_weights()[0], two.get_weights()[0])


def graph_errors():
    if BACKEND != "tensorflow":
        return ()
    import tensorflow as tf

    return (tf.errors.InvalidArgumentError,)


def test_an_abort_that_was_not_raised_is_not_loaded(tmp_path):
    one = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    one.compile(LossScaleOptimizer(keras.optimizers.SGD(0.01), 4.0, min_scale=1.0), "mse")
    one.optimizer.build(one.trainable_variables)
    one.optimizer.aborts.assign(3)
    one.save(tmp_path / "model.keras")
    keras.saving.load_model(tmp_path / "model.keras").optimizer.raise_if_aborted()
    with pytest.raises(FloatingPointError, match="minimum"):
        one.optimizer.raise_if_aborted()


def test_the_scale_stays_finite(scales):
    """And its reciprocal is no subnormal number, which XLA takes for zero."""
    history = scales([0.0] * 4 + [2.0**-10] * 2, initial_scale=2.0**124, dynamic_growth_steps=1)
    assert history == [2.0**125] + [2.0**126] * 5
    assert scales([0.0, BAD], initial_scale=2.0**126, dynamic_growth_steps=1) == [2.0**126, 2.0**125]


def test_a_scale_that_is_not_finite():
    """Keras' own, and older versions, wrote such files."""
    w = keras.Variable([1.0])
    optimizer = LossScaleOptimizer(keras.optimizers.SGD(1.0))
    optimizer.build([w])
    optimizer.dynamic_scale.assign(BAD)
    optimizer.apply([ops.array([BAD])], [w])
    assert float(optimizer.dynamic_scale) == 2.0**125
    optimizer.dynamic_scale.assign(float("nan"))
    with pytest.raises(FloatingPointError, match="minimum"):
        optimizer.apply([ops.array([BAD])], [w])


def model(policy="mixed_float16"):
    keras.utils.set_random_seed(0)
    one = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, "relu", dtype=policy),
            keras.layers.BatchNormalization(dtype=policy),
            keras.layers.Dense(10, dtype=policy),
        ]
    )
    one.dtype_policy = keras.DTypePolicy(policy)
    return one


def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_a_model_that_explodes_stops(jit):
    x, y = digits()
    one = model()
    scaled = LossScaleOptimizer(keras.optimizers.SGD(0.1), 8.0, min_scale=1.0)
    one.compile(scaled, "sparse_categorical_crossentropy", jit_compile=jit)
    with pytest.raises((FloatingPointError, *graph_errors()), match=r"minimum of 1\.0"):
        one.fit(x * np.float32("nan"), y, batch_size=256, epochs=1, verbose=0)


@nightly
def test_a_callback_stops_compiled_training():
    x, y = digits()
    one = model()
    optimizer = LossScaleOptimizer(keras.optimizers.SGD(0.1), 8.0, min_scale=1.0)
    one.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=JIT[-1])
    epochs = []
    check = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: epochs.append(epoch),
        on_epoch_end=lambda epoch, logs: optimizer.raise_if_aborted(),
    )
    with pytest.raises(FloatingPointError, match="minimum"):
        one.fit(x * np.float32("nan"), y, batch_size=256, epochs=5, verbose=0, callbacks=[check])
    assert epochs == [0]


# Training


@nightly
def test_float16_training_with_overflows():
    """A first scale that is too large costs a few updates, and all is as with a good one."""
    x, y = digits()
    one = model()
    optimizer = LossScaleOptimizer(optimizers.AdamW(3e-3), 2.0**30, dynamic_growth_steps=20)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    one.compile(optimizer, loss, metrics=["accuracy"])
    assert one.optimizer is optimizer
    one.fit(x, y, batch_size=64, epochs=4, verbose=0)
    assert one.evaluate(x, y, verbose=0)[1] > 0.9
    assert float(optimizer.dynamic_scale) < 2.0**30
    assert 60 < int(optimizer.iterations) < 4 * 29


def test_around_quantized_state():
    w = keras.Variable(np.zeros((64, 64), "float32"), name="w")
    optimizer = LossScaleOptimizer(QuantizedState(optimizers.AdamW(0.5, weight_decay=None), "coat"), 128.0)
    update = compiled_update(optimizer, [w], JIT[0])
    update([ops.full((64, 64), 128.0)])
    np.testing.assert_allclose(w.numpy(), -0.5, rtol=1e-6)
    before = [np.array(v.numpy()) for v in optimizer.inner_optimizer.variables]
    update([ops.full((64, 64), BAD)])
    for variable, old in zip(optimizer.inner_optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)


def test_saved_model_goes_on_training(tmp_path):
    one = model("float32")
    one.compile(LossScaleOptimizer(optimizers.AdamW(1e-2), 2.0**10, 5, tolerance=0.3, min_scale=2.0**-3), "mse")
    update = compiled_update(one.optimizer, one.trainable_variables)
    bad = np.random.default_rng(1).random(30) < 0.4

    def grads(t):
        return [ops.full(v.shape, BAD if bad[t] else 100.0 * t) for v in one.trainable_variables]

    for t in range(12):
        update(grads(t))
    one.save(tmp_path / "model.keras")
    two = keras.saving.load_model(tmp_path / "model.keras")
    assert type(two.optimizer) is LossScaleOptimizer
    again = compiled_update(two.optimizer, two.trainable_variables)
    for t in range(12, 30):
        update(grads(t))
        again(grads(t))
        assert float(one.optimizer.dynamic_scale) == float(two.optimizer.dynamic_scale)
    for mine, yours in zip(one.trainable_variables, two.trainable_variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), yours.numpy())


def test_config():
    optimizer = LossScaleOptimizer(optimizers.Lion(0.1, beta_2=0.98), 2.0**9, 100, tolerance=0.05, min_scale=1e-3)
    saved = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(saved)
    assert type(again) is LossScaleOptimizer
    assert again.get_config() == optimizer.get_config()


def test_arguments_of_keras():
    """In its order, and what older configurations hold."""
    inner = keras.optimizers.SGD()
    optimizer = LossScaleOptimizer(inner, 8.0, 10, "scaled")
    assert (optimizer.name, optimizer.initial_scale, optimizer.dynamic_growth_steps) == ("scaled", 8.0, 10)
    old = {"dynamic": True, "clipnorm": None, "use_ema": False, "ema_momentum": 0.99, "gradient_accumulation_steps": None}
    again = LossScaleOptimizer.from_config({**optimizer.get_config(), **old})
    assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_scale": 1e38}, r"`initial_scale` must be at most 2\^126"),
        ({"dynamic": False}, "no longer supports `dynamic=False`"),
        ({"clipnorm": 1.0}, "Instead, set `clipnorm` on the `inner_optimizer`"),
        ({"beta": 1.0}, "does not support arguments: `beta`"),
        ({"initial_scale": 0}, "`initial_scale` must be a positive number. Received: initial_scale=0"),
        ({"initial_scale": 1e-5}, "`min_scale` must be below `initial_scale`"),
        ({"dynamic_growth_steps": 0}, "`dynamic_growth_steps` must be a positive integer"),
        ({"tolerance": 1.5}, "`tolerance` must be a number between 0 and 1"),
        ({"min_scale": -1}, "`min_scale` must be a positive number"),
        ({"inner_optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())}, "scaled already"),
    ],
    ids=lambda it: it if isinstance(it, str) else next(iter(it)),
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        LossScaleOptimizer(**{"inner_optimizer": "sgd", **options})

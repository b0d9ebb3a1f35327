"""Lookahead, beside what the contract asks."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.callbacks import WeightAveraging
from keras_lrsched.optimizers import AdamW, Lookahead, ScheduleFreeSGD
from tests.contract.backends import JIT, JIT_WAYS, compiled_update
from tests.contract.test_optimizers import digits
from tests.nightly import some


def updated(w, optimizer, number, step=-1.0):
    """The weights after each of some updates with a constant gradient."""
    values = []
    for _ in range(number):
        optimizer.apply([ops.full(w.shape, step, w.dtype)], [w])
        values.append(ops.convert_to_numpy(ops.cast(w, "float32")).item())
    return values


def test_slow_weights_by_hand():
    w = keras.Variable([0.0])
    assert updated(w, Lookahead(keras.optimizers.SGD(1.0), 3, 0.25), 7) == [1, 2, 0.75, 1.75, 2.75, 1.5, 2.5]


def test_slow_weights_start_where_training_does():
    """Also if the weights are loaded after the optimizer was built, as `load_model` does."""
    w, optimizer = keras.Variable([5.0]), Lookahead(keras.optimizers.SGD(1.0), 2)
    optimizer.build([w])
    w.assign([0.0])
    assert updated(w, optimizer, 2) == [1, 1]


def test_what_takes_no_part_in_an_update_stays():
    """Neither weights of which training begins later, nor those that are frozen for a time, are pulled anywhere."""
    w, v, alone = (keras.Variable([value]) for value in (0.0, 5.0, 5.0))
    optimizer, single = (Lookahead(keras.optimizers.SGD(1.0), 2) for _ in range(2))
    optimizer.build([w, v])
    for _ in range(3):
        optimizer.apply([ops.full((1,), -1.0)], [w])
        assert ops.convert_to_numpy(v).item() == 5
    single.build([alone])
    single.iterations.assign(3)
    for _ in range(3):
        optimizer.apply([ops.full((1,), -1.0)] * 2, [w, v])
        single.apply([ops.full((1,), -1.0)], [alone])
        assert ops.convert_to_numpy(v).item() == ops.convert_to_numpy(alone).item()


def test_weights_that_are_set_from_outside_are_where_training_goes_on():
    w = keras.Variable([0.0])
    optimizer = Lookahead(keras.optimizers.SGD(1.0), 4)
    updated(w, optimizer, 4)
    w.assign([10.0])
    assert updated(w, optimizer, 4) == [11, 12, 13, 12]


def test_each_step_to_the_end_is_the_inner_optimizer():
    w, v = keras.Variable([1.0]), keras.Variable([1.0])
    wrapped, plain = Lookahead(AdamW(0.1), 1, 1.0), AdamW(0.1)
    assert updated(w, wrapped, 4) == updated(v, plain, 4)


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("inner", [keras.optimizers.SGD, AdamW])
def test_accumulated_gradients_count_as_one_update(inner, jit):
    w, v = keras.Variable([1.0]), keras.Variable([1.0])
    micro = compiled_update(Lookahead(inner(0.125, gradient_accumulation_steps=2), 2), [w], jit)
    whole = compiled_update(Lookahead(inner(0.125), 2), [v], jit)
    for t in range(5):
        for part in (0.5, 1.5):
            micro([ops.full((1,), part * (t + 1))])
        whole([ops.full((1,), t + 1.0)])
        np.testing.assert_allclose(ops.convert_to_numpy(w), ops.convert_to_numpy(v), rtol=1e-6)


def test_slow_weights_of_low_precision_are_exact():
    """Each step back is an eighth of the way; in bfloat16 alone, nothing would be left of it."""
    w = keras.Variable([256.0], dtype="bfloat16")
    optimizer = Lookahead(AdamW(0.5, weight_decay=None, master_weights=True), 1, 0.125)
    updated(w, optimizer, 64)
    slow = ops.convert_to_numpy(optimizer.value_of(w, 0)).item()
    assert slow == pytest.approx(256 + 64 * 0.5 / 8, rel=1e-4)
    assert ops.convert_to_numpy(ops.cast(w, "float32")).item() == 260


@pytest.mark.parametrize("inner", [AdamW(use_ema=True), ScheduleFreeSGD(), keras.optimizers.ScheduleFreeAdamW()])
def test_optimizers_that_average_are_refused(inner):
    with pytest.raises(ValueError, match=r"averages no weights. Received: optimizer=<"):
        Lookahead(inner)


@pytest.mark.parametrize("policy", some(["float32", "mixed_bfloat16"]))
def test_fit(policy):
    x, y = digits()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(32, "relu", dtype=policy), keras.layers.Dense(10, dtype=policy)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(Lookahead(AdamW(0.02)), loss, metrics=["accuracy"], jit_compile=JIT[0])
    model.optimizer.build(model.trainable_variables)
    model.fit(x, y, batch_size=32, epochs=3, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.9
    assert int(model.optimizer.iterations) == 3 * 56


def test_fit_with_an_average_of_weights():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(Lookahead("sgd", 2), "mse")
    x = np.ones((8, 2))
    model.fit(x, x[:, :1], batch_size=2, epochs=2, verbose=0, callbacks=[WeightAveraging()])

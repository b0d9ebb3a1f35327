"""All state comes back, bit for bit, and training from a snapshot repeats itself."""

import keras
import numpy as np
import pytest

from keras_lrsched._core.random_state import random_state, restore_random_state
from keras_lrsched.callbacks import Snapshot
from tests.contract.backends import BACKEND, JIT_WAYS
from tests.nightly import some

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(12, 3)), RANDOM.normal(size=(12, 1))


def adam(**options):
    # on JAX, Keras 3.15 cannot `fit` twice with `use_ema`: it then donates one buffer twice
    return keras.optimizers.Adam(0.01, use_ema=BACKEND != "jax", amsgrad=True, **options)


OPTIMIZERS = {
    "adam": adam,
    "accumulation": lambda: adam(gradient_accumulation_steps=2),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(adam(), dynamic_growth_steps=2),
    "schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10), momentum=0.9),
}


def build(optimizer="adam", dtype="float32", jit=False, built=True):
    layers = [
        keras.layers.Dense(4, dtype=dtype),
        keras.layers.BatchNormalization(dtype=dtype),
        keras.layers.Dropout(0.5, seed=1),
        keras.layers.Dense(1, dtype=dtype),
    ]
    model = keras.Sequential([keras.layers.Input((3,)), *layers])
    model.compile(OPTIMIZERS[optimizer](), loss="mse", metrics=["mae"], jit_compile=jit)
    if built:  # within the first step, TensorFlow would trace the step twice
        model.optimizer.build(model.trainable_variables)
    return model


def fit(model, *callbacks, epochs=1):
    model.fit(X, Y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))


def everything(model):
    return [np.array(v.numpy()) for v in [*model.variables, *model.optimizer.variables]]


def assert_same(model, values):
    for variable, now, then in zip([*model.variables, *model.optimizer.variables], everything(model), values, strict=True):
        assert now.dtype == then.dtype
        np.testing.assert_array_equal(now, then, err_msg=variable.path)


@pytest.mark.parametrize("jit", JIT_WAYS)
@pytest.mark.parametrize("optimizer", some(OPTIMIZERS, chosen=["loss scale", "schedule"].__contains__))
def test_between_two_fits(optimizer, jit):
    model = build(optimizer, jit=jit)
    fit(model)
    before, snapshot = everything(model), Snapshot(model)
    fit(model, epochs=2)
    assert sum(not np.array_equal(now, then) for now, then in zip(everything(model), before, strict=True)) > 5
    after = everything(model)
    snapshot.restore()
    assert_same(model, before)
    fit(model, epochs=2)
    assert_same(model, after)


@pytest.mark.parametrize("dtype", some(["bfloat16", "mixed_bfloat16"]))
def test_other_precisions(dtype):
    model = build(dtype=dtype)
    fit(model)
    before, snapshot = everything(model), Snapshot(model)
    fit(model)
    snapshot.restore()
    assert_same(model, before)


class RollsBack(keras.callbacks.Callback):
    """Takes a snapshot after batch 1 and goes back to it after batch 3, 5, ...: batch 2 is trained again and again."""

    def __init__(self, metrics=False):
        super().__init__()
        self.metrics, self.seen = metrics, []

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.snapshot = Snapshot(self.model, self.metrics)
            self.start = everything(self.model)
        elif batch % 2 == 0:
            self.seen.append(everything(self.model))
            self.snapshot.restore()
            assert_same(self.model, self.start)


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_inside_of_fit(jit):
    x, y = np.tile(X[:4], (7, 1)), np.tile(Y[:4], (7, 1))
    model, rolls_back = build(jit=jit), RollsBack()
    model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[rolls_back])
    assert len(rolls_back.seen) == 3
    for again in rolls_back.seen[1:]:
        for one, other in zip(rolls_back.seen[0], again, strict=True):
            np.testing.assert_array_equal(one, other)
    assert int(model.optimizer.iterations) == 1


def test_metrics():
    model = build()
    fit(model)
    with_metrics, without = Snapshot(model, metrics=True), Snapshot(model)
    loss = model.get_metrics_result()
    model.reset_metrics()
    without.restore()
    assert float(model.get_metrics_result()["mae"]) == 0
    with_metrics.restore()
    assert {name: float(value) for name, value in model.get_metrics_result().items()} == {
        name: float(value) for name, value in loss.items()
    }


def test_builds_the_optimizer():
    model = build(built=False)
    snapshot = Snapshot(model)
    fit(model)
    snapshot.restore()
    assert int(model.optimizer.iterations) == 0
    assert all(np.all(np.asarray(v.numpy()) == 0) for v in model.optimizer.variables if "velocity" in v.path)


def test_goes_into_another_model():
    keras.utils.set_random_seed(0)
    model, other = build(), build()
    fit(model)
    Snapshot.from_state(other, Snapshot(model).state()).restore()
    assert_same(other, everything(model))


def test_refuses_a_changed_model_and_one_without_weights():
    snapshot = Snapshot(build("adam"))
    with pytest.raises(ValueError, match=r"optimizer has changed since. Its variable \d.* is .*Received: "):
        Snapshot.from_state(build("schedule"), snapshot.state()).restore()
    model = keras.Sequential([keras.layers.Dense(1)], name="empty")
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match=r"Received: model='empty', not built"):
        Snapshot(model)


def draws():
    import random

    numbers = [random.random(), np.random.normal(), *np.ravel(keras.ops.convert_to_numpy(keras.random.normal((2,))))]
    if BACKEND == "torch":
        import torch

        numbers.append(torch.rand(()).item())
    return numbers


def test_random_state():
    keras.utils.set_random_seed(3)
    draws()
    state = random_state()
    first = draws()
    assert draws() != first
    restore_random_state(state)
    assert draws() == first

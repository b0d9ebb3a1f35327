"""Mechanic: its scale, and what takes no part."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core import backends
from keras_lrsched.optimizers import SGD, AdamW, Mechanic, ScheduleFreeSGD, get


def number(tensor):
    return np.array(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def run(optimizer, gradients, dtype="float32"):
    w = keras.Variable([1.0, -1.0], dtype=dtype, name="w")
    for g in gradients:
        optimizer.apply([ops.convert_to_tensor(np.array(g), dtype)], [w])
    return number(w)


def test_first_step_is_that_of_the_inner_optimizer_times_its_start():
    assert Mechanic(SGD(1.0)).scale == 0
    optimizer = Mechanic(SGD(2.0), s_init=0.01)
    np.testing.assert_allclose(run(optimizer, [[1.0, 1.0]]), [0.98, -1.02], rtol=1e-6)
    assert optimizer.scale == pytest.approx(0.01, rel=1e-5)


def test_scale_grows_while_gradients_agree_only():
    agreeing, turning = Mechanic(SGD(1.0)), Mechanic(SGD(1.0))
    run(agreeing, [[1.0, 1.0]] * 20)
    run(turning, [[1.0, 1.0], [-1.0, -1.0]] * 10)
    assert agreeing.scale > 100 * 1e-6 > 20 * turning.scale


def test_the_inner_optimizer_clips():
    inner = SGD(1.0, clipnorm=0.1), SGD(1.0)
    weights = [run(Mechanic(each, s_init=0.1), [[3.0, 4.0]]) for each in inner]
    np.testing.assert_allclose(weights[0], np.array([1.0, -1.0]) - 0.1 * 0.1 * np.array([0.6, 0.8]), rtol=1e-5)
    np.testing.assert_allclose(weights[1], np.array([1.0, -1.0]) - 0.1 * np.array([3.0, 4.0]), rtol=1e-5)


def test_a_skipped_update_changes_nothing():
    gradients = np.random.default_rng(0).normal(size=(6, 2))
    bad = np.insert(gradients, 3, [0.0, np.nan], axis=0)
    skipping, plain = Mechanic(AdamW(1.0, nonfinite="skip"), s_init=1e-3), Mechanic(AdamW(1.0), s_init=1e-3)
    np.testing.assert_array_equal(run(skipping, bad), run(plain, gradients))
    assert skipping.scale == plain.scale


def test_a_variable_without_a_gradient_stays():
    optimizer, w, v = Mechanic(SGD(1.0), s_init=0.1), keras.Variable([1.0]), keras.Variable([1.0])
    optimizer.apply([ops.ones(1), ops.ones(1)], [w, v])
    before = number(v)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.apply([ops.ones(1), None], [w, v])
    np.testing.assert_array_equal(number(v), before)
    assert number(w)[0] < before[0]


def test_master_weights():
    """The float32 copy moves by steps that are too small for bfloat16."""
    optimizer = Mechanic(AdamW(1.0, master_weights=True, weight_decay=None), s_init=1e-5)
    run(optimizer, [[1.0, -1.0]] * 3, dtype="bfloat16")
    master = number(optimizer.inner_optimizer._states[0]["master"])
    np.testing.assert_allclose(master - [1.0, -1.0], number(optimizer._states[0]["travelled"]), atol=1e-6)
    assert np.all(master != [1.0, -1.0])


def test_config_and_saving(tmp_path):
    optimizer = Mechanic(SGD(1.0), s_decay=0.1, s_init=1e-3, num_betas=4, epsilon=1e-9)
    assert Mechanic.from_config(optimizer.get_config()).get_config() == optimizer.get_config()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer, "mse", run_eagerly=keras.backend.backend() != "jax")
    x, y = np.random.default_rng(0).normal(size=(16, 2)), np.ones((16, 1))
    losses = model.fit(x, y, batch_size=4, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.scale == model.optimizer.scale > 0


@pytest.mark.parametrize("inner", [ScheduleFreeSGD(), SGD(lazy_embeddings=True)])
def test_refuses(inner):
    with pytest.raises(ValueError, match=r"averages no weights|leave `lazy_embeddings` out"):
        Mechanic(inner)
    with pytest.raises(ValueError, match="gradient_accumulation_steps=4"):
        get("mechanic", gradient_accumulation_steps=4)


def test_several_replicas_are_refused(monkeypatch):
    optimizer, w = Mechanic(SGD(0.1)), keras.Variable([1.0])
    optimizer.build([w])
    monkeypatch.setattr(backends, "replicas", lambda: 2)
    with pytest.raises(ValueError, match="Mechanic works with one replica"):
        optimizer.apply([ops.ones(1)], [w])

"""Grokfast: what reaches the inner optimizer, and when the filter moves."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched._core import backends
from keras_lrsched.optimizers import SGD, AdamW, Grokfast, get
from tests.contract.backends import BACKEND

RNG = np.random.default_rng(0)
GRADIENTS = RNG.normal(size=(6, 3)).astype("float32")


def run(optimizer, gradients=GRADIENTS, dtype="float32"):
    w, history = keras.Variable(np.zeros(3), dtype=dtype, name="w"), []
    for g in gradients:
        optimizer.apply([ops.convert_to_tensor(g, dtype)], [w])
        history.append(np.array(ops.convert_to_numpy(ops.cast(w, "float32"))))
    return history


def filtered(gradients, alpha=0.98, lamb=2.0):
    e, result = gradients[0], []
    for t, g in enumerate(gradients):
        e = alpha * e + (1 - alpha) * g if t else g
        result.append(g + lamb * e)
    return result


@pytest.mark.parametrize("kind", [SGD, keras.optimizers.SGD])
def test_clips_filtered_gradients(kind):
    mine = run(Grokfast(kind(0.1, clipnorm=0.5), alpha=0.9))
    clipped = [g * min(1, 0.5 / np.linalg.norm(g)) for g in filtered(GRADIENTS, alpha=0.9)]
    np.testing.assert_allclose(mine, -0.1 * np.cumsum(clipped, axis=0), rtol=1e-5)


def test_a_skipped_update_leaves_the_filter():
    bad = np.insert(GRADIENTS, 3, [0.0, np.nan, 1.0], axis=0)
    skipping = run(Grokfast(SGD(0.1, nonfinite="skip")), bad)
    np.testing.assert_array_equal(np.delete(skipping, 3, axis=0), run(Grokfast(SGD(0.1))))


def test_window():
    """Nothing is added until there are as many gradients as in the window."""
    mine = run(Grokfast(SGD(1.0), window=4, lamb=3.0))
    means = [GRADIENTS[t - 3 : t + 1].mean(axis=0) if t >= 3 else 0.0 for t in range(6)]
    expected = GRADIENTS + 3.0 * np.array([mean * np.ones(3) for mean in means])
    np.testing.assert_allclose(mine, -np.cumsum(expected, axis=0), rtol=1e-5)


def test_window_has_as_many_gradients():
    optimizer = Grokfast(SGD(1.0), window=4)
    optimizer.build([keras.Variable(np.zeros((4, 2)), dtype="float32")])
    assert optimizer.state_bytes_per_parameter() == 16
    assert Grokfast.from_config(optimizer.get_config()).window == 4


def test_filter_is_float32_for_bfloat16():
    optimizer = Grokfast(AdamW(0.1, master_weights=True))
    run(optimizer, dtype="bfloat16")
    assert {v.dtype for v in optimizer._states[0].values()} == {"float32"}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has IndexedSlices, and finds the end of data so")
def test_sparse_gradients_and_the_end_of_the_data():
    import tensorflow as tf

    rows, indices = ops.convert_to_tensor(GRADIENTS[:3, :2]), tf.constant([4, 1, 4])
    gradient = tf.IndexedSlices(rows, indices, tf.constant([6, 2]))
    tables = [keras.Variable(np.ones((6, 2)), dtype="float32", name="table") for _ in range(2)]
    sparse, dense = Grokfast(SGD(0.1)), Grokfast(SGD(0.1))
    sparse.build(tables[:1])
    step = tf.function(lambda iterator: sparse.apply([tf.IndexedSlices(next(iterator), indices, gradient.dense_shape)]))
    data = iter(tf.data.Dataset.from_tensors(rows).repeat(3))
    for _ in range(3):
        step(data)
        dense.apply([tf.convert_to_tensor(gradient)], tables[1:])
    for end in (False, True):
        if end:
            with pytest.raises(tf.errors.OutOfRangeError):
                step(data)
        np.testing.assert_allclose(*map(ops.convert_to_numpy, tables), rtol=1e-6)
        states = [ops.convert_to_numpy(each._states[0]["average"]) for each in (sparse, dense)]
        np.testing.assert_allclose(*states, rtol=1e-6)


def test_saved_model_goes_on_training(tmp_path):
    def update(model, gradients):
        shapes = [v.shape for v in model.trainable_variables]
        model.optimizer.apply(
            [ops.convert_to_tensor(np.resize(g, shape)) for g, shape in zip(gradients, shapes, strict=False)]
        )

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(Grokfast(AdamW(0.1), window=2), "mse")
    model.optimizer.build(model.trainable_variables)
    for t in range(3):
        update(model, GRADIENTS[t : t + 2])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, again):
        update(each, GRADIENTS[3:5])
    for mine, yours in zip(model.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(yours))


def test_refuses_what_it_cannot_filter():
    with pytest.raises(ValueError, match=r"leave `lazy_embeddings` out. Received: lazy_embeddings=True"):
        Grokfast(AdamW(0.1, lazy_embeddings=True))
    with pytest.raises(ValueError, match="gradient_accumulation_steps=4"):
        get("grokfast", gradient_accumulation_steps=4)


def test_several_replicas_are_refused(monkeypatch):
    optimizer, w = Grokfast(SGD(0.1)), keras.Variable([1.0])
    optimizer.build([w])
    monkeypatch.setattr(backends, "replicas", lambda: 2)
    with pytest.raises(ValueError, match="Grokfast works with one replica"):
        optimizer.apply([ops.ones(1)], [w])

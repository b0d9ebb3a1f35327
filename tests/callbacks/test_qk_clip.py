"""QK-clip: the largest logits of heads, and the weights that it scales."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.callbacks import QKClip
from keras_lrsched.optimizers import SGD
from tests.contract.optimizer_problem import MORE
from tests.nightly import nightly

LAYERS = keras.layers
GIVEN = MORE["qk_clip"]


def attention(kind=LAYERS.MultiHeadAttention, **options):
    keras.utils.set_random_seed(0)
    layer = kind(2, 3, name="attention", **options) if kind is LAYERS.MultiHeadAttention else kind(3, 2, 1, name="attention")
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, LAYERS.Dense(1)(layer(inputs, inputs, **({"use_causal_mask": True})))), layer


def fit(model, clip, batches=1, optimizer=None, x=None, **options):
    """Updates that leave weights as they are."""
    x = np.random.default_rng(1).normal(size=(2 * batches, 5, 4)).astype("float32") if x is None else x
    model.compile(optimizer or SGD(0.0), "mse")
    model.fit(x, np.ones((len(x), 5, 1)), batch_size=2, epochs=1, shuffle=False, verbose=0, callbacks=[clip], **options)
    return x


def kernels(layer):
    return [np.array(ops.convert_to_numpy(dense.kernel)) for dense in (layer._query_dense, layer._key_dense)]


def logits(layer, x):
    """The largest of each head, over positions that are not later."""
    query, key = (ops.convert_to_numpy(dense(x)) for dense in (layer._query_dense, layer._key_dense))
    key = np.repeat(key, query.shape[2] // key.shape[2], axis=2)
    each = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    return np.max(np.where(np.tril(np.ones((5, 5), bool)), each, 0), axis=(0, 2, 3))


@pytest.mark.parametrize("kind", [LAYERS.MultiHeadAttention, LAYERS.GroupQueryAttention])
def test_largest_logits_and_what_becomes_of_them(kind):
    model, layer = attention(kind)
    before, clip = kernels(layer), QKClip(threshold=0.2)
    count = len(model.weights)
    x = np.random.default_rng(1).normal(size=(2, 5, 4)).astype("float32")
    expected = logits(layer, x)
    fit(model, clip, x=x)
    np.testing.assert_allclose(clip.max_logits["attention"], expected, rtol=1e-5)
    gamma = np.minimum(1, 0.2 / expected)
    assert clip.clipped == np.sum(gamma < 1) > 0
    powers = (1.0, 0.0) if kind is LAYERS.GroupQueryAttention else (0.5, 0.5)
    for old, new, power in zip(before, kernels(layer), powers, strict=True):
        factors = gamma[:, None] ** power if power else 1.0
        np.testing.assert_allclose(new, old * factors, rtol=1e-5)
    np.testing.assert_allclose(logits(layer, x), np.minimum(expected, 0.2), rtol=1e-4)  # biases are zero
    assert len(model.weights) == count


def test_numbers_of_the_specification():
    """Whole kernels of two heads, and keys that heads share."""
    _, layer = attention()
    layer._query_dense.kernel.assign(GIVEN["q"])
    layer._key_dense.kernel.assign(GIVEN["k"])
    clip = QKClip(GIVEN["tau"], GIVEN["alpha"])
    clip._scale(layer, np.array(GIVEN["gamma"]))
    for new, name in zip(kernels(layer), ("q_after", "k_after"), strict=True):
        np.testing.assert_allclose(new, GIVEN[name], rtol=1e-6)


@nightly
def test_micro_batches_count_together_and_training_goes_on():
    """Largest logits are those of the whole update; a second `fit`, without the callback, has none."""
    model, layer = attention()
    x = np.random.default_rng(1).normal(size=(4, 5, 4)).astype("float32")
    expected, clip = logits(layer, x), QKClip()
    fit(model, clip, x=x, optimizer=SGD(0.0, gradient_accumulation_steps=2))
    np.testing.assert_allclose(clip.max_logits["attention"], expected, rtol=1e-5)
    assert clip.clipped == 0
    model.fit(x, np.ones((4, 5, 1)), batch_size=2, verbose=0)
    again = QKClip(threshold=1e-3)
    fit(model, again, x=x)
    assert again.clipped >= 2  # both heads in the first update


@pytest.mark.parametrize("bad", [{"threshold": 0}, {"threshold": None}, {"alpha": 1.5}, {"alpha": "half"}])
def test_bad_arguments(bad):
    with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
        QKClip(**bad)


def test_models_that_it_is_not_for():
    model = keras.Sequential([keras.Input((5, 4)), LAYERS.Dense(1)], name="plain")
    with pytest.raises(ValueError, match=r"needs attention layers with heads\. Received: model=plain"):
        fit(model, QKClip())
    model, _ = attention()
    model.compile(SGD(0.0), "mse")
    model.steps_per_execution = 2
    with pytest.raises(ValueError, match="steps_per_execution=2"):
        model.fit(np.ones((4, 5, 4)), np.ones((4, 5, 1)), batch_size=2, verbose=0, callbacks=[QKClip()])


def test_after_an_error_it_begins_anew():
    model, layer = attention()
    count = len(model.weights)

    def fail(batch, logs):
        raise ZeroDivisionError

    model.compile(SGD(0.0), "mse")
    x, y = np.ones((4, 5, 4)), np.ones((4, 5, 1))
    with pytest.raises(ZeroDivisionError):
        model.fit(x, y, verbose=0, callbacks=[QKClip(), keras.callbacks.LambdaCallback(on_train_batch_end=fail)])
    clip = QKClip()
    model.fit(x, y, verbose=0, callbacks=[clip])
    np.testing.assert_allclose(clip.max_logits["attention"], logits(layer, x), rtol=1e-5)
    assert len(model.weights) == count

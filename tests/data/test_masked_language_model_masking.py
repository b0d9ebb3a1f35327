"""Masks: how many, of which kind, and that they depend on seed and step alone."""

import keras
import numpy as np
import pytest

from keras_lrsched.data import MaskedLanguageModelMasking
from keras_lrsched.data.masked_language_model_masking import masked
from keras_lrsched.schedules import MaskingRate

TOKENS = np.random.default_rng(0).integers(2, 1000, size=(50, 4000))
OPTIONS = {"mask_token": 1, "vocabulary_size": 1000, "special_tokens": [0]}


def test_eighty_ten_ten():
    inputs, targets, weights = masked(TOKENS, 0.3, 1, 1000, random=np.random.default_rng(1))
    chosen = weights == 1
    assert np.mean(chosen) == pytest.approx(0.3, abs=0.005)
    np.testing.assert_array_equal(targets, TOKENS)
    np.testing.assert_array_equal(inputs[~chosen], TOKENS[~chosen])
    is_mask, stays = inputs[chosen] == 1, inputs[chosen] == TOKENS[chosen]
    assert np.mean(is_mask) == pytest.approx(0.8 + 0.1 / 1000, abs=0.01)
    assert np.mean(stays) == pytest.approx(0.1 + 0.1 / 1000, abs=0.01)
    others = inputs[chosen][~is_mask & ~stays]
    assert others.mean() == pytest.approx(499.5, rel=0.02)
    assert others.min() < 20
    assert others.max() > 980


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_ends(rate):
    _, _, weights = masked(TOKENS, rate, 1, 1000, random=np.random.default_rng(1))
    assert np.all(weights == rate)


def test_rate_follows_the_schedule():
    batches = MaskedLanguageModelMasking(TOKENS, MaskingRate(4), batch_size=10, **OPTIONS)
    expected = [0.3, 0.2625, 0.225, 0.1875, 0.15]
    assert [batches.rate_of(t) for t in range(5)] == pytest.approx(expected, rel=1e-12)
    assert [np.mean(weights) for _, _, weights in batches] == pytest.approx(expected, abs=0.01)


def test_depends_on_seed_and_step_alone():
    def batches(seed=0):
        return MaskedLanguageModelMasking(TOKENS[:, :50], 0.3, batch_size=10, seed=seed, **OPTIONS)

    first = batches()
    last = first[4]
    for part, again in zip(batches()[4], last, strict=True):
        np.testing.assert_array_equal(part, again)
    assert not np.array_equal(batches(seed=1)[4][2], last[2])
    assert not np.array_equal(first[0][2], last[2])


def test_special_tokens_are_never_chosen():
    tokens = np.where(np.arange(100) < 50, TOKENS[:, :100], 0)
    batches = MaskedLanguageModelMasking(tokens, 1.0, batch_size=50, **OPTIONS)
    inputs, _, weights = batches[0]
    assert np.all(weights[:, :50] == 1)
    assert np.all(weights[:, 50:] == 0)
    assert np.all(inputs[:, 50:] == 0)


def test_trains_to_fill_in_what_is_masked():
    """Every sequence repeats one token, so that the others give away the masked one."""
    tokens = np.repeat(np.random.default_rng(0).integers(2, 8, size=(512, 1)), 6, axis=1).astype("int32")
    masking = {"mask_token": 1, "vocabulary_size": 8, "batch_size": 32}
    batches = MaskedLanguageModelMasking(tokens, MaskingRate(80), **masking)
    model = keras.Sequential(
        [
            keras.layers.Input((6,), dtype="int32"),
            keras.layers.Embedding(8, 8),
            keras.layers.Flatten(),
            keras.layers.Dense(6 * 8),
            keras.layers.Reshape((6, 8)),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    model.compile(keras.optimizers.Adam(0.02), loss)
    losses = model.fit(batches, epochs=5, verbose=0).history["loss"]
    assert losses[0] > 1
    assert losses[-1] < 0.3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": TOKENS * 1.0}, "must be integers. Received: tokens of dtype float"),
        ({"masking_rate": "often"}, "Received: masking_rate='often'"),
        ({"mask_token": -1}, "Received: mask_token=-1"),
        ({"vocabulary_size": 0}, "Received: vocabulary_size=0"),
        ({"special_tokens": 3}, "Received: special_tokens=3"),
    ],
)
def test_bad_arguments(changed, message):
    with pytest.raises(ValueError, match=message):
        MaskedLanguageModelMasking(**{"tokens": TOKENS, "masking_rate": 0.3, **OPTIONS, **changed})


def test_rate_above_one():
    with pytest.raises(ValueError, match=r"Received: masking_rate=1.5"):
        MaskedLanguageModelMasking(TOKENS, 1.5, **OPTIONS)[0]


def test_other_forms_have_the_same_masks():
    pytest.importorskip("tensorflow")
    batches = MaskedLanguageModelMasking(TOKENS[:10], 0.3, batch_size=5, **OPTIONS)
    planned = [batches.peek(i) for i in range(4)]
    data = batches.to_tf_dataset()
    read = [batch for _ in range(2) for batch in data]
    for one, other in zip(planned, read, strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, one, tuple(np.asarray(array) for array in other))

"""The averages of short series, by hand."""

import numpy as np
import pytest

from keras_lrsched.callbacks._averaging_rules import (
    RunningMean,
    cooldown_coefficients,
    exponential,
    merge_coefficients,
    rule,
    with_defaults,
)
from keras_lrsched.schedules import profiles

SERIES = [1, 2, 4, 8, 16, 32, 64]
AVERAGES = [
    ("swa", {}, [1, 1.5, 7 / 3, 3.75, 6.2, 10.5, 127 / 7]),
    ("lawa", {"num_checkpoints": 3}, [1, 1.5, 7 / 3, 14 / 3, 28 / 3, 56 / 3, 112 / 3]),
    ("lawa", {"num_checkpoints": 1}, SERIES),
    ("ema", {"ema_momentum": 0.9}, [1, 1.1, 1.39, 2.051, 3.4459, 6.30131, 12.071179]),
    ("ema", {"ema_momentum": 0.9, "ema_start": "ramp"}, [1, 20 / 11, 20 / 11 * 3 / 12 + 3]),
    ("wsm", {"num_checkpoints": 3, "cooldown": "linear"}, [1, 1.5, 7 / 3, 14 / 3, 28 / 3, 56 / 3, 112 / 3]),
    ("wsm", {"num_checkpoints": 3, "cooldown": {"name": "lowered_linear", "level": 0.9}}, [1, 1.45, 1 + 0.6 + 0.6]),
]


def averages(kind, options, series, dtype="float32"):
    averager = rule(kind, with_defaults(kind, options))
    result = []
    for value in series:
        averager.add([np.full((2, 1), value, dtype)])
        result.append(averager.average()[0][1, 0])
    return result


@pytest.mark.parametrize(("kind", "options", "expected"), AVERAGES)
def test_averages(kind, options, expected):
    assert averages(kind, options, SERIES)[: len(expected)] == pytest.approx(expected, rel=3e-7)


def test_debiased_is_a_weighted_mean():
    weights = 0.9 ** np.arange(7)[::-1]
    expected = np.sum(weights * SERIES) / np.sum(weights)
    assert averages("ema", {"ema_momentum": 0.9, "ema_start": "debiased"}, SERIES)[-1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("cooldown", "points", "expected"),
    [
        ("linear", "i/(k+1)", [0.2, 0.2, 0.2, 0.2, 0.2]),
        ("linear", "i/k", [0.25, 0.25, 0.25, 0.25, 0]),
        ("linear", "(i-1)/k", [0, 0.25, 0.25, 0.25, 0.25]),
        ("cosine", "i/(k+1)", [0.09549150281, 0.25, 0.3090169944, 0.25, 0.09549150281]),
        ("one_minus_sqrt", "i/(k+1)", [0.4472135955, 0.1852419365, 0.1421411372, 0.1198305218, 0.105572809]),
    ],
)
def test_merge_of_five_checkpoints(cooldown, points, expected):
    i = np.arange(1, 5)
    profile = profiles.get(cooldown)
    u = {"i/(k+1)": i / 5, "i/k": i / 4, "(i-1)/k": (i - 1) / 4}[points]
    np.testing.assert_allclose(merge_coefficients(profile(u)), expected, atol=1e-10)
    if points == "i/(k+1)":
        np.testing.assert_allclose(cooldown_coefficients(cooldown)(5), expected, atol=1e-10)


def test_gradient_weights_of_five_checkpoints():
    i = np.arange(1, 5) / 5
    np.testing.assert_allclose(profiles.linear(i), [0.8, 0.6, 0.4, 0.2], rtol=1e-12)
    np.testing.assert_allclose(profiles.one_minus_sqrt(i), [0.5527864045, 0.367544468, 0.2254033308, 0.105572809], rtol=1e-9)
    np.testing.assert_allclose(profiles.cosine(i), [0.904508497, 0.654508497, 0.345491503, 0.095491503], rtol=1e-8)


@pytest.mark.parametrize("cooldown", ["linear", "cosine", "one_minus_sqrt", "mirror_cosine", "square", "rex"])
def test_merge_is_scaled_gradients(cooldown):
    random, k, rate = np.random.default_rng(0), 9, 0.1
    gradients = random.normal(size=(k, 4))
    checkpoints = random.normal(size=4) - rate * np.concatenate([np.zeros((1, 4)), np.cumsum(gradients, axis=0)])
    averager = rule("wsm", {"num_checkpoints": k + 1, "cooldown": cooldown})
    for checkpoint in [checkpoints[0] + 7, *checkpoints]:  # one more, which the window has to forget
        averager.add([checkpoint])
    scale = profiles.get(cooldown)(np.arange(1, k + 1) / (k + 1))
    np.testing.assert_allclose(averager.average()[0], checkpoints[0] - rate * scale @ gradients, rtol=0, atol=1e-15)


def test_is_float32_for_narrow_weights():
    import ml_dtypes

    for kind in ("ema", "swa", "lawa", "wsm"):
        value = averages(kind, {}, [1, 1.0078125], ml_dtypes.bfloat16)[-1]
        assert value.dtype == "float32"
        assert 1 < value < 1.0078125


def test_wide_weights_stay_wide():
    assert averages("swa", {}, [1, 1 + 1e-12], "float64")[-1] - 1 == pytest.approx(5e-13, rel=1e-3)


def test_does_not_follow_the_weights():
    weights = np.ones(2, "float32")
    for averager in (RunningMean(exponential(0.5, "first")), rule("lawa", {"num_checkpoints": 2})):
        averager.add([weights])
        state = averager.state()
        averager.add([weights + 4])
        np.testing.assert_array_equal(averager.average()[0], 3)
        averager.restore_state(state)
        np.testing.assert_array_equal(averager.average()[0], 1)
        weights += 0.0

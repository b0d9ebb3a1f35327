"""Scaling rules: the numbers of specs 2, 9 and 16."""

import math

import numpy as np
import pytest

from keras_lrsched.laws.scaling import (
    adamw_as_ema,
    beta_2_for_batch_size,
    half_life,
    linear_scaling,
    mup_initialization_std,
    mup_learning_rate,
    mup_weight_decay,
    square_root_scaling,
    step_law,
    surge_scaling,
    surge_scaling_sgd,
    token_horizon_ratio,
    token_horizon_scaling,
)
from keras_lrsched.schedules import LinearDecay


def printed(number):
    """Equal to the six digits that were printed."""
    return pytest.approx(number, rel=1e-6)


def test_linear_scaling():
    assert linear_scaling(0.1, 8192, 256) == printed(3.2)
    assert linear_scaling(0.1, 128, 256) == printed(0.05)


def test_square_root_scaling():
    assert square_root_scaling(4e-4, 2048, 1024) == pytest.approx(5.65685e-4, rel=1e-5)
    assert square_root_scaling(4e-4, 4096, 1024) == printed(8e-4)


@pytest.mark.parametrize(
    ("batch", "expected"), [(64, 4.70588e-4), (256, 8e-4), (1024, 1e-3), (4096, 8e-4), (16_384, 4.70588e-4)]
)
def test_surge_scaling(batch, expected):
    rate = surge_scaling(1e-3, batch, 1024)
    assert rate == pytest.approx(expected, rel=1e-6)
    assert rate == pytest.approx(1e-3 / (0.5 * (math.sqrt(1024 / batch) + math.sqrt(batch / 1024))), rel=1e-12)


def test_surge_scaling_far_below_its_peak():
    assert surge_scaling(1e-3, 1, 2**20) == pytest.approx(2e-3 * 2**-10, rel=1e-5)
    assert surge_scaling_sgd(1e-3, 64, 1024) == pytest.approx(5.88235e-5, rel=1e-6)
    assert surge_scaling_sgd(1e-3, 1024, 1024) == printed(5e-4)


def test_token_horizon():
    assert token_horizon_ratio(100e9, 25e9) == printed(0.641713)
    assert token_horizon_ratio(1e12, 25e9) == printed(0.307143)
    assert token_horizon_ratio(4096, 480, beta=0.0) == 1
    assert token_horizon_scaling(3e-4, 25e9, 100e9, beta=0.5) == printed(6e-4)


def test_step_law():
    law = step_law(7e9, 1.4e12)
    assert law.learning_rate == printed(9.16557e-4)
    assert law.batch_tokens == printed(4_998_818)  # forty digits say 4998815.43
    assert round(law.batch_tokens / 2048) == 2441
    law = step_law(1e9, 1e11)
    assert law.learning_rate == pytest.approx(1.6325e-3, rel=1e-6)
    assert law.batch_tokens == pytest.approx(1_107_710, rel=1e-5)


def test_step_law_with_fitted_constants():
    """The published numbers are of constants with more digits than were published: they agree to a part in a thousand."""
    law = step_law(7e9, 1.4e12, constants="fitted")
    assert law.learning_rate == pytest.approx(9.3468e-4, rel=2e-3)
    assert law.batch_tokens == pytest.approx(4_996_961, rel=2e-3)


def test_half_life():
    assert half_life(0.95) == pytest.approx(13.5134, rel=1e-5)
    assert half_life(0.5) == 1
    assert half_life(beta_2_for_batch_size(0.95, 64, 512)) == pytest.approx(8 * half_life(0.95), rel=1e-9)


@pytest.mark.parametrize(
    ("batch", "base", "expected"), [(1, 512, 0.9999), (64, 512, 0.993609), (4096, 480, 0.645518), (512, 512, 0.95)]
)
def test_beta_2_for_batch_size(batch, base, expected):
    assert beta_2_for_batch_size(0.95, batch, base) == pytest.approx(expected, rel=1e-6)


def test_mup():
    assert mup_learning_rate(0.01, width=1024, base_width=256) == printed(0.0025)
    assert mup_initialization_std(0.02, width=1024, base_width=256) == printed(0.01)
    assert mup_weight_decay(0.1, width=1024, base_width=256) == printed(0.4)
    assert mup_weight_decay(0, width=1024, base_width=256) == 0
    before, after = 0.01 * 0.1, mup_learning_rate(0.01, 999, 128) * mup_weight_decay(0.1, 999, 128)
    assert after == pytest.approx(before, rel=1e-12)


def test_adamw_as_ema():
    coefficients, residual = adamw_as_ema([0.1] * 4, 1.0)
    np.testing.assert_allclose(coefficients, [0.0729, 0.081, 0.09, 0.1], rtol=1e-9)
    assert residual == pytest.approx(0.6561)
    coefficients, residual = adamw_as_ema(np.array([1, 0.75, 0.5, 0.25]), 0.1)
    np.testing.assert_allclose(coefficients, [0.0856781, 0.0694687, 0.04875, 0.025], rtol=1e-6)
    assert residual == printed(0.771103)


def test_adamw_as_ema_is_adamw():
    rng = np.random.default_rng(0)
    rates, updates, decay = LinearDecay(0.3, 50).values(50), rng.normal(size=50), 0.7
    weight = initial = 2.5
    for rate, update in zip(rates, updates, strict=True):
        weight = (1 - rate * decay) * weight + rate * update
    coefficients, residual = adamw_as_ema(rates, decay)
    assert weight == pytest.approx(residual * initial + coefficients @ updates / decay, rel=1e-12)
    assert coefficients.sum() + residual == pytest.approx(1, rel=1e-12)


GOOD = {
    linear_scaling: (0.1, 512, 256),
    square_root_scaling: (0.1, 512, 256),
    surge_scaling: (0.1, 512, 256),
    surge_scaling_sgd: (0.1, 512, 256),
    token_horizon_ratio: (1e9, 1e8),
    token_horizon_scaling: (0.1, 1e9, 1e8),
    step_law: (1e9, 1e11),
    half_life: (0.9,),
    beta_2_for_batch_size: (0.95, 64, 512),
    mup_learning_rate: (0.1, 512, 256),
    mup_initialization_std: (0.1, 512, 256),
    mup_weight_decay: (0.1, 512, 256),
    adamw_as_ema: ([0.1, 0.2], 0.5),
}


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, "many", None, True])
@pytest.mark.parametrize("function", GOOD, ids=lambda function: function.__name__)
def test_bad_input(function, bad):
    good = GOOD[function]
    for position in range(len(good)):
        with pytest.raises(ValueError, match="Received: ") as error:
            function(*good[:position], bad, *good[position + 1 :])
        assert repr(bad) in str(error.value)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (half_life, (1,)),
        (half_life, (0,)),
        (beta_2_for_batch_size, (1.0, 64, 512)),
        (token_horizon_ratio, (1e9, 1e8, -0.1)),
        (step_law, (1e9, 1e11, "exact")),
        (linear_scaling, (0.1, 512, 0)),
        (adamw_as_ema, ([], 0.1)),
        (adamw_as_ema, ([0.1, 11.0], 0.1)),
        (adamw_as_ema, ([0.1, math.nan], 0.1)),
    ],
)
def test_bad_range(function, arguments):
    with pytest.raises(ValueError, match="Received: "):
        function(*arguments)

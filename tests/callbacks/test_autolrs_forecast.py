"""The forecast against the numbers of the official functions."""

import numpy as np
import pytest

from keras_lrsched.callbacks._autolrs import exponential, forecast, kept, spline

T = np.arange(100)
CLEAN = 2 * np.exp(-0.01 * T) + 0.5
WAVY = CLEAN + 0.05 * np.sin(7 * T)
SPIKES = WAVY + 3 * (T == 10) + 2 * (T == 30)

OFFICIAL = [
    (CLEAN, 2.0916626, -0.0090402332, 0.38435581, 0.3846037599),
    (WAVY, 1.9634753, -0.010587533, 0.55767347, 0.5577230083),
    (SPIKES, 1.9633814, -0.010559612, 0.55587571, 0.5559266474),
    (2 * np.exp(-0.03 * T) + 0.5, 1.7600944, -0.02079865, 0.34742419, 0.3474241951),
]


@pytest.mark.parametrize(("series", "a", "b", "c", "expected"), OFFICIAL)
def test_official_fits(series, a, b, c, expected):
    np.testing.assert_allclose(exponential(spline(series, kept(series, 10))), (a, b, c), rtol=3e-7)
    assert forecast(series, 1000) == pytest.approx(expected, rel=1e-9)


def test_rising_losses():
    assert forecast(0.5 + 0.001 * T, 1000) == pytest.approx(1.4999997, rel=1e-6)  # a line: a and c grow without bounds


def test_outliers_of_the_first_half_are_dropped():
    assert sorted({*T.tolist()} - {*kept(SPIKES, 10).tolist()}) == [6, 7, 10, 15, 16, 24, 30, 33]


def test_official_fit_of_validation_losses():
    t = np.arange(16)
    series = 1.2 * np.exp(-0.1 * t) + 0.8 + 0.01 * np.sin(5 * t)
    assert kept(series, 1).tolist() == list(range(1, 16))
    np.testing.assert_allclose(
        exponential(spline(series, kept(series, 1))), (1.2260514, -0.091280298, 0.75243321), rtol=3e-7
    )
    assert forecast(series, 160, passes=1) == pytest.approx(0.7524337682, rel=1e-9)


@pytest.mark.parametrize("series", [[1.0, 2.0, np.nan, 1.0, 1.0], [1.0, np.inf, 1.0, 1.0], [1.0, 2.0, 3.0], []])
def test_no_fit(series):
    assert np.isnan(forecast(series, 10))


@pytest.mark.parametrize("series", [np.ones(50), 1e30 * (-1.0) ** T, np.exp(0.5 * T), 1e-30 * CLEAN])
def test_odd_series_do_not_crash(series):
    assert isinstance(forecast(series, 1000), float)

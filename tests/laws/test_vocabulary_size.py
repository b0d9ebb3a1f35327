"""The best vocabulary size: the official code's predictions."""

import numpy as np
import pytest

from keras_lrsched.laws import tokens_per_character, vocabulary_size
from keras_lrsched.laws.vocabulary_size import cheapest_vocabulary


@pytest.mark.parametrize(
    ("parameters", "width", "expected"),
    [
        (33e6, 512, (5754, 6144, 4662)),
        (302e6, 1024, (18183, 19527, 15758)),
        (2.87e9, 3200, (37942, 40993, 35271)),
        (7e9, 4096, (62280, 67450, 59547)),
        (13e9, 5120, (83429, 90503, 81347)),
        (70e9, 8192, (211860, 230861, 217961)),
        (300e9, 16384, (355894, 389324, 383659)),
    ],
)
def test_official_predictions(parameters, width, expected):
    """Within one token: both cut off the fraction, of constants with more and with fewer digits."""
    assert vocabulary_size(parameters, width) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("factor", "expected"), [(0.2, 10432232), (0.5, 13368934), (2, 19489423), (5, 25040045)])
def test_other_compute(factor, expected):
    best = (302e6 * np.exp(2.48465)) ** 2
    assert vocabulary_size(302e6, 1024, compute=factor * best).parametric == pytest.approx(expected / 1024, abs=1.1)


def test_more_compute_needs_a_larger_vocabulary():
    small, large = (vocabulary_size(1e9, 2048, compute=compute) for compute in (1e20, 1e21))
    assert large.isoflop > small.isoflop
    assert large.parametric > small.parametric
    assert large.derivative == small.derivative


@pytest.mark.parametrize(
    ("parameters", "width", "expected"),
    [
        (33e6, 512, 10322),
        (85e6, 768, 15939),
        (151e6, 768, 24593),
        (302e6, 1024, 32776),
        (631e6, 1536, 40941),
        (1130e6, 2048, 49416),
        (2870e6, 3200, 65928),
    ],
)
def test_fewest_operations(parameters, width, expected):
    assert int(cheapest_vocabulary(parameters, width)) == expected


def test_the_power_of_the_derivative_estimator():
    """The slope of a line in logarithms through the seven sizes, from the smallest one, with an absolute error."""
    sizes = np.array([33e6, 85e6, 151e6, 302e6, 631e6, 1130e6, 2870e6])
    widths = np.array([512, 768, 768, 1024, 1536, 2048, 3200])
    solutions = widths * [cheapest_vocabulary(*pair) for pair in zip(sizes, widths, strict=True)]
    x, y = np.log(sizes[1:] / sizes[0]), np.log(solutions[1:] / solutions[0])
    slopes = np.linspace(0.8, 0.9, 100_001)
    best = slopes[np.argmin(np.abs(y - slopes[:, None] * x).sum(axis=1))]
    assert best == pytest.approx(0.8353974, abs=2e-3)


def test_tokens_per_character():
    sizes = [4096, 16384, 32768, 65536, 131072, 200_000, 300_000]
    expected = [0.331820709, 0.272333142, 0.251802842, 0.237414866, 0.229169212, 0.227156064, 0.227156064]
    assert tokens_per_character(np.array(sizes)) == pytest.approx(expected, rel=2e-8)


@pytest.mark.parametrize("bad", [{"parameters": 0}, {"width": -1}, {"compute": 0}, {"parameters": np.nan}])
def test_bad_input(bad):
    with pytest.raises(ValueError, match="Received: "):
        vocabulary_size(**({"parameters": 1e9, "width": 2048} | bad))

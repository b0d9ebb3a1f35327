import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import _exact
from tests.precision.vectors import assert_same_bits


@pytest.fixture
def pairs():
    """Numbers of all sizes, each sign, with subnormal ones, zeros, infinity and NaN."""
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype="uint32")
    x = bits.view("float32")
    x[:8] = 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1.1754942e-38, 3.4028235e38
    return x, np.roll(x, 3)


@pytest.mark.parametrize("power", [-276, -150, -24, -1, 0, 1, 60, 149, 276])
def test_ldexp_is_that_of_c(power, pairs, run):
    x, _ = pairs
    with np.errstate(over="ignore"):
        expected = np.ldexp(x.astype("float64"), power).astype("float32")
    assert_same_bits(run(lambda x: _exact.ldexp(x, power), x), expected)


def test_lifted_numbers_are_lowered_to_what_they_were(pairs, run):
    x, _ = pairs
    x = x[np.abs(x) < 2.0**-22]
    lifted, again, kept = run(
        lambda x: (_exact.lifted(x, x == x), _exact.lowered(_exact.lifted(x, x == x), x == x), _exact.lifted(x, x != x)), x
    )
    assert_same_bits(lifted, np.ldexp(x.astype("float64"), 64).astype("float32"))
    assert_same_bits(again, x)
    normal = np.abs(x) >= 2.0**-126
    assert_same_bits(kept[normal], x[normal])
    assert not kept[~normal].any()


def test_lowered_products_are_rounded_to_even_below_the_normal_numbers(run):
    units = np.array([0.5, 1.5, 2.5, 3.25, 2.0**23 - 0.5, 2.0**23, 2.0**24 + 2], "float32")
    x = np.concatenate([units, -units]) * np.float32(2.0**-85)
    expected = (np.rint(np.concatenate([units, -units])).astype("float64") * 2.0**-149).astype("float32")
    assert_same_bits(run(lambda x: _exact.lowered(x, x == x), x), expected)
    assert_same_bits(run(lambda x: _exact.lowered(x, x != x), x), x)


def test_lowered_infinity_and_nan_are_what_they_were(run):
    x = np.array([np.inf, -np.inf, np.nan], "float32")
    assert_same_bits(run(lambda x: _exact.lowered(x, ops.ones_like(x, "bool")), x), x)


def test_reciprocals_are_rounded_correctly(run):
    x = np.random.default_rng(1).uniform(1, 2, 20_000).astype("float32")
    assert_same_bits(run(lambda x: _exact.quotient(_exact.float32(1.0), x), x), np.float32(1) / x)


def test_quotients_of_rows_are_rounded_correctly(run_in_every_mode):
    """XLA would multiply a row with the reciprocal of its divisor."""
    random = np.random.default_rng(2)
    x, y = random.uniform(1, 2, (100, 200)).astype("float32"), random.uniform(1, 2, (100, 1)).astype("float32")
    assert_same_bits(run_in_every_mode(_exact.quotient, x, y), x / y)

import numpy as np
import pytest

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


@pytest.mark.parametrize("name", ["multiply", "divide"])
def test_products_and_quotients_are_those_of_ieee(name, pairs, run):
    x, y = pairs
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x, y)
    result = run(getattr(_exact, name), x, y)
    normal = ~(np.abs(expected) < 2.0**-126)
    assert_same_bits(result[normal], expected[normal])
    steps = np.abs(result[~normal].view("int32").astype("int64") - expected[~normal].view("int32"))
    assert steps.max() <= 1  # a subnormal result is rounded twice


def test_reciprocals_are_rounded_correctly(run):
    x = np.random.default_rng(1).uniform(1, 2, 20_000).astype("float32")
    assert_same_bits(run(lambda x: _exact.divide(_exact.float32(1.0), x), x), np.float32(1) / x)


def test_quotients_of_rows_are_rounded_correctly(run_in_every_mode):
    """XLA would multiply a row with the reciprocal of its divisor."""
    random = np.random.default_rng(2)
    x, y = random.uniform(1, 2, (100, 200)).astype("float32"), random.uniform(1, 2, (100, 1)).astype("float32")
    assert_same_bits(run_in_every_mode(_exact.divide, x, y), x / y)

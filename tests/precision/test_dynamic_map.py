import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision._dynamic_map import dequantize_blockwise, dynamic_map, quantize_blockwise
from tests.precision.vectors import VECTORS, assert_same_bits, numbers


def both_ways(signed, block_size=256):
    """A function of a tensor that gives codes, scales, and what they stand for."""

    def function(x):
        codes, absmax = quantize_blockwise(x, signed, block_size)
        return codes, absmax, dequantize_blockwise(codes, absmax, signed, block_size)

    return function


def random_numbers(signed, size=20000):
    """Of all magnitudes down to 1e-9; one is 1, so that the scale is."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1 if signed else 0, 1, size) * 10.0 ** rng.uniform(-9, 0, size)
    return np.append(x, 1).astype("float32")


@pytest.mark.parametrize(("name", "signed"), [("signed_256", True), ("unsigned_256", False)])
def test_the_map_is_that_of_bitsandbytes(name, signed):
    assert_same_bits(dynamic_map(signed), numbers(VECTORS["bnb_dynamic_map"][name]))


def test_vectors(run):
    case = VECTORS["bnb_blockwise"]
    x = numbers(case["input"])
    codes, absmax, values = run(both_ways(True), x)
    assert codes.dtype == np.uint8
    assert_same_bits(absmax, numbers(case["absmax"]))
    assert_same_bits(values, numbers(case["deq"]) + 0.0)  # which has -0 in a block of zeros
    zeros = np.repeat(numbers(case["absmax"]) == 0, 256)[: len(x)]  # bitsandbytes has another code there, of the same 0
    np.testing.assert_array_equal(codes[~zeros], np.array(case["codes"])[~zeros])


@pytest.mark.parametrize("signed", [True, False])
def test_codes_are_the_nearest(signed, run):
    x = random_numbers(signed)
    codes, _, values = run(both_ways(signed, len(x)), x)
    exact = dynamic_map(signed).astype("float64")
    nearest = np.searchsorted((exact[1:] + exact[:-1]) / 2, x.astype("float64"))
    if not signed:
        nearest = np.maximum(nearest, x > 0)
    np.testing.assert_array_equal(codes, nearest)
    assert_same_bits(values, dynamic_map(signed)[nearest])


def test_every_code_comes_back(run):
    for signed in (True, False):
        codes, _, values = run(both_ways(signed), dynamic_map(signed))
        np.testing.assert_array_equal(codes, np.arange(256))
        assert_same_bits(values, dynamic_map(signed))


def test_a_second_moment_above_zero_does_not_become_zero(run):
    codes, _, _ = run(both_ways(False), np.array([1.0, 1e-9, 0.0], "float32"))
    assert codes.tolist() == [255, 1, 0]
    codes, _, _ = run(both_ways(True), np.array([1.0, 1e-9, -1e-9], "float32"))
    assert codes.tolist() == [255, 127, 127]


def test_shapes_and_tails(run):
    x = np.random.default_rng(0).standard_normal((7, 11, 5)).astype("float32")
    codes, absmax, values = run(both_ways(True, 100), x)
    assert (codes.shape, absmax.shape, values.shape) == (x.shape, (4,), x.shape)
    np.testing.assert_array_equal(absmax, [np.abs(x.ravel()[i : i + 100]).max() for i in range(0, 385, 100)])
    largest = np.repeat(absmax, 100)[:385].reshape(x.shape)
    assert np.all(np.abs(values - x) <= largest / 64 / 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_block(bad, run):
    x = np.ones(600, "float32")
    x[300] = bad
    _, _, values = run(both_ways(True), x)
    assert not np.isfinite(values[300])
    np.testing.assert_array_equal(values[:256], 1)
    np.testing.assert_array_equal(values[512:], 1)


def test_zeros_and_extremes(run):
    for size in (0.0, 3e-38, 1e-30, 8e37):
        _, _, values = run(both_ways(True), np.array([size, size / 2, 0.0], "float32"))
        np.testing.assert_allclose(values, [size, size / 2, 0], rtol=0.01)
    _, _, values = run(both_ways(True), np.array([3e38, 1.0], "float32"))
    assert not np.any(np.isfinite(values))
    assert ops.convert_to_numpy(dequantize_blockwise(ops.zeros((3,), "uint8"), ops.zeros(1), True)).tolist() == [0, 0, 0]

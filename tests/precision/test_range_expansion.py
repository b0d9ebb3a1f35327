import numpy as np
import pytest

from keras_lrsched.precision._range_expansion import dequantize_expanded, quantize_expanded
from tests.precision.vectors import VECTORS, numbers

CASES = VECTORS["coat_expand"]


def both_ways(group_size=128, compact=False):
    def function(x):
        codes, e = quantize_expanded(x, group_size, compact)
        return codes, e.scale, e.k, e.center, dequantize_expanded(codes, e, group_size)

    return function


def relative_error(values, x):
    return np.sqrt(np.sum((values - x) ** 2) / np.sum(x**2))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_vectors(case, run):
    x = numbers(case["input"])
    codes, scale, k, center, values = run(both_ways(), x)
    np.testing.assert_array_equal(codes, case["codes"])
    assert k.tolist() == [case["k"]]
    np.testing.assert_allclose(scale, [case["scale"]], rtol=1e-6)
    np.testing.assert_allclose(center, [case["center_sqrt_minmax"]], rtol=1e-6)
    np.testing.assert_allclose(values, numbers(case["deq"]), rtol=5e-6)
    assert relative_error(values, x) == pytest.approx(case["rel_rmse"], rel=1e-4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_five_bytes_a_group_are_as_good_as_twelve(case, run):
    x = numbers(case["input"])
    _, scale, k, center, values = run(both_ways(compact=True), x)
    for number in (scale, center):
        assert np.all(number.view("uint32") % 2**16 == 0)  # bfloat16
    np.testing.assert_allclose(center, [case["center_sqrt_minmax"]], rtol=2**-8)
    assert k.tolist() == [case["k"]]
    assert relative_error(values, x) < 1.01 * case["rel_rmse"]
    assert relative_error(values, x) < case["plain_e4m3_rel_rmse"]


def test_range_is_filled(run):
    """The largest number has the largest code, the smallest one that is not 0."""
    rng = np.random.default_rng(0)
    for spread in (0.01, 1, 10, 60):
        x = np.exp(rng.uniform(-spread, spread, 128)).astype("float32")
        for compact in (False, True):
            codes, _, k, _, values = run(both_ways(compact=compact), x)
            assert codes.max() == 0x7E
            assert codes.min() > 0
            # Half a step of bfloat16 in the scale, to the power 1 / k.
            np.testing.assert_allclose(values[x.argmax()], x.max(), rtol=2**-8 * max(1, 1 / k[0]))
            assert 1 / 16 <= k[0] <= 15
            assert float(k[0] * 16).is_integer()


def test_zeros_are_skipped(run):
    x = np.array([0.0, 1.0, -0.0, -2.0, 0.0], "float32")
    _, _, k, center, values = run(both_ways(), x)
    np.testing.assert_allclose(center, [2**0.5], rtol=1e-6)
    assert k.tolist() == [15]
    np.testing.assert_allclose(values, x, rtol=0.01)


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("value", [0.0, 3.0, -1e-30, 3e38])
def test_constant_groups(value, compact, run):
    _, _, _, _, values = run(both_ways(compact=compact), np.full(5, value, "float32"))
    np.testing.assert_allclose(values, value, rtol=0.005 if compact else 1e-6)


def test_numbers_that_compiled_code_flushes(run):
    _, _, _, _, values = run(both_ways(), np.array([1e-40, 1.0, -3e-39], "float32"))
    np.testing.assert_allclose(values, [0, 1, 0], atol=1e-7)
    _, _, _, _, values = run(both_ways(), np.array([1e-40, 1e-41], "float32"))
    assert values.tolist() == [0, 0]


def test_widest_range(run):
    x = np.array([2e-38, 1.0, 3e38], "float32")
    _, _, k, _, values = run(both_ways(), x)
    assert k.tolist() == [1 / 16]
    assert np.all(np.diff(values) > 0)
    np.testing.assert_allclose(values[2], x[2], rtol=0.005)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_group(bad, run):
    x = np.linspace(1, 2, 300).astype("float32")
    x[200] = bad
    _, _, _, _, values = run(both_ways(), x)
    assert np.all(np.isnan(values[128:256]))
    assert np.all(np.isfinite(values[:128]))
    assert np.all(np.isfinite(values[256:]))


def test_shapes_and_tails(run):
    x = np.random.default_rng(0).standard_normal((7, 11, 5)).astype("float32")
    codes, scale, _, _, values = run(both_ways(), x)
    assert (codes.shape, scale.shape, values.shape) == (x.shape, (4,), x.shape)
    assert codes.dtype == np.uint8
    assert relative_error(values, x) < 0.03

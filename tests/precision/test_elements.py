import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import elements

ml_dtypes = pytest.importorskip("ml_dtypes")

FLOATS = {
    elements.E4M3: "float8_e4m3fn",
    elements.E5M2: "float8_e5m2",
    elements.E2M3: "float6_e2m3fn",
    elements.E3M2: "float6_e3m2fn",
    elements.E2M1: "float4_e2m1fn",
}
INTEGERS = {elements.INT8: 1, elements.INT4: 1, elements.FIXED8: 64}


def to_numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("element", FLOATS, ids=str)
def test_every_code_decodes_as_in_ml_dtypes(element):
    codes = np.arange(2**element.bits, dtype="uint8")
    expected = codes.view(getattr(ml_dtypes, FLOATS[element])).astype("float32")
    values = to_numpy(element.decode(codes))
    np.testing.assert_array_equal(values, expected)
    assert (np.signbit(values) == np.signbit(expected))[~np.isnan(expected)].all()


@pytest.mark.parametrize("element", INTEGERS, ids=str)
def test_every_integer_decodes(element):
    codes = np.arange(2**element.bits)
    signed = np.where(codes < 2 ** (element.bits - 1), codes, codes - 2**element.bits)
    np.testing.assert_array_equal(to_numpy(element.decode(codes)), signed / INTEGERS[element])


@pytest.mark.parametrize("element", [*FLOATS, *INTEGERS], ids=str)
def test_every_finite_value_has_its_code(element):
    values = element.values()
    usable = np.abs(values) <= element.max  # without infinity, NaN, and the lowest integer, which is not used
    codes = to_numpy(element.encode(ops.convert_to_tensor(values)))
    np.testing.assert_array_equal(codes[usable], np.arange(len(values))[usable])


@pytest.mark.parametrize("element", FLOATS, ids=str)
def test_random_numbers_and_ties_are_rounded_as_in_ml_dtypes(element):
    dtype = getattr(ml_dtypes, FLOATS[element])
    grid = np.sort([element.magnitude(code) for code in range(element.max_code + 1)])
    ties = (grid[1:] + grid[:-1]) / 2
    rng = np.random.default_rng(0)
    x = np.concatenate([ties, np.nextafter(ties, 0), rng.standard_normal(50_000) * 2.0 ** rng.integers(-20, 10, 50_000)])
    x = np.concatenate([x, -x]).astype("float32")
    expected = np.clip(x, -element.max, element.max).astype(dtype).view("uint8")
    np.testing.assert_array_equal(to_numpy(element.encode(ops.convert_to_tensor(x))), expected)


@pytest.mark.parametrize("element", [*FLOATS, *INTEGERS], ids=str)
def test_what_is_too_large_becomes_the_largest(element):
    x = np.array([element.max * 1.001, 3.4e38, np.inf, -np.inf], "float32")
    values = to_numpy(element.decode(element.encode(ops.convert_to_tensor(x))))
    np.testing.assert_array_equal(values, [element.max] * 3 + [-element.max])


@pytest.mark.parametrize("element", [elements.E4M3, elements.E5M2], ids=str)
def test_nan_has_the_code_of_ml_dtypes(element):
    code = int(element.encode(ops.convert_to_tensor(np.array([np.nan], "float32")))[0])
    assert code == np.array(np.nan, getattr(ml_dtypes, FLOATS[element])).view("uint8")


def test_limits():
    table = {e.name: (e.max, e.max_exponent, e.top_gap) for e in (*FLOATS, *INTEGERS)}
    assert table == {
        "E4M3": (448, 8, 32),
        "E5M2": (57344, 15, 8192),
        "E2M3": (7.5, 2, 0.5),
        "E3M2": (28, 4, 4),
        "E2M1": (6, 2, 2),
        "INT8": (127, 6, 1),
        "INT4": (7, 2, 1),
        "FIXED8": (127 / 64, 0, 1 / 64),
    }

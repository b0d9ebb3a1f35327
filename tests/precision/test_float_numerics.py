"""The arithmetic of exports, without operations on bits, returns the bits of the models' arithmetic."""

import numpy as np
import pytest

from keras_lrsched.precision import _bit_numerics, _float_numerics, elements, formats
from keras_lrsched.precision._quantized import decode, encode
from tests.nightly import some
from tests.precision.vectors import assert_same_bits

ELEMENTS = [one for one in vars(elements).values() if isinstance(one, elements.Element)]
FORMATS = [
    formats.get_format(name, scale_rule=rule)
    for name, format in formats.FORMATS.items()
    for rule in formats.SCALE_RULES[format.scale]
]


def assert_same(values, expected):
    """The same bits, but for the sign of zeros, which no product or sum shows."""
    assert_same_bits(values + np.float32(0), expected + np.float32(0))


def fake_quantized(x, format, numerics):
    coded, blocks = encode(x, format, -1, "nearest", None, numerics)
    return blocks.join(decode(coded.codes, coded.scales, coded.tensor_scale, format, numerics))


def sizes():
    """Each power of two that is not flushed, its neighbors, and numbers between them."""
    random = np.random.default_rng(0)
    powers = 2.0 ** np.arange(-126, 128)
    between = powers * random.uniform(1, 2, (20, powers.size))
    x = np.concatenate([powers, np.nextafter(powers.astype("float32"), np.float32(0)), *between]).astype("float32")
    x = np.concatenate([x, np.nextafter(x, np.float32(np.inf))])
    return x[(x >= 2.0**-126) & np.isfinite(x)]


@pytest.mark.parametrize("element", ELEMENTS, ids=str)
def test_elements(element, run):
    grid = element.values()
    grid = np.sort(np.abs(grid[np.isfinite(grid)]))
    ties = (grid[1:] + grid[:-1]) / 2
    x = np.concatenate([[0, np.inf], grid, ties, np.nextafter(ties, 0), np.nextafter(ties, np.float32(np.inf)), sizes()])
    x = np.concatenate([x, -x]).astype("float32")
    both = run(lambda x: [each.decode(element, each.encode(element, x)) for each in (_bit_numerics, _float_numerics)], x)
    assert_same(*both)


def test_powers_of_two(run):
    x = sizes()
    for name in ("power_of_two_below", "next_power_of_two"):
        both = run(lambda x, name=name: [getattr(each, name)(x) for each in (_bit_numerics, _float_numerics)], x)
        assert_same(*both)


@pytest.mark.parametrize("format", some(FORMATS, len(FORMATS) // 2), ids=lambda format: f"{format.name}-{format.scale_rule}")
def test_formats(format, run):
    random = np.random.default_rng(1)
    # The largest numbers of rows are of all sizes from 2^-100 up; some are powers of two or at the end of a binade.
    x = random.standard_normal((254, 160)).astype("float32")
    x *= 2.0 ** random.integers(-12, 1, x.shape)
    exponents = np.arange(-100, 127)[:, None].astype("float32")
    x = x[: len(exponents)] / np.abs(x[: len(exponents)]).max(axis=1, keepdims=True)
    x[::4] *= 0.99999994
    x[1::4] *= random.uniform(0.5, 1, x[1::4].shape).astype("float32")
    x = (x * 2.0**exponents).astype("float32")
    not_finite = x[100:140].copy()
    not_finite[3, 5], not_finite[24, 150], not_finite[30] = np.nan, -np.inf, 0
    for rows in (x, x[100:140], not_finite):
        bits, floats = run(lambda x: [fake_quantized(x, format, each) for each in (_bit_numerics, _float_numerics)], rows)
        small = np.abs(bits) < 2.0**-126
        assert_same(floats[~small], bits[~small])
        assert np.abs(floats[small]).max(initial=0) < 2.0**-126

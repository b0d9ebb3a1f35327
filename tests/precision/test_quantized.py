import zlib

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import FORMATS, _bit_numerics, _float_numerics, dequantize, fake_quantize, get_format, quantize
from keras_lrsched.precision._blocks import unpack
from keras_lrsched.precision._quantized import decode, encode
from tests.nightly import nightly, some
from tests.precision.compiled import MODES, quickly, runner
from tests.precision.vectors import (
    MX_CASES,
    MX_NAMES,
    NVFP4_CASES,
    NVFP4_RESULTS,
    assert_same_bits,
    case_of,
    input_of,
    numbers,
)

to_numpy = ops.convert_to_numpy
pytestmark = pytest.mark.usefixtures("plain_and_compiled")

OF_EACH_KIND = ("FP8_E4M3", "MXFP4", "NVFP4_FOUR_OVER_SIX", "INT8_GROUP128")
"""One of each kind of scale."""


def results(format, **options):
    """A function of a tensor that gives what `quantize` stores, and the numbers that it stands for."""

    def function(x):
        q = quantize(x, format, **options)
        return q.codes, q.scales, dequantize(q)

    return function


@pytest.mark.parametrize(("name", "vector_format", "rule"), MX_CASES)
def test_mx_vectors(name, vector_format, rule):
    case = case_of("mx", name)
    expected = case["formats"][vector_format]
    _, scales, values = quickly(results(get_format(MX_NAMES[vector_format], scale_rule=rule)), input_of(case))
    assert scales.tolist() == expected[f"scales_{rule}"]
    wanted = numbers(expected[f"out_{rule}"])
    # An integer has no negative zero; the vectors come from float arithmetic, which has.
    assert_same_bits(values, wanted + 0.0 if vector_format == "int8" else wanted)


@pytest.mark.parametrize("vector_format", MX_NAMES)
def test_mx_vectors_compiled(vector_format, run):
    cases = [name for name, one, rule in MX_CASES if one == vector_format and rule == "floor"]
    blocks = [np.pad(input_of(case_of("mx", name)), (0, -case_of("mx", name)["n"] % 32)).reshape(-1, 32) for name in cases]
    _, scales, values = run(results(MX_NAMES[vector_format]), np.concatenate(blocks))
    start = 0
    for name, block in zip(cases, blocks, strict=True):
        expected = case_of("mx", name)["formats"][vector_format]
        rows = slice(start, start := start + len(block))
        assert scales[rows, 0].tolist() == expected["scales_floor"]
        wanted = numbers(expected["out_floor"])
        assert_same_bits(values[rows].ravel()[: len(wanted)], wanted + 0.0 if vector_format == "int8" else wanted)


@pytest.mark.parametrize(("name", "format"), NVFP4_CASES)
def test_nvfp4_vectors(name, format, run):
    case = case_of("nvfp4", name)
    _, scales, values = run(results(format), input_of(case).reshape(case["shape"]))
    assert_same_bits(values.ravel(), numbers(case[NVFP4_RESULTS[format]]))
    if format == "NVFP4":
        assert scales.ravel().tolist() == case["scales_e4m3_te"]
    if format == "NVFP4_2D":
        assert scales.ravel().tolist() == case["scales_te_2d"][:1]


def test_codes_are_those_of_the_values(run):
    x = np.random.default_rng(0).standard_normal((8, 256)).astype("float32")
    for name, format in FORMATS.items():
        codes, scales, values = run(results(name), x)
        units = np.take(format.element.values(), to_numpy(unpack(codes, format.element.bits)))[:8, :256]
        if format.scale == "e8m0":
            assert_same_bits(values, units * np.repeat(2.0 ** (scales.astype(int) - 127), 32, axis=1).astype("float32"))
        if format.scale == "float32" and format.rows == 1:
            full = scales if scales.ndim == 0 else np.repeat(scales, 256 // scales.shape[1], axis=1)
            assert_same_bits(values, units * full)


def test_e8m0_rules():
    x = np.zeros((6, 32), "float32")
    x[:, 0] = 4.0, 6.0, 7.0, 5.0, 7.9999995, 4.0000005
    bytes_of = {
        rule: to_numpy(quantize(x, get_format("MXFP4", scale_rule=rule)).scales)[:, 0].tolist()
        for rule in ("floor", "ceil", "rceil", "even")
    }
    assert bytes_of == {
        "floor": [127] * 6,
        "ceil": [127, 128, 128, 128, 128, 128],
        "rceil": [127, 127, 128, 127, 128, 127],
        "even": [127, 127, 128, 127, 128, 127],
    }


SQNR = {
    ("MXFP4", "floor"): 18.77,
    ("MXFP4", "rceil"): 18.73,
    ("MXFP6_E2M3", "floor"): 30.94,
    ("MXFP6_E2M3", "rceil"): 30.96,
    ("MXFP6_E3M2", "floor"): 25.35,
    ("MXFP6_E3M2", "rceil"): 25.53,
    ("MXFP8_E4M3", "floor"): 30.64,
    ("MXFP8_E4M3", "rceil"): 31.53,
    ("MXFP8_E5M2", "floor"): 25.35,
    ("MXFP8_E5M2", "rceil"): 25.53,
    ("NVFP4", "six"): 20.42,
    ("INT8_GROUP128", "exact"): 43.76,
    ("INT4_GROUP128", "exact"): 18.58,
}
"""Signal to quantization noise of normal numbers, in decibel, from NumPy."""


@pytest.mark.parametrize(("name", "rule"), SQNR)
def test_signal_to_noise(name, rule):
    x = np.random.default_rng(0).standard_normal((64, 4096)).astype("float32")
    *_, y = quickly(results(get_format(name, scale_rule=rule)), x)
    noise = np.square((y - x).astype("float64")).sum()
    assert 10 * np.log10(np.square(x.astype("float64")).sum() / noise) == pytest.approx(SQNR[name, rule], abs=0.1)


@pytest.mark.parametrize("name", some(FORMATS, chosen=OF_EACH_KIND.__contains__))
@pytest.mark.parametrize(("shape", "axis"), [((33, 3, 40), 0), ((130, 131), 1)])
def test_any_size_is_that_of_the_padded_tensor(name, shape, axis):
    x = np.random.default_rng(1).standard_normal(shape).astype("float32")
    *_, y = quickly(results(name, axis=axis), x)
    assert y.shape == shape
    padded = np.moveaxis(x, axis, -1)
    padded = np.pad(padded, [(0, 0)] * (x.ndim - 2) + [(0, -size % 128) for size in padded.shape[-2:]])
    *_, expected = quickly(results(name), padded)
    inner = tuple(slice(0, size) for size in np.moveaxis(x, axis, -1).shape)
    np.testing.assert_array_equal(np.moveaxis(y, axis, -1), expected[inner])


@pytest.mark.parametrize(("bad", "size"), [(np.nan, 1.0), (-np.inf, 1.0), (np.nan, 2.0**-100)])
@pytest.mark.parametrize("name", FORMATS)
def test_zeros_stay_zeros_and_what_is_not_finite_stays_in_its_block(name, bad, size, run):
    format = FORMATS[name]
    x = np.zeros((256, 256), "float32")
    x[0, 0], x[200, 200] = bad, size
    _, _, y = run(results(name), x)
    expected = np.zeros_like(x)
    expected[200, 200] = size
    rows, columns = (256, 256) if format.block is None else (format.block[0], format.block[1] or 256)
    expected[:rows, :columns] = np.nan
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e30])
def test_sizes_at_the_ends_of_float32(name, size, run):
    x = (np.random.default_rng(0).uniform(0.5, 1, (32, 128)) * np.array(size)).astype("float32")
    _, _, y = run(results(name), x)
    assert np.isfinite(y).all()
    if size > 1e-40:
        np.testing.assert_allclose(y, x, rtol=0.26)


@pytest.mark.parametrize("name", ["FP8_E4M3", "INT8", "MXFP4", "NVFP4_FOUR_OVER_SIX"])
@pytest.mark.parametrize("numerics", [_bit_numerics, _float_numerics])
def test_results_do_not_depend_on_the_default_dtype_of_keras(name, numerics):
    x = np.random.default_rng(0).uniform(0.5, 1, (4, 64)).astype("float32")
    x[0] *= np.float32(2.0**-100 if numerics is _bit_numerics else 1.0)

    def numbers():
        coded, _ = encode(x, FORMATS[name], -1, "nearest", None, numerics)
        return ops.convert_to_numpy(decode(coded.codes, coded.scales, coded.tensor_scale, FORMATS[name], numerics))

    expected, floatx = numbers(), keras.config.floatx()
    keras.config.set_floatx("float16")
    try:
        result = numbers()
    finally:
        keras.config.set_floatx(floatx)
    assert_same_bits(result, expected)


CHECKSUMS = {
    "FP8_E4M3": 0x934DA162,
    "FP8_E4M3_ROW": 0xADC85213,
    "FP8_E4M3_BLOCK128": 0x9C5642C1,
    "FP8_E4M3_BLOCK128X128": 0xAF972C2F,
    "FP8_E5M2": 0x5E5152E4,
    "FP8_E5M2_ROW": 0xBE1C4373,
    "FP8_E5M2_BLOCK128": 0x4C1464E7,
    "FP8_E5M2_BLOCK128X128": 0x3E638651,
    "MXFP8_E4M3": 0xC0B8F54E,
    "MXFP8_E5M2": 0x39069E58,
    "MXFP6_E2M3": 0x2C027FDC,
    "MXFP6_E3M2": 0xD673B4B1,
    "MXFP4": 0xE8369EAE,
    "MXINT8": 0x593677FF,
    "NVFP4": 0x97778A12,
    "NVFP4_2D": 0x93C0E0A3,
    "NVFP4_FOUR_OVER_SIX": 0xCB41591D,
    "INT8": 0x5D621EAE,
    "INT8_CHANNEL": 0xF4697AA7,
    "INT8_GROUP128": 0xADBE2E80,
    "INT8_BLOCK32X32": 0x9D6ECFFA,
    "INT4": 0x0C95FFAD,
    "INT4_CHANNEL": 0x4AA64B9A,
    "INT4_GROUP128": 0x254B28B6,
    "INT4_BLOCK32X32": 0xA3783674,
}
"""CRC-32 of codes, scales and values, rounded to nearest and stochastically; first taken on PyTorch."""


def checksum(name, run):
    x = (np.arange(40 * 150, dtype="uint64") * 2654435761 % 2**32 / 2**31 - 1).reshape(40, 150)
    stored = [
        run(results(name, **options), (x * x * x).astype("float32"))
        for options in ({}, {"rounding": "stochastic", "seed": 7})
    ]
    return zlib.crc32(b"".join(np.ascontiguousarray(part).tobytes() for parts in stored for part in parts))


def marks(name, mode):
    """One of each kind is compiled, for seconds each, at night but for a graph of one; the others are slow tests."""
    if mode == MODES[0] or (name, mode) == ("MXFP4", "graph"):
        return ()
    return nightly if name in OF_EACH_KIND else pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "mode"), [pytest.param(name, mode, marks=marks(name, mode)) for name in FORMATS for mode in MODES]
)
def test_all_backends_give_the_same_bits(name, mode):
    assert checksum(name, runner(mode)) == CHECKSUMS[name]


@pytest.mark.parametrize("name", ["MXFP4", "MXFP6_E3M2", "MXFP8_E4M3", "NVFP4", "INT8_GROUP128", "INT4", "FP8_E5M2"])
def test_stochastic_rounding_is_unbiased_and_takes_neighbors(name):
    format = get_format(name, scale_rule="rceil") if name.startswith("MX") else get_format(name)
    rng = np.random.default_rng(3)
    row = rng.standard_normal((1, 128)).astype("float32")
    row[0, :4] = 1e-3, -1e-3, 1e-6, -1e-9
    samples = 4000
    x = np.repeat(row, samples, axis=0)
    *_, y = quickly(results(format, rounding="stochastic", seed=11), x)
    y = y.astype("float64")
    assert max(len(np.unique(column)) for column in y.T) <= 2
    deviation = y.std(axis=0)
    error = np.abs(y.mean(axis=0) - row[0])
    inside = np.abs(row[0]) <= np.repeat(np.abs(y).max(axis=0).reshape(-1, 16).max(axis=1), 16)
    assert inside.mean() > 0.9  # the scale of a block of NVFP4 is rounded, so its largest number may be out of reach
    assert (error <= 4 * deviation / samples**0.5 + 1e-6)[inside].all()
    assert (deviation > 0).any()


def test_same_seed_same_bits():
    x = np.random.default_rng(4).standard_normal((16, 64)).astype("float32")
    first, again, other = (to_numpy(quantize(x, "MXFP4", rounding="stochastic", seed=seed).codes) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_other_dtypes():
    x = np.random.default_rng(5).standard_normal((4, 32)).astype("float32")
    for dtype in ("bfloat16", "float16", "float64"):
        same = ops.cast(ops.convert_to_tensor(x), dtype)
        wide = to_numpy(ops.cast(same, "float32"))
        np.testing.assert_array_equal(to_numpy(quantize(same, "MXFP4").codes), to_numpy(quantize(wide, "MXFP4").codes))


@pytest.mark.parametrize("rule", ["floor", "ceil", "even"])
@pytest.mark.parametrize("name", ["MXFP8_E4M3", "MXFP8_E5M2", "MXFP6_E2M3", "MXFP6_E3M2", "MXFP4", "MXINT8"])
def test_the_largest_numbers_stay_finite(name, rule, plain_and_compiled):
    """Block maxima from 2^127 on: the scale of a block is not that of 2^128, which is no float32."""
    format = get_format(name, scale_rule=rule)
    largest = np.finfo("float32").max
    x = np.tile(np.array([[2.0**127], [1.5 * 2.0**127], [1.9375 * 2.0**127], [-largest], [largest]], "float32"), 32)
    y = to_numpy(dequantize(quantize(x, format))).astype("float64")
    assert np.all(np.isfinite(y))
    assert np.all(np.abs(y - x) <= 0.25 * np.abs(x))  # E2M1 saturates at 1.5 2^127
    np.testing.assert_array_equal(to_numpy(fake_quantize(x, format)), y)
    narrow = ops.full((1, 32), 65504.0, "float16")
    assert np.all(np.isfinite(to_numpy(fake_quantize(narrow, format))))


def test_bad_input():
    x = np.ones((4, 32), "float32")
    with pytest.raises(ValueError, match="`x` is quantized already, to MXFP4"):
        quantize(quantize(x, "MXFP4"), "MXFP4")
    with pytest.raises(ValueError, match=r"`x` must be a floating-point tensor. Received: dtype=int32"):
        quantize(np.ones(4, "int32"), "MXFP4")
    with pytest.raises(ValueError, match=r"Received: shape=\(\)"):
        quantize(np.float32(1), "MXFP4")
    with pytest.raises(ValueError, match=r"`axis` must be an axis of a tensor of shape \(4, 32\). Received: axis=2"):
        quantize(x, "MXFP4", axis=2)
    with pytest.raises(ValueError, match="2 axes or more"):
        quantize(x[0], "NVFP4_2D")
    with pytest.raises(ValueError, match="`rounding` must be one of"):
        quantize(x, "MXFP4", rounding="up")
    with pytest.raises(ValueError, match="`x` must be a `QuantizedTensor`"):
        dequantize(x)
    with pytest.raises(ValueError, match="`format` must be"):
        quantize(x, "FP3")


def test_quantized_tensors_are_compared_as_objects():
    x = np.ones((4, 32), "float32")
    one, other = quantize(x, "MXFP4"), quantize(x, "MXFP4", axis=np.int64(-1))
    assert one == one
    assert one != other
    assert len({one, other, one}) == 2
    np.testing.assert_array_equal(ops.convert_to_numpy(dequantize(one)), ops.convert_to_numpy(dequantize(other)))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX")
def test_quantized_tensors_are_pytrees_of_jax():
    import jax

    for format in ("MXFP4", "NVFP4"):
        one = quantize(np.ones((4, 32), "float32"), format)
        other = jax.jit(lambda q: q)(one)
        assert (other.format, other.shape, other.axis) == (one.format, one.shape, one.axis)
        np.testing.assert_array_equal(dequantize(one), dequantize(other))

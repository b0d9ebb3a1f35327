"""Every quantizer under Keras with JAX: the bits of the C++ on the CPU, and for a few formats those of plain operations."""

import itertools
import os

import keras
import numpy as np

from keras_lrsched.kernels import _c_interface as core
from keras_lrsched.kernels import quantize as door
from keras_lrsched.precision import FORMATS, SCALE_RULES, dequantize, fake_quantize, get_format, quantize
from keras_lrsched.precision._blocks import Blocks

SHAPES = (((7, 70), -1), ((3, 35, 20), 1), ((257, 1000), 0), ((24, 20000), 1), ((3, 17000, 5), 1), ((300_000,), 0))
"""With an axis: whole and cut blocks, neighbors and not, rows that are too long for one block of threads."""

PLAIN = ("FP8_E4M3", "MXFP4", "NVFP4_FOUR_OVER_SIX", "INT8_GROUP128")
SEED = 12345678901


def all_formats():
    """The named ones, those of OCP with every rule."""
    for format in FORMATS.values():
        for rule in SCALE_RULES["e8m0"] if format.scale == "e8m0" else (format.scale_rule,):
            yield get_format(format, scale_rule=rule)


def numbers(shape):
    """Normal numbers, a third of all exponents, a few small ones, and some that are none."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype("float32")
    any_bits = rng.integers(0, 0x7F800000, shape).astype("uint32").view("float32")
    flat = np.where(np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) % 3 == 0, any_bits, x).reshape(-1)
    flat[rng.integers(0, flat.size, 6)] = [np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-45]
    return flat.reshape(shape)


def on_cpu(x, format, axis, dtype, is_stochastic):
    """Codes, scales, scale of the tensor, numbers, and those of `fake_quantize`, by the C interface."""
    blocks = Blocks(x.shape, format, axis)
    sizes = door._sizes(x.shape, blocks.axis)
    seed = (SEED % 2**32, SEED >> 32)
    made = core.make_quantizer(
        sizes, door.specify(format, blocks, is_stochastic), core.FLOAT32 if dtype == "float32" else core.BFLOAT16, seed
    )
    plain = core.make_quantizer(sizes, door.specify(format, blocks, False), core.FLOAT32)
    stored = core.stored_sizes(made)
    codes = np.zeros((stored.code_rows, stored.code_bytes), "uint8")
    scales = np.zeros(stored.scale_rows * stored.scale_columns, "float32" if stored.scale_bytes == 4 else "uint8")
    tensor_scale, fake, y = np.ones(1, "float32"), np.zeros_like(x), np.zeros(x.shape, "float32")
    at = [array.ctypes.data for array in (codes, scales, tensor_scale)]
    core.quantize(made, x.ctypes.data, *at)
    core.fake_quantize(made, x.ctypes.data, fake.ctypes.data)
    core.dequantize(plain, *at, y.ctypes.data)
    return codes, scales, tensor_scale, y, fake


def under_keras(x, format, axis, is_stochastic):
    options = {"rounding": "stochastic", "seed": SEED} if is_stochastic else {}
    x = keras.ops.convert_to_tensor(x)
    q = quantize(x, format, axis=axis, **options)
    tensor_scale = np.ones(1, "float32") if q.tensor_scale is None else q.tensor_scale
    results = q.codes, q.scales, tensor_scale, dequantize(q), fake_quantize(x, format, axis=axis, **options)
    return [np.asarray(each) for each in results]


def same_bits(own, other):
    """Whether all numbers are the same; any NaN is as good as another."""
    own, other = own.reshape(-1), other.reshape(-1)
    if own.dtype == np.uint8:
        return np.array_equal(own, other)
    words = f"uint{8 * own.itemsize}"
    both_none = np.isnan(own.astype("float32")) & np.isnan(other.astype("float32"))
    return own.dtype == other.dtype and np.all((own.view(words) == other.view(words)) | both_none)


def check(format, shape, axis, dtype, is_stochastic):
    x = numbers(shape).astype(dtype)
    own = under_keras(x, format, axis, is_stochastic)
    expected = {"the CPU": on_cpu(x, format, axis, dtype, is_stochastic)}
    if format.name in PLAIN and x.size < 10_000:
        os.environ["KERAS_LRSCHED_FUSED"] = "0"
        expected["plain Keras"] = under_keras(x, format, axis, is_stochastic)
        os.environ["KERAS_LRSCHED_FUSED"] = "1"
    for of, parts in expected.items():
        for part, a, b in zip(("codes", "scales", "tensor scale", "numbers", "fake"), own, parts, strict=True):
            assert same_bits(a, b), (format.name, format.scale_rule, shape, axis, dtype, is_stochastic, part, of)


def main():
    import jax
    import ml_dtypes

    checked = 0
    for format, (shape, axis) in itertools.product(all_formats(), SHAPES):
        if format.rows > 1 and len(shape) < 2:
            continue
        for dtype, is_stochastic in itertools.product(("float32", ml_dtypes.bfloat16), (False, True)):
            check(format, shape, axis, dtype, is_stochastic)
            checked += 1
    print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}: {checked} quantizations to the bit as on the CPU")


if __name__ == "__main__":
    os.environ["KERAS_LRSCHED_FUSED"] = "1"
    main()

"""Compiled quantization gives the bits of plain Keras operations."""

import ctypes
import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.kernels import _build, _loading
from keras_lrsched.kernels import _c_interface as core
from keras_lrsched.kernels import quantize as door
from keras_lrsched.precision import (
    FORMATS,
    NVFP4_SIGNS,
    SCALE_RULES,
    Format,
    _operands,
    dequantize,
    elements,
    fake_quantize,
    get_format,
    hadamard,
    quantize,
    random_signs,
)
from keras_lrsched.precision._blocks import Blocks
from keras_lrsched.precision._gemms import GemmSpec
from tests.nightly import nightly, some
from tests.precision.compiled import MODES_AND_NIGHTLY, compiled, gradient

BACKEND = keras.backend.backend()


def renamed(name, format, **changes):
    return dataclasses.replace(get_format(format, **changes), name=name)


OTHERS = [
    *(
        renamed(f"{name}_{rule}", name, scale_rule=rule)
        for name in ("MXFP4", "MXFP6_E2M3", "MXFP6_E3M2", "MXFP8_E4M3", "MXFP8_E5M2", "MXINT8")
        for rule in SCALE_RULES["e8m0"][1:]
    ),
    renamed("NVFP4_2D_FOUR_OVER_SIX", "NVFP4_2D", scale_rule="four_over_six"),
    renamed("NVFP4_3X10", "NVFP4", block=(3, 10), scale_rule="four_over_six"),
    renamed("FP8_E4M3_POWER", "FP8_E4M3", scale_rule="power_of_two"),
    renamed("INT8_POWER", "INT8_GROUP128", scale_rule="power_of_two", block=(1, 6)),
    renamed("INT4_POWER", "INT4_CHANNEL", scale_rule="power_of_two"),
    Format("INT8_E8M0", elements.INT8, (2, 16), "e8m0", "rceil"),
    Format("FIXED8_FLOAT32", elements.FIXED8, (1, 32), "float32"),
    Format("E3M2_FLOAT32", elements.E3M2, None, "float32"),
    Format("E2M3_ROW", elements.E2M3, (1, None), "float32"),
    Format("E2M1_FLOAT32", elements.E2M1, (5, 4), "float32", "power_of_two"),
]
"""Formats with other rules, blocks and elements."""

ALL = [*FORMATS.values(), *OTHERS]


def numbers(shape):
    """Rows of normal numbers, of all exponents, at ties, small, large, and with what is not a number among them."""
    rng = np.random.default_rng(0)
    size = int(np.prod(shape))
    normal = rng.standard_normal(size).astype("float32")
    any_bits = rng.integers(0, 0x7F800000, size).astype("uint32").view("float32") * np.where(normal < 0, -1, 1).astype(
        "float32"
    )
    ties = np.ldexp(rng.integers(-64, 65, size).astype("float32"), rng.integers(-6, 3, size)).astype("float32")
    tiny = (rng.integers(0, 1000, size).astype("uint32") | (normal < 0).astype("uint32") << 31).view("float32")
    small = np.ldexp(normal, -126).astype("float32")
    huge = np.clip(np.ldexp(normal.astype("float64"), 127), -3.4028234e38, 3.4028234e38).astype("float32")
    kinds = np.stack([normal, any_bits, ties, tiny, small, huge, np.zeros_like(normal) * normal, normal])
    special = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 3.4028235e38, 1e-45, -1e-45], "float32")
    rows = kinds.reshape(8, *shape).copy()
    flat = rows[7].reshape(-1)
    flat[rng.integers(0, size, 8)] = special
    return rows


SHAPES = [((7, 70), -1), ((3, 35, 20), 1)]
LARGE = (48, 33, 130)
"""Of several chunks, with the axis first: read in tiles."""


def results(format, axis, options):
    def function(x):
        q = quantize(x, format, axis=axis, **options)
        parts = [q.codes, q.scales, dequantize(q), fake_quantize(x, format, axis=axis, **options)]
        return parts if q.tensor_scale is None else [*parts, q.tensor_scale]

    return function


def run(monkeypatch, setting, mode, function, *inputs):
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", setting)
    own = compiled(lambda x: function(x), mode)
    return [keras.tree.map_structure(ops.convert_to_numpy, own(x)) for x in map(ops.convert_to_tensor, inputs)]


def assert_same(actual, expected):
    for own, plain in zip(actual, expected, strict=True):
        assert own.dtype == plain.dtype
        assert own.shape == plain.shape
        np.testing.assert_array_equal(own, plain)
        if own.dtype != "uint8":
            np.testing.assert_array_equal(np.signbit(own[~np.isnan(own)]), np.signbit(plain[~np.isnan(plain)]))


QUICK_ON_JAX = ("FP8_E4M3", "MXFP4", "NVFP4_FOUR_OVER_SIX", "INT8_GROUP128")
"""JAX compiles the plain operations of each format for seconds."""

OPTIONS = [{}, {"rounding": "stochastic", "seed": 12345678901}]


def marks(format, options):
    """Formats that are not exported are rounded to nearest in the test of all shapes, and stochastically at night,
    and two of three exported ones, too."""
    if BACKEND == "jax":
        return () if format.name in QUICK_ON_JAX else pytest.mark.slow
    if format in OTHERS:
        return nightly if options else pytest.mark.slow
    return nightly if options and ALL.index(format) % 3 else ()


QUICK = [
    pytest.param(format, options, id=f"{format.name}-{'stochastic' if options else 'nearest'}", marks=marks(format, options))
    for format in ALL
    for options in OPTIONS
]
MODE = "jit" if BACKEND == "jax" else "eager"


@pytest.mark.parametrize(("format", "options"), QUICK)
def test_same_bits(format, options, monkeypatch):
    shape, axis = SHAPES[bool(options)]
    function, inputs = results(format, axis, options), numbers(shape)
    for own, plain in zip(*(run(monkeypatch, setting, MODE, function, *inputs) for setting in "10"), strict=True):
        assert_same(own, plain)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=["nearest", "stochastic"])
@pytest.mark.parametrize(("shape", "axis"), [*SHAPES, (LARGE, 0), (LARGE, 2), ((100000,), 0)])
@pytest.mark.parametrize("format", ALL, ids=lambda format: format.name)
def test_same_bits_of_all_shapes(format, shape, axis, options, monkeypatch):
    if len(shape) == 1 and format.rows > 1:
        pytest.skip("has one axis")
    function, inputs = results(format, axis, options), numbers(shape)
    for own, plain in zip(*(run(monkeypatch, setting, MODE, function, *inputs) for setting in "10"), strict=True):
        assert_same(own, plain)


@pytest.mark.parametrize("mode", MODES_AND_NIGHTLY)
@pytest.mark.parametrize("name", ["FP8_E4M3_ROW", "MXFP4", "NVFP4", "NVFP4_2D", "INT8"])
def test_compiled_graphs(name, mode, monkeypatch):
    x = numbers((40, 70))[0]
    for options in OPTIONS:
        function = results(get_format(name), -1, options)
        assert_same(*(run(monkeypatch, setting, mode, function, x)[0] for setting, mode in (("1", mode), ("0", MODE))))


@pytest.mark.parametrize("name", ["FP8_E4M3", "MXFP6_E3M2", "NVFP4", "INT4_CHANNEL"])
@pytest.mark.parametrize("axis", [0, 1])
def test_bfloat16(name, axis, monkeypatch):
    x = ops.cast(ops.convert_to_tensor(numbers((40, 70))[0]), "bfloat16")
    for options in OPTIONS:

        def function(x, options=options):
            q = quantize(x, name, axis=axis, **options)
            return q.codes, q.scales, ops.cast(fake_quantize(x, name, axis=axis, **options), "float32")

        assert_same(*(run(monkeypatch, setting, MODE, function, x)[0] for setting in "10"))


ROTATED = [
    pytest.param(next(one for one in ALL if one.name == name), size, id=f"{name}-{size}")
    for name, size in (
        *(("FP8_E4M3", 32), ("INT8_CHANNEL", 128), ("MXFP4", 32), ("NVFP4", 16)),
        *(("NVFP4_2D_FOUR_OVER_SIX", 16), ("NVFP4_3X10", 16), ("INT8_POWER", 128)),
    )
    if BACKEND != "jax" or name in ("INT8_CHANNEL", "NVFP4")
]
"""Blocks as large as the transform, larger, smaller, and that do not fit it."""


@pytest.mark.parametrize("options", some(OPTIONS), ids=["nearest", "stochastic"])
@pytest.mark.parametrize(("format", "size"), some(ROTATED, 3))
def test_a_rotation_in_the_same_pass(format, size, options, monkeypatch):
    shape, axis = [((7, 256), -1), ((3, 128, 20), 1)][bool(options)]
    signs = ops.convert_to_numpy(random_signs(size, 3))
    inputs = numbers(shape)

    def in_two(x):
        return results(format, axis, options)(hadamard(x, size, axis, signs))

    in_one = results(format, axis, options | {"rotation": size, "signs": signs})
    fused = run(monkeypatch, "1", MODE, in_one, *inputs)
    for own, plain in zip(fused, run(monkeypatch, "0", MODE, in_two, *inputs), strict=True):
        assert_same(own, plain)


@pytest.mark.parametrize("mode", MODES_AND_NIGHTLY)
@pytest.mark.parametrize(("name", "size"), [("NVFP4", 16), ("MXFP4", 128)])
def test_compiled_graphs_with_a_rotation(name, size, mode, monkeypatch):
    x = numbers((40, 256))[0]
    for options in OPTIONS:

        def function(x, options=options):
            return results(get_format(name), -1, options | {"rotation": size, "signs": random_signs(size, 7)})(x)

        assert_same(*(run(monkeypatch, setting, mode, function, x)[0] for setting, mode in (("1", mode), ("0", MODE))))


def test_a_rotation_of_bfloat16(monkeypatch):
    x = ops.cast(ops.convert_to_tensor(numbers((40, 64))[0]), "bfloat16")

    def function(x):
        q = quantize(x, "NVFP4", rotation=16)
        return q.codes, q.scales, ops.cast(fake_quantize(x, "NVFP4", rotation=16), "float32")

    assert_same(*(run(monkeypatch, setting, MODE, function, x)[0] for setting in "10"))


@pytest.mark.parametrize("estimator", ["ste", "trust"])
def test_the_gradient_of_a_rotation_goes_back(estimator, monkeypatch):
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "auto")
    x, upstream = np.random.default_rng(0).standard_normal((2, 3, 32)).astype("float32")
    options = {"gradient": estimator, "signs": NVFP4_SIGNS}
    own = gradient(lambda x: fake_quantize(x, "MXFP4", rotation=16, **options), x, upstream)
    two = gradient(lambda x: fake_quantize(hadamard(x, 16, signs=NVFP4_SIGNS), "MXFP4", gradient=estimator), x, upstream)
    np.testing.assert_allclose(own, two, atol=1e-6)


def test_a_product_rotates_and_quantizes_in_one(monkeypatch):
    left, right = np.random.default_rng(0).standard_normal((2, 40, 40)).astype("float32")
    product = GemmSpec(_operands.Cast("NVFP4"), _operands.Cast("NVFP4", "stochastic"), 16, NVFP4_SIGNS)

    def function(x):
        return [each.values for each in product.quantize(x[0], x[1], ops.convert_to_tensor([1, 2], "int32"))[:2]]

    (plain,) = run(monkeypatch, "0", MODE, function, np.stack([left, right]))
    monkeypatch.setattr("keras_lrsched.precision._quantized.hadamard", None)
    (fused,) = run(monkeypatch, "1", MODE, function, np.stack([left, right]))
    assert_same(fused, plain)


def test_a_rotation_that_no_kernel_takes(monkeypatch):
    x = np.random.default_rng(0).standard_normal((3, 1280)).astype("float32")
    format = Format("WIDE", elements.INT8, (1, 1026), "float32")
    fused, plain = (run(monkeypatch, setting, MODE, results(format, -1, {"rotation": 128}), x)[0] for setting in ("1", "0"))
    assert_same(fused, plain)
    with pytest.raises(ValueError, match=r"`size` must be one of 16, 32, 128. Received: size=64"):
        quantize(x, "NVFP4", rotation=64)
    with pytest.raises(ValueError, match=r"`size` must divide the axis. Received: size=16, shape=\(3, 40\)"):
        fake_quantize(x[:, :40], "NVFP4", rotation=16)


@pytest.mark.parametrize("size", [0, 16])
@pytest.mark.parametrize("format", ["FP8_E4M3", "INT8_CHANNEL", "MXFP4", "NVFP4_2D"])
@pytest.mark.parametrize("stochastic", [0, 1])
def test_any_number_of_threads_gives_the_same_bits(format, stochastic, size):
    x = np.random.default_rng(0).standard_normal((400, 1008)).astype("float32")
    signs = np.array(NVFP4_SIGNS, "float32")
    format = get_format(format)
    numbers = door.specify(format, Blocks(x.shape, format, -1), stochastic)
    made = core.make_quantizer((*x.shape, 1), numbers, core.FLOAT32, (1, 2), size, signs.ctypes.data)
    assert core.load("quantize").klr_quantize_chunks(ctypes.byref(made)) >= core.LARGE_TENSOR
    sizes = core.stored_sizes(made)
    first = None
    for threads in (1, 2, 3):
        codes = np.zeros((sizes.code_rows, sizes.code_bytes), "uint8")
        scales = np.zeros((sizes.scale_rows, sizes.scale_columns * sizes.scale_bytes), "uint8")
        tensor_scale, y, z = np.ones(1, "float32"), np.zeros_like(x), np.zeros_like(x)
        stored = [array.ctypes.data for array in (codes, scales, tensor_scale)]
        core.quantize(made, x.ctypes.data, *stored, threads)
        core.fake_quantize(made, x.ctypes.data, y.ctypes.data, threads)
        core.dequantize(made, *stored, z.ctypes.data, threads)
        np.testing.assert_array_equal(y, z)
        results = codes.tobytes(), scales.tobytes(), tensor_scale.tobytes(), y.tobytes()
        first = first or results
        assert results == first


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow's graphs")
def test_unknown_number_of_rows(monkeypatch):
    import tensorflow as tf

    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "1")
    x = numbers((5, 40))[0]

    @tf.function(input_signature=[tf.TensorSpec((None, 40), "float32")])
    def function(x):
        return results(get_format("MXFP4"), -1, {})(x)

    assert function.get_concrete_function().output_shapes[0].as_list() == [None, 32]
    assert_same([part.numpy() for part in function(x)], run(monkeypatch, "0", "eager", results("MXFP4", -1, {}), x)[0])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow's graphs")
@pytest.mark.parametrize("axis", some([0, 1]))
@pytest.mark.parametrize("name", some(["INT8_BLOCK32X32", "INT8_CHANNEL", "NVFP4"]))
def test_an_unknown_axis(name, axis, monkeypatch):
    """Along it or beside it; codes are read by plain operations where it is not known how many are padding."""
    import tensorflow as tf

    x = numbers((37, 40))[0]

    @tf.function(input_signature=[tf.TensorSpec((None, 40), "float32")])
    def function(x):
        q = quantize(x, name, axis)
        return q.codes, q.scales, fake_quantize(x, name, axis), dequantize(q)

    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "0")
    plain = [part.numpy() for part in tf.function(function.python_function)(tf.constant(x))]
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "auto")
    assert_same([part.numpy() for part in function(x)], plain)
    graph = function.get_concrete_function().graph.as_graph_def()
    names = {node.op for node in graph.node}.union(node.op for f in graph.library.function for node in f.node_def)
    assert {"KerasLrschedQuantize", "KerasLrschedFakeQuantize"} <= names
    assert ("KerasLrschedDequantize" in names) == (axis == 1 and name != "INT8_BLOCK32X32")


def test_the_gradient_goes_straight_through(monkeypatch):
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "1")
    x, upstream = np.random.default_rng(0).standard_normal((2, 3, 32)).astype("float32")
    np.testing.assert_array_equal(gradient(lambda x: fake_quantize(x, "MXFP4"), x, upstream), upstream)


def test_what_has_no_kernel(monkeypatch):
    x = np.random.default_rng(0).standard_normal((2, 40000)).astype("float32")
    large = Format("LARGE", elements.INT8, (1, 20000), "float32")
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "1")
    with pytest.raises(RuntimeError, match=r"LARGE has no compiled code here: a block is too large.* block=\(1, 20000\)"):
        quantize(x, large)
    with pytest.raises(RuntimeError, match="scales of NVFP4 for elements of type E4M3"):
        quantize(x, Format("OTHER", elements.E4M3, (1, 16), "nvfp4"))
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "auto")
    assert quantize(x, large).scales.shape == (2, 2)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch tensors on a GPU have no kernel")
def test_a_gpu_only_if_it_is_asked_for(monkeypatch):
    backend = _loading.binding("quantize")
    if BACKEND == "jax":
        monkeypatch.setattr(backend.jax, "default_backend", lambda: "gpu")
    else:
        monkeypatch.setattr(backend.tf.config, "list_logical_devices", lambda kind: [kind])
        assert "with jit_compile only" in backend.unavailable([])
        monkeypatch.setattr(_loading, "place", lambda: "xla")
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "auto")
    assert "never run" in backend.unavailable([])
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "1")
    assert backend.unavailable([]) is None


def test_no_compiler(monkeypatch, tmp_path, untried):
    monkeypatch.setenv("KERAS_LRSCHED_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    for module in (door, _loading):
        monkeypatch.setattr(module, "binding", lambda family: Uncached)
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler.*Plain Keras operations are used"):
        quantize(np.ones((1, 32), "float32"), "MXFP4")
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "1")
    with pytest.raises(RuntimeError, match="MXFP4 has no compiled code here"):
        quantize(np.ones((1, 32), "float32"), "MXFP4")


class Uncached:
    """A backend whose library is not built yet."""

    @staticmethod
    def unavailable(tensors):
        return None

    @staticmethod
    def place():
        return None

    @staticmethod
    def load(place):
        _build._path.cache_clear()
        try:
            _build.library("core", "quantize")
        finally:
            _build._path.cache_clear()

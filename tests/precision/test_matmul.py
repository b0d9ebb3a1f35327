"""Products of quantized matrices: plain operations beside NumPy, and compiled ones beside plain ones."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.precision import dequantize, int8_matmul, matmul, quantize
from keras_lrsched.precision._matmul import plain
from tests.kernels.test_matmul import laid_out, problem
from tests.precision.compiled import quickly

INTEGERS = [
    ("INT8", "INT8"),
    ("INT8_CHANNEL", "INT8"),
    ("INT8", "INT8_CHANNEL"),
    ("INT8_CHANNEL", "INT8_CHANNEL"),
    ("INT8_BLOCK32X32", "INT8_BLOCK32X32"),
]
OTHERS = [("MXFP4", "MXFP4"), ("INT8", "INT8_BLOCK32X32"), ("FP8_E4M3_ROW", "FP8_E4M3"), ("INT8_GROUP128", "MXINT8")]
SHAPES = [((5, 33), 7), ((3, 40, 65), 70)]


def normal(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def product(x, w, formats, axes=(-1, 0)):
    """The product of two tensors, and the numbers that their codes stand for, in float64."""

    def function(x, w):
        a, b = (quantize(each, format, axis=axis) for each, format, axis in zip((x, w), formats, axes, strict=True))
        return matmul(a, b), dequantize(a), dequantize(b)

    y, a, b = quickly(function, x, w)
    return y, a.astype("float64"), b.astype("float64")


@pytest.fixture(params=["compiled", "plain"])
def either(request, monkeypatch):
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "0" if request.param == "plain" else "auto")
    return request.param


@pytest.mark.parametrize("formats", INTEGERS)
def test_product_of_what_codes_stand_for(formats, either):
    check_product(formats)


@pytest.mark.parametrize("formats", OTHERS)
def test_product_of_other_formats(formats):
    check_product(formats)


def check_product(formats):
    for shape, n in SHAPES:
        y, a, b = product(normal(shape, 0), normal((shape[-1], n), 1), formats)
        assert y.shape == (*shape[:-1], n)
        np.testing.assert_allclose(y, a @ b, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("formats", INTEGERS)
def test_products_of_the_backward_pass(formats, either):
    """Each tensor is summed over the axis that it was quantized along."""
    x, dy, w = normal((70, 40), 0), normal((70, 50), 1), normal((40, 50), 2)
    y, a, b = product(x, dy, formats, (0, 0))
    np.testing.assert_allclose(y, a.T @ b, rtol=1e-5, atol=2e-5)
    y, a, b = product(dy, w, formats, (-1, -1))
    np.testing.assert_allclose(y, a @ b.T, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("formats", INTEGERS)
def test_compiled_and_plain_have_the_same_bits(formats, monkeypatch):
    results = []
    for mode in ("auto", "0"):
        monkeypatch.setenv("KERAS_LRSCHED_FUSED", mode)
        results.append([product(normal(shape, 0), normal((shape[-1], n), 1), formats)[0] for shape, n in SHAPES])
    for fast, slow in zip(*results, strict=True):
        assert_same(fast, slow, formats[0])


@pytest.mark.parametrize("output", ["int32", "scaled", "blocks"])
@pytest.mark.parametrize("layout", [(False, False), (True, False), (False, True), (True, True)])
def test_plain_is_exact(output, layout):
    for size in ((1, 1, 1), (5, 8, 33), (40, 30, 1030), (3, 2, 3000)):
        *given, y = problem(*size, output)
        given = laid_out(*given, *layout)
        arrays = [each for each in given if each is not None]

        def function(*arrays):
            scales = arrays[2:] or (None, None)
            return plain(*arrays[:2], *scales, *layout, output)

        assert_same(quickly(function, *arrays), y, output)


def test_extremes_are_exact(either):
    a, b = np.full((2, 131071), -128, "int8"), np.full((131071, 3), -128, "int8")
    np.testing.assert_array_equal(ops.convert_to_numpy(int8_matmul(a, b)), 2**14 * 131071)


def assert_same(got, expected, format):
    if "block" in format.lower() and keras.backend.backend() == "jax":  # XLA fuses a multiplication with an addition
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    else:
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.zeros((2, 3), "int32")}, "int8 matrix"),
        ({"a": np.zeros(3, "int8")}, "int8 matrix"),
        ({"b": np.zeros((4, 5), "int8")}, "same size"),
        ({"transpose_a": True}, "same size"),
        ({"a_scales": np.ones(2, "float32")}, "or neither"),
        ({"a_scales": np.ones(3, "float32"), "b_scales": np.ones(5, "float32")}, "`a_scales` must have 1 or 2"),
        ({"a_scales": np.ones(2, "float32"), "b_scales": np.ones(2, "float32")}, "`b_scales` must have 1 or 5"),
        ({"a_scales": np.ones((1, 2), "float32"), "b_scales": np.ones((1, 1), "float32")}, "`a_scales` must have the shape"),
        ({"a_scales": np.ones((1, 1), "float32"), "b_scales": np.ones(5, "float32")}, "Scales must be one number"),
        ({"a_scales": np.ones(2, "float16"), "b_scales": np.ones(5, "float16")}, "must be float32"),
        ({"a": np.zeros((1, 2**17), "int8"), "b": np.zeros((2**17, 1), "int8")}, "overflow 32 bits"),
    ],
)
def test_what_does_not_fit_is_refused(change, message, either):
    with pytest.raises(ValueError, match=message):
        int8_matmul(**{"a": np.zeros((2, 3), "int8"), "b": np.zeros((3, 5), "int8"), **change})


def test_quantized_tensors_that_do_not_fit_are_refused():
    a = quantize(normal((3, 4), 0), "INT8")
    with pytest.raises(ValueError, match="must be a `QuantizedTensor`"):
        matmul(a, normal((4, 5), 1))
    with pytest.raises(ValueError, match="`b` must have two axes"):
        matmul(a, quantize(normal((5, 4), 1), "INT8", axis=0))
    with pytest.raises(ValueError, match="`b` must have two axes"):
        matmul(a, quantize(normal((4, 5, 6), 1), "INT8", axis=0))


def test_an_error_where_compiled_code_is_demanded(monkeypatch):
    from keras_lrsched.kernels import _loading

    monkeypatch.setattr(_loading.binding("matmul"), "unavailable", lambda tensors, output: "It is switched off.")
    a = ops.zeros((2, 2), "int8")
    np.testing.assert_array_equal(ops.convert_to_numpy(int8_matmul(a, a)), 0)
    monkeypatch.setenv("KERAS_LRSCHED_FUSED", "1")
    with pytest.raises(RuntimeError, match="switched off"):
        int8_matmul(a, a)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="about TensorFlow's tape")
def test_the_tape_passes_by():
    import tensorflow as tf

    scales = tf.Variable(tf.ones((2,)))
    with tf.GradientTape() as tape:
        y = int8_matmul(tf.ones((2, 3), tf.int8), tf.ones((3, 2), tf.int8), scales, scales)
    assert tape.gradient(y, scales) is None


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="about JAX")
def test_scales_are_constants():
    import jax

    a = np.ones((2, 3), "int8")
    np.testing.assert_array_equal(jax.grad(lambda s: int8_matmul(a, a.T.copy(), s, s).sum())(np.ones(2, "float32")), 0)

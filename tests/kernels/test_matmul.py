"""The compiled product of int8 matrices: exact, for all layouts, instruction sets and threads."""

import ctypes
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.kernels import _c_interface, matmul
from tests.precision.compiled import MODES, MODES_AND_NIGHTLY, compiled

BACKEND = keras.backend.backend()
LAYOUTS = list(itertools.product((False, True), repeat=2))
OUTPUTS = _c_interface.OUTPUTS
SETS = range(3)
SIZES = [(1, 1, 1), (3, 5, 2), (4, 64, 4), (5, 65, 33), (32, 96, 64), (63, 70, 31), (129, 257, 515), (130, 40, 1030)]


def up(n):
    return -(-n // 32)


def problem(m, n, k, output, seed=0):
    """a, b, their scales, and the product as NumPy has it in wide integers, or in float32 in the order of the kernel."""
    rng = np.random.default_rng([m, n, k, seed])
    a, b = (rng.integers(-128, 128, shape, "int8") for shape in ((m, k), (k, n)))
    sums = a.astype("int64") @ b.astype("int64")
    if output == "int32":
        return a, b, None, None, sums.astype("int32")
    if output == "scaled":
        a_scales, b_scales = rng.random(m, "float32"), rng.random(n, "float32")
        return a, b, a_scales, b_scales, sums.astype("float32") * (a_scales[:, None] * b_scales)
    a_scales, b_scales = rng.random((up(m), up(k)), "float32"), rng.random((up(k), up(n)), "float32")
    y = np.zeros((m, n), "float32")
    for q in range(up(k)):
        part = slice(32 * q, 32 * q + 32)
        sums = (a[:, part].astype("int64") @ b[part].astype("int64")).astype("float32")
        y = y + sums * (a_scales[:, q].repeat(32)[:m, None] * b_scales[q].repeat(32)[:n])
    return a, b, a_scales, b_scales, y


def laid_out(a, b, a_scales, b_scales, transpose_a, transpose_b):
    """The same in another layout."""

    def lay(x, transposed):
        return np.ascontiguousarray(x.T) if transposed and x is not None else x

    return lay(a, transpose_a), lay(b, transpose_b), lay(a_scales, transpose_a), lay(b_scales, transpose_b)


def by_core(a, b, a_scales, b_scales, transpose_a=False, transpose_b=False, output="int32", instruction_set=-1, threads=1):
    """The product by the C functions. What lies around results and scratch memory must not be touched."""
    m, k = a.shape[::-1] if transpose_a else a.shape
    n = b.shape[0 if transpose_b else 1]
    c = np.full(m * n + 2, 123456789, "int32")
    numbers = [each if each is not None else np.zeros(0, "float32") for each in (a_scales, b_scales)]
    product = _c_interface.Product(
        *(x.ctypes.data for x in (a, b, c[1:], *numbers)),
        *(m, n, k, *(x.size for x in numbers), transpose_a, transpose_b, OUTPUTS.index(output), instruction_set),
    )
    _c_interface.check_product(product)
    scratch = np.full(_c_interface.scratch_size(product) + 64, 77, "uint8")  # not zeros: nothing may be taken for granted
    _c_interface.multiply(product, scratch.ctypes.data, threads)
    assert c[0] == c[-1] == 123456789
    assert (scratch[-64:] == 77).all()
    return c[1:-1].reshape(m, n).view("int32" if output == "int32" else "float32")


def require(instruction_set):
    if _c_interface.load("matmul").klr_matmul_instruction_set(instruction_set) is None:
        pytest.skip("not on this machine")


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_exact(instruction_set, output, layout):
    require(instruction_set)
    for size in SIZES:
        *given, expected = problem(*size, output)
        got = by_core(*laid_out(*given, *layout), *layout, output, instruction_set)
        np.testing.assert_array_equal(got, expected, err_msg=str(size))


@pytest.mark.parametrize("instruction_set", SETS)
def test_all_small_sizes(instruction_set):
    """Every tail of a panel, and of the axis that is summed over."""
    require(instruction_set)
    for i in range(1, 71):
        for m, n, k in ((i, 7, 9), (6, i, 10), (5, 8, i)):
            output = OUTPUTS[i % 3]
            *given, expected = problem(m, n, k, output)
            np.testing.assert_array_equal(by_core(*given, output=output, instruction_set=instruction_set), expected)


@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize(("left", "right"), [(-128, -128), (-128, 127), (127, -128), (127, 127), (-1, -128)])
def test_extremes(instruction_set, left, right):
    """The largest k there is, where sums come within 2^14 of what 32 bits hold."""
    require(instruction_set)
    for k in (64, 1000, matmul.MAX_K):
        a, b = np.full((3, k), left, "int8"), np.full((k, 2), right, "int8")
        np.testing.assert_array_equal(by_core(a, b, None, None, instruction_set=instruction_set), left * right * k)


@pytest.mark.parametrize("output", OUTPUTS)
def test_threads(output, monkeypatch):
    monkeypatch.setattr(_c_interface, "LARGE_PRODUCT", 0)
    *given, expected = problem(300, 530, 700, output)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(by_core(*given, output=output, threads=threads), expected)


def test_blocks_know_no_bound():
    k = 2 * matmul.MAX_K
    a, b = np.full((1, k), 1, "int8"), np.full((k, 1), 1, "int8")
    ones = np.ones((1, up(k)), "float32")
    assert by_core(a, b, ones, ones.T.copy(), output="blocks") == k


@pytest.mark.parametrize("size", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_nothing(size):
    for output in OUTPUTS:
        *given, expected = problem(*size, output)
        got = by_core(*given, output=output)
        assert got.shape == expected.shape
        assert not got.any()


def test_scratch_is_counted_in_64_bits():
    product = _c_interface.Product(None, None, None, None, None, 2**17, 2**17, 2**16, 0, 0, 0, 0, 0, -1)
    _c_interface.check_product(product)
    assert _c_interface.scratch_size(product) >= 2 * 2**33
    assert _c_interface.load("matmul").klr_matmul_tiles(ctypes.byref(product)) == 2**10 * 2**9


def test_an_instruction_set_that_there_is_not():
    a = np.zeros((1, 1), "int8")
    with pytest.raises(ValueError, match="instruction set"):
        by_core(a, a, None, None, instruction_set=9)


class TestBackend:
    """As the backend calls it."""

    @pytest.mark.parametrize("mode", MODES_AND_NIGHTLY)
    @pytest.mark.parametrize("output", OUTPUTS)
    def test_exact(self, mode, output):
        for layout, size in zip(LAYOUTS, ((3, 5, 2), (70, 100, 33), (130, 300, 520), (200, 64, 1100)), strict=True):
            *given, expected = problem(*size, output)
            given = [each for each in laid_out(*given, *layout) if each is not None]
            got = call(given, layout, mode)
            assert keras.backend.standardize_dtype(got.dtype) == str(expected.dtype)
            np.testing.assert_array_equal(ops.convert_to_numpy(got), expected)

    def test_one_scale_for_the_tensor(self):
        a, b, a_scales, b_scales, _ = problem(40, 50, 60, "scaled")
        expected = (a.astype("int64") @ b).astype("float32")
        for left, right in itertools.product((a_scales, a_scales[:1], a_scales[0]), (b_scales, b_scales[:1], b_scales[0])):
            got = call([a, b, np.asarray(left), np.asarray(right)], (False, False), MODES[min(1, len(MODES) - 1)])
            scales = np.broadcast_to(np.reshape(left, (-1, 1)) * np.reshape(right, (1, -1)), expected.shape)
            np.testing.assert_array_equal(ops.convert_to_numpy(got), expected * scales)

    @pytest.mark.parametrize(("m", "n", "k"), [(0, 3, 4), (3, 4, 0)])
    def test_nothing(self, m, n, k):
        a, b, _, _, expected = problem(m, n, k, "int32")
        np.testing.assert_array_equal(ops.convert_to_numpy(call([a, b], (False, False), MODES[0])), expected)

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow's graphs")
    def test_sizes_that_a_graph_does_not_know(self):
        import tensorflow as tf

        unknown = [tf.TensorSpec((None, None), "int8")] * 2
        function = tf.function(lambda a, b: matmul.multiply(a, b, transpose_a=True), input_signature=unknown)
        for size in ((3, 5, 2), (40, 50, 60)):
            a, b, _, _, expected = problem(*size, "int32")
            np.testing.assert_array_equal(function(np.ascontiguousarray(a.T), b), expected)
        with pytest.raises(tf.errors.InvalidArgumentError, match="do not fit"):
            function(np.zeros((3, 2), "int8"), np.zeros((4, 2), "int8"))

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow's graphs")
    def test_the_shape_of_the_result(self):
        import tensorflow as tf

        @tf.function(input_signature=[tf.TensorSpec((None, 7), "int8"), tf.TensorSpec((7, 5), "int8")])
        def function(a, b):
            c = matmul.multiply(a, b)
            assert c.shape.as_list() == [None, 5]
            return c

        assert function(np.ones((2, 7), "int8"), np.ones((7, 5), "int8")).shape == (2, 5)

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="about the op")
    def test_the_op_refuses_what_does_not_fit(self):
        import tensorflow as tf

        from keras_lrsched.kernels import _tensorflow_matmul

        a, b, scales = tf.zeros((3, 4), "int8"), tf.zeros((4, 5), "int8"), tf.zeros((2,))
        for output, message in (("scaled", "one a row"), ("blocks", "32 x 32")):
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                _tensorflow_matmul.multiply(a, b, scales, scales, False, False, output)

    @pytest.mark.skipif(BACKEND != "jax", reason="about JAX")
    def test_vmap(self):
        import jax

        problems = [problem(5, 6, 70, "scaled", seed) for seed in range(3)]
        stacked = [np.stack(each) for each in zip(*problems, strict=True)]
        np.testing.assert_array_equal(jax.jit(jax.vmap(matmul.multiply))(*stacked[:4]), stacked[4])


def call(given, layout, mode):
    return compiled(lambda *x: matmul.multiply(*x, **dict(zip(("transpose_a", "transpose_b"), layout, strict=True))), mode)(
        *map(ops.convert_to_tensor, given)
    )

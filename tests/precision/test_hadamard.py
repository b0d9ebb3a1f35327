import numpy as np
import pytest
from keras import ops
from scipy.linalg import hadamard as sylvester

from keras_lrsched.precision import NVFP4_SIGNS, dequantize, hadamard, quantize, random_signs
from tests.precision.vectors import VECTORS, assert_same_bits, case_of, numbers

to_numpy = ops.convert_to_numpy
SIZES = [16, 32, 128]


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((3, 256)).astype("float32")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("signed", [False, True])
def test_is_the_product_with_the_matrix(size, signed, x):
    signs = to_numpy(random_signs(size, 5)) if signed else np.ones(size)
    matrix = np.diag(signs) @ sylvester(size) / size**0.5
    expected = (x.reshape(-1, size) @ matrix).reshape(x.shape)
    y = hadamard(x, size, signs=signs)
    np.testing.assert_allclose(to_numpy(y), expected, atol=2e-6)
    np.testing.assert_allclose(to_numpy(hadamard(y, size, signs=signs, inverse=True)), x, atol=2e-6)
    np.testing.assert_allclose(to_numpy(hadamard(x.T, size, axis=0, signs=signs)).T, expected, atol=2e-6)


def test_a_product_of_rotated_matrices_is_that_of_the_matrices(x):
    w = np.random.default_rng(1).standard_normal((256, 4)).astype("float32")
    signs = random_signs(32, 1)
    product = ops.matmul(hadamard(x, 32, signs=signs), hadamard(w, 32, axis=0, signs=signs))
    np.testing.assert_allclose(to_numpy(product), x @ w, atol=2e-5)


def test_rows_of_the_matrix_of_nvfp4():
    matrix = to_numpy(hadamard(np.eye(16, dtype="float32"), 16, signs=NVFP4_SIGNS))
    np.testing.assert_array_equal(matrix[0], VECTORS["rht16_matrix_row0"])
    np.testing.assert_array_equal(matrix[3], VECTORS["rht16_row3"])


def test_rotated_and_quantized_as_by_transformer_engine():
    case = case_of("nvfp4", "16x16_for_2d")
    rotated = hadamard(numbers(case["input"]).reshape(16, 16).T, 16, signs=NVFP4_SIGNS)
    assert float(ops.max(ops.absolute(rotated))) == case["global_amax_col_rht"]
    key = next(key for key in case if key.startswith("out_te_rht_columnwise"))
    assert_same_bits(to_numpy(dequantize(quantize(rotated, "NVFP4"))).ravel(), numbers(case[key]))


def test_signs():
    signs = to_numpy(random_signs(4096, 9))
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 4 / 64
    np.testing.assert_array_equal(signs, to_numpy(random_signs(4096, 9)))


def test_bad_input(x):
    with pytest.raises(ValueError, match=r"`size` must be one of 16, 32, 128. Received: size=64"):
        hadamard(x, 64)
    with pytest.raises(ValueError, match=r"`size` must divide the axis. Received: size=128, shape=\(3, 100\)"):
        hadamard(x[:, :100], 128)
    with pytest.raises(ValueError, match="`signs` must hold 16 numbers"):
        hadamard(x, 16, signs=[1, -1])
    with pytest.raises(ValueError, match="floating-point"):
        hadamard(np.ones(16, "int32"), 16)

"""Derivatives of functions whose Hessian is known."""

import numpy as np
import pytest
from keras import ops

from keras_lrsched._core.backends import compile_function, gradient, hessian_product
from tests.contract.backends import JIT_WAYS

RANDOM = np.random.default_rng(0)
A = RANDOM.normal(size=(4, 4)).astype("float32")
A = A + A.T
POINT, VECTOR = RANDOM.normal(size=(2, 4)).astype("float32")


def quadratic_and_quartic(values):
    """x'Ax / 2 + sum(x^4), of x in two pieces; a third value does not matter."""
    x = ops.concatenate([values[0], values[1]])
    return ops.sum(x * ops.matmul(A, x)) / 2 + ops.sum(x**4)


def pieces(x):
    return [ops.convert_to_tensor(x[:1]), ops.convert_to_tensor(x[1:]), ops.ones(2)]


def numpy(tensors):
    return np.concatenate([ops.convert_to_numpy(tensor) for tensor in tensors])


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_gradient(jit):
    result = compile_function(lambda values: gradient(quadratic_and_quartic, values), jit)(pieces(POINT))
    np.testing.assert_allclose(numpy(result), [*(A @ POINT + 4 * POINT**3), 0, 0], rtol=1e-5)


@pytest.mark.parametrize("jit", JIT_WAYS)
def test_hessian_product(jit):
    product = compile_function(lambda values, vectors: hessian_product(quadratic_and_quartic, values, vectors), jit)
    hessian = A + np.diag(12 * POINT**2)
    np.testing.assert_allclose(numpy(product(pieces(POINT), pieces(VECTOR))), [*(hessian @ VECTOR), 0, 0], rtol=1e-5)


def test_linear_function_has_no_hessian():
    product = hessian_product(lambda values: ops.sum(values[0]) + ops.sum(values[1]), pieces(POINT), pieces(VECTOR))
    np.testing.assert_array_equal(numpy(product), 0)

"""Newton-Schulz iteration: about the nearest matrix with orthogonal rows or columns."""

from keras import ops

from keras_lrsched.optimizers.maths import matrix_norm

COEFFICIENTS = 3.4445, -4.7750, 2.0315


def orthogonalized(x, steps, dtype, coefficients=COEFFICIENTS):
    """The singular vectors of a matrix, with singular values that are not far from 1.

    X = G / (||G|| + 1e-7), then as many times as `steps` says: A = X X^T; X = a X + (b A + c A A) X. The coefficients give
    up convergence for speed: five steps bring singular values from 0.005 to 1 of ||G|| into 0.68 to 1.16, more steps no
    closer.

    Args:
        x: The matrix, or several of one shape, (..., rows, columns).
        steps: The number of iterations.
        dtype: In what to multiply matrices: `"bfloat16"` has 2 to 3 digits.
        coefficients: a, b and c.
    """
    a, b, c = coefficients

    def product(one, other):
        return ops.cast(ops.matmul(ops.cast(one, dtype), ops.cast(other, dtype)), x.dtype)

    tall = x.shape[-2] > x.shape[-1]
    result = (_transposed(x) if tall else x) / (matrix_norm(x) + 1e-7)
    for _ in range(steps):
        gram = product(result, _transposed(result))
        result = a * result + product(b * gram + c * product(gram, gram), result)
    return _transposed(result) if tall else result


def _transposed(x):
    return ops.transpose(x) if len(x.shape) == 2 else ops.swapaxes(x, -2, -1)

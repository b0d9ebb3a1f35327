"""Learning rates from curvature, on matrices and quadratics whose curvature is known."""

import numpy as np
import pytest

from keras_lrsched.laws import hessian_free_learning_rate, lanczos_learning_rate
from keras_lrsched.laws.curvature import lanczos_eigenvalues


def test_lanczos_of_a_diagonal():
    values = lanczos_eigenvalues(lambda v: np.array([1.0, 10.0, 0.1]) * v, 3)
    assert values == pytest.approx([0.1, 1.0, 10.0], abs=1e-9)


def test_the_largest_eigenvalue_of_a_large_matrix():
    random = np.random.default_rng(0).normal(size=(200, 200))
    matrix = random @ random.T
    values = lanczos_eigenvalues(matrix.__matmul__, 200, steps=40)
    assert values[-1] == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-4)
    assert len(values) == 40


def test_the_learning_rate_leaves_out_what_is_not_convex():
    product = lambda v: np.array([-5.0, 2.0, 8.0]) * v  # noqa: E731
    assert lanczos_learning_rate(product, 3) == pytest.approx(2 / 10)
    assert lanczos_learning_rate(product, 3, damping=1.0) == pytest.approx(2 / 12)
    with pytest.raises(ValueError, match=r"a positive eigenvalue. Received: "):
        lanczos_learning_rate(lambda v: -v, 3)


def test_a_space_that_is_exhausted():
    assert lanczos_eigenvalues(lambda v: 3.0 * v, 5) == pytest.approx([3.0])


def test_three_iterates():
    assert hessian_free_learning_rate(1.0, 0.9, 0.81, 0.1) == pytest.approx(1.0)
    start, curvature = np.array([1.0, -2.0]), 4.0
    iterates = [start * (1 - 0.05 * curvature) ** t for t in range(3)]
    assert hessian_free_learning_rate(*iterates, 0.05) == pytest.approx(1 / curvature)
    assert hessian_free_learning_rate(1.0, 0.9, 0.8, 0.1) > 1e10  # straight on


@pytest.mark.parametrize("arguments", [(1.0, [1.0, 2.0], 1.0, 0.1), (1.0, 0.9, 0.8, 0.0)])
def test_bad_iterates(arguments):
    with pytest.raises(ValueError, match="Received: "):
        hessian_free_learning_rate(*arguments)


@pytest.mark.parametrize("options", [{"size": 0}, {"steps": 0}, {"damping": -1}])
def test_bad_lanczos(options):
    with pytest.raises(ValueError, match="Received: "):
        lanczos_learning_rate(**({"product": lambda v: v, "size": 3} | options))

"""Learning rates from the curvature of the loss: Lanczos, and the differences of three iterates."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register


@register(
    "lanczos_learning_rate",
    title="learning rate of SGD from the extreme eigenvalues of the Hessian",
    paper="arXiv:2006.09092",
    checked="memory",
    deviations="neither text nor code was read",
    kind="scaling rule",
)
def lanczos_learning_rate(
    product: Callable[[np.ndarray], Any], size: int, steps: int = 20, damping: float = 0.0, seed: int = 0
) -> float:
    """The learning rate of SGD: 2 / (largest + smallest positive eigenvalue) of the Hessian, each plus `damping`.

    The eigenvalues are those of `steps` of the Lanczos method with full orthogonalization: the largest is accurate after 10
    to 20 products, the smallest is not, and hardly counts where the Hessian is badly conditioned.

    Args:
        product: A function from a vector to its product with the Hessian, for instance of the loss of one batch.
        size: The length of the vectors.
        steps: Products. Defaults to `20`; with as many as `size` the eigenvalues are exact.
        damping: Added to the eigenvalues, not negative. Defaults to `0.0`.
        seed: Of the first vector. Defaults to `0`.

    Raises:
        ValueError: If an argument is out of its range, or no eigenvalue is positive.

    Reference: Granziol et al. 2020, arXiv:2006.09092.

    Example:

    >>> round(lanczos_learning_rate(lambda v: np.array([1.0, 10.0, 0.1]) * v, size=3), 6)
    0.19802
    """
    damping = validation.non_negative_float("damping", damping)
    values = lanczos_eigenvalues(product, size, steps, seed)
    positive = values[values > 1e-12 * np.abs(values).max()]
    if not len(positive):
        raise ValueError(f"The Hessian must have a positive eigenvalue. Received: eigenvalues up to {values.max():.3g}")
    return float(2 / (positive.max() + positive.min() + 2 * damping))


def lanczos_eigenvalues(product: Callable[[np.ndarray], Any], size: int, steps: int = 20, seed: int = 0) -> np.ndarray:
    """The eigenvalues of the tridiagonal matrix of some Lanczos steps, in increasing order. Arguments as above."""
    size, steps = validation.positive_int("size", size), validation.positive_int("steps", steps)
    vector = np.random.default_rng(seed).normal(size=size)
    basis, diagonal, beside = [vector / np.linalg.norm(vector)], [], []
    for _ in range(min(steps, size)):
        following = np.asarray(product(basis[-1]), float)
        diagonal.append(basis[-1] @ following)
        for _ in range(2):  # once leaves rounding errors that bring back what was found
            following = following - np.array(basis).T @ (np.array(basis) @ following)
        beside.append(np.linalg.norm(following))
        if beside[-1] <= 1e-12 * max(map(abs, diagonal)):
            break  # the space is exhausted
        basis.append(following / beside[-1])
    off = beside[: len(diagonal) - 1]
    return np.linalg.eigvalsh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))


@register(
    "hessian_free_learning_rate",
    title="learning rate of SGD from three of its iterates",
    paper="arXiv:1708.07120",
    checked="memory",
    against="our own derivation, on quadratics",
    deviations="a ratio of sums in place of one for each weight",
    kind="scaling rule",
)
def hessian_free_learning_rate(before: Any, now: Any, after: Any, learning_rate: float) -> float:
    """The learning rate that SGD's last three iterates suggest: learning_rate * sum |w1 - w0| / sum |2 w1 - w0 - w2|.

    On a quadratic it is the inverse of the curvature along the path. On a network it holds for iterates that noise does not
    rule: means over many updates, or full batches; smooth it over time. It is infinite where the path does not bend.

    Args:
        before, now, after: The weights w0, w1, w2 before and after two updates: arrays or numbers.
        learning_rate: That of the updates, positive.

    Reference: Smith & Topin 2017, arXiv:1708.07120.

    Example:

    >>> round(hessian_free_learning_rate(1.0, 0.9, 0.81, learning_rate=0.1), 6)
    1.0
    """
    rate = validation.positive_float("learning_rate", learning_rate)
    first, second, third = (np.asarray(values, float) for values in (before, now, after))
    if not first.shape == second.shape == third.shape:
        raise ValueError(f"The iterates must have one shape. Received: {first.shape}, {second.shape}, {third.shape}")
    bend = np.sum(np.abs(2 * second - first - third))
    return float(rate * np.sum(np.abs(second - first)) / bend) if bend else np.inf

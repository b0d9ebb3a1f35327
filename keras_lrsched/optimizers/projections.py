"""Directions in which a gradient is kept: matrices (k, rank) for a gradient (k, n) that is not higher than wide."""

import keras
import numpy as np
from keras import ops

OVERSAMPLING, POWER_ITERATIONS = 8, 2


def singular_vectors(g, rank):
    """Those of the largest singular values, on the left."""
    return _with_fixed_signs(_left_singular_vectors(_tame(g))[:, :rank])


def randomized_singular_vectors(g, rank, seed):
    """The same by products and QR decompositions of `rank` + 8 columns (Halko et al., arXiv:0909.4061).

    The space that they span holds nearly as much of g; single vectors of near singular values are mixed.
    """
    g = _tame(g)
    columns = min(rank + OVERSAMPLING, g.shape[0])
    transposed = ops.transpose(g)
    q = _orthonormal(g @ standard_normal((g.shape[1], columns), seed, g.dtype))
    for _ in range(POWER_ITERATIONS):
        q = _orthonormal(g @ _orthonormal(transposed @ q))
    return _with_fixed_signs((q @ _left_singular_vectors(ops.transpose(q) @ g))[:, :rank])


def random_directions(rows, rank, seed, dtype):
    """Independent normal numbers of variance 1 / rank."""
    return standard_normal((rows, rank), seed, dtype) / rank**0.5


def standard_normal(shape, seed, dtype):
    """Normal numbers, always the same for a seed, which is a tensor from `seed_for`."""
    return ops.cast(keras.random.normal(shape, dtype="float32", seed=_Fixed(seed)), dtype)


def seed_for(seed, index, refresh):
    """A seed of its own for each variable and refresh.

    `seed` and `index` are numbers. They are mixed, because the backend for PyTorch adds up both parts of a seed.
    """
    mixed = int(np.random.SeedSequence((seed, index)).generate_state(1)[0]) >> 1
    dtype = "uint32" if keras.backend.backend() == "jax" else "int32"
    return ops.stack([ops.cast(mixed, dtype), ops.cast(refresh, dtype)])


class _Fixed(keras.random.SeedGenerator):
    """A seed that is a tensor, where Keras takes an int or a generator."""

    def __init__(self, value):
        self._value = value

    def next(self, ordered=True):
        return self._value


def _left_singular_vectors(g):
    if keras.backend.backend() != "tensorflow":
        return ops.svd(g, full_matrices=False)[0]
    # XLA's SVD takes seconds for a hundred rows. float64 makes good for the squares of singular values.
    wide = ops.cast(g, "float64")
    vectors = ops.eigh(wide @ ops.transpose(wide))[1]
    return ops.cast(ops.flip(vectors, axis=1), g.dtype)


def _orthonormal(x):
    return ops.qr(x)[0]


def _with_fixed_signs(vectors):
    """The entry of the largest absolute value is positive: libraries differ in the signs of singular vectors."""
    is_positive = ops.max(vectors, axis=0) >= -ops.min(vectors, axis=0)
    return ops.where(is_positive, vectors, -vectors)


def _tame(g):
    """A multiple that cannot overflow; without numbers that are not finite, on which some libraries raise or hang."""
    g = ops.where(ops.isfinite(g), g, 0.0)
    largest = ops.max(ops.abs(g))
    return g / ops.where(largest > 0, largest, 1.0)

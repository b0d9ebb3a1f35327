"""Orthogonalization of matrices in JAX: a call through XLA's foreign function interface on CPU."""

import ctypes
import functools
from collections.abc import Sequence

import jax

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels._build import library

TARGET = "keras_lrsched_orthogonalize"


def unavailable(matrices: Sequence[Tensor]) -> str | None:
    """Reason why these tensors have no kernel here, or `None`."""
    import keras

    del matrices
    if keras.distribution.distribution() is not None:
        return "Under a `keras.distribution` the products are left to JAX, which partitions them."
    if jax.default_backend() != "cpu":
        return f"JAX on {jax.default_backend()} has no kernel."
    return None


@functools.cache
def load(place: str) -> None:
    """Build and load what is needed."""
    if place == "cpu":
        handler = ctypes.CDLL(str(library("jax", "orthogonalize"))).keras_lrsched_orthogonalize
        jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(handler), platform="cpu")


def orthogonalize(matrices: Sequence[Tensor], coefficients: Tensor, bounds: Tensor) -> list[Tensor]:
    """As `keras_lrsched.kernels.orthogonalize.orthogonalize`."""
    results = [jax.ShapeDtypeStruct(each.shape, "float32") for each in matrices]
    return list(jax.ffi.ffi_call(TARGET, results, vmap_method="sequential")(*matrices, coefficients, bounds))

"""Orthogonalization of matrices in TensorFlow: an op for eager code and graphs, and one for what XLA compiles."""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels._build import library

tf.no_gradient("KerasLrschedOrthogonalize")


def unavailable(matrices: Sequence[Tensor]) -> str | None:
    """Reason why these tensors have no kernel here, or `None`."""
    del matrices
    return "TensorFlow on a GPU has no kernel." if tf.config.list_logical_devices("GPU") else None


def load(place: str) -> None:
    """Build and load what is needed; where XLA compiles, its part, too, which takes longer."""
    _op()
    if place == "xla":
        _load_for_xla()


def orthogonalize(matrices: Sequence[Tensor], coefficients: Tensor, bounds: Tensor) -> list[Tensor]:
    """As `keras_lrsched.kernels.orthogonalize.orthogonalize`."""
    return list(_op()(matrices=matrices, coefficients=coefficients, bounds=bounds))


@functools.cache
def _op() -> Callable:
    return tf.load_op_library(str(library("tensorflow", "orthogonalize"))).keras_lrsched_orthogonalize


@functools.cache
def _load_for_xla() -> None:
    tf.load_library(str(library("tensorflow_xla", "orthogonalize")))

"""Products of int8 matrices in TensorFlow: an op for eager code and graphs, and one for what XLA compiles."""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels._build import library

tf.no_gradient("KerasLrschedMatmul")


def unavailable(tensors: Sequence[Tensor], output: str) -> str | None:
    """Reason why these tensors have no kernel here, or `None`."""
    del tensors, output
    return "TensorFlow on a GPU has no kernel." if tf.config.list_logical_devices("GPU") else None


def load(place: str) -> None:
    """Build and load what is needed; where XLA compiles, its part, too, which takes longer."""
    _op()
    if place == "xla":
        _load_for_xla()


def multiply(
    a: Tensor, b: Tensor, a_scales: Tensor, b_scales: Tensor, transpose_a: bool, transpose_b: bool, output: str
) -> Tensor:
    """As `keras_lrsched.kernels.matmul.multiply`."""
    return _op()(
        a=a,
        b=b,
        a_scales=a_scales,
        b_scales=b_scales,
        transpose_a=transpose_a,
        transpose_b=transpose_b,
        output=output,
        output_type=tf.int32 if output == "int32" else tf.float32,
    )


@functools.cache
def _op() -> Callable:
    return tf.load_op_library(str(library("tensorflow", "matmul"))).keras_lrsched_matmul


@functools.cache
def _load_for_xla() -> None:
    tf.load_library(str(library("tensorflow_xla", "matmul")))

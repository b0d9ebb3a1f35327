"""Products of int8 matrices in TensorFlow: an op for eager code and graphs, and one for what XLA compiles."""

import functools

import tensorflow as tf

from keras_lrsched.kernels._build import library

tf.no_gradient("KerasLrschedMatmul")


def unavailable(tensors, output):
    """Why these tensors have no kernel here, or `None`."""
    del tensors, output
    return "TensorFlow on a GPU has no kernel." if tf.config.list_logical_devices("GPU") else None


def load(place):
    """Builds and loads what is needed; where XLA compiles, its part, too, which takes longer."""
    _op()
    if place == "xla":
        _load_for_xla()


def multiply(a, b, a_scales, b_scales, transpose_a, transpose_b, output):
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
def _op():
    return tf.load_op_library(str(library("tensorflow", "matmul"))).keras_lrsched_matmul


@functools.cache
def _load_for_xla():
    tf.load_library(str(library("tensorflow_xla", "matmul")))

"""Residuals of a forward pass: codes, and not the wider numbers that they stand for."""

import functools

import keras
from keras import ops

from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.kernels._loading import place


def custom_gradient(function):
    """As `keras.ops.custom_gradient`, but arguments are no residuals on PyTorch, either; and see `unless_exporting`."""
    is_torch = keras.backend.backend() == "torch" and not is_exporting()
    return _torch_function(function) if is_torch else unless_exporting(function)


def unless_exporting(function):
    """As `keras.ops.custom_gradient`; while a model is exported, the forward pass alone, for exports are for inference.

    A SavedModel would have the whole backward pass beside it.
    """
    return (lambda *args: function(*args)[0]) if is_exporting() else ops.custom_gradient(function)


def read_later(x, after):
    """`x`, read again in a backward pass that has come to `after`.

    Compilers would find that both passes decode the same codes, do it once, and keep the result.
    """
    match keras.backend.backend():
        case "jax":
            import jax

            return jax.lax.optimization_barrier((x, after))[0]
        case "tensorflow":
            return _in_tensorflow(x, after)
    return x


def _in_tensorflow(x, after):
    import tensorflow as tf

    if place() == "xla":
        from tensorflow.compiler.tf2xla.ops import gen_xla_ops

        return gen_xla_ops.xla_optimization_barrier([x, after])[0]
    with tf.control_dependencies([after]):
        return tf.identity(x)


def _torch_function(function):
    return functools.partial(_torch_class().apply, function)


@functools.cache
def _torch_class():
    import torch

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(context, function, *args):
            y, context.gradient = function(*args)
            return y

        @staticmethod
        def backward(context, dy):
            return None, *context.gradient(dy)

    return Function

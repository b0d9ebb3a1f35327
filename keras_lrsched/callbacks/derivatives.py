"""First and second derivatives of a scalar function of tensors, and its compilation, on each backend."""

import keras

from keras_lrsched.optimizers.derivatives import hessian_product, value_and_gradient

__all__ = ["compiled", "gradient", "hessian_product"]


def gradient(function, values):
    """The gradient of the scalar `function(values)`: one tensor for each of the values."""
    return value_and_gradient(lambda at: (function(at),), values)[1]


def compiled(function, jit_compile):
    """The function of tensors, compiled as the backend does it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=jit_compile)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function

"""A function of tensors, as the backend compiles it, and its gradient."""

import keras
from keras import ops

from tests.nightly import some

MODES = {"tensorflow": ("eager", "graph", "xla"), "jax": ("jit",), "torch": ("eager",)}[keras.backend.backend()]
"""The way functions are run. Eager JAX would compile each operation for each shape: minutes, for the operations of `jit`."""

MODES_AND_NIGHTLY = some(MODES, chosen=lambda mode: mode != "xla")
"""The same, with XLA of TensorFlow at night: it takes half a minute to build what calls a family of kernels from it."""


def quickly(function, *arrays):
    """The NumPy results of a function of arrays: eager, but compiled on JAX."""
    mode = "jit" if keras.backend.backend() == "jax" else "eager"
    return keras.tree.map_structure(ops.convert_to_numpy, compiled(function, mode)(*map(ops.convert_to_tensor, arrays)))


def runner(mode):
    """Calls a function of arrays, eager or as a compiler of the backend has compiled it; gives NumPy arrays."""

    def call(function, *arrays):
        results = compiled(function, mode)(*map(ops.convert_to_tensor, arrays))
        return keras.tree.map_structure(ops.convert_to_numpy, results)

    return call


def compiled(function, mode):
    if mode == "eager":
        return function
    if mode == "jit":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=mode == "xla")


def gradient(function, x, upstream):
    """The gradient of sum(function(x) upstream), in NumPy."""
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            x = tf.constant(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            return tape.gradient(y, x, output_gradients=tf.constant(upstream)).numpy()
        case "jax":
            import jax

            return jax.device_get(jax.vjp(function, x)[1](upstream)[0])
        case _:
            import torch

            x = torch.tensor(x, requires_grad=True)
            function(x).backward(torch.tensor(upstream))
            return x.grad.numpy()

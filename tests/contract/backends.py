"""How a schedule is called inside a compiled function: the one thing that differs between the backends."""

import keras
import numpy as np

BACKEND = keras.backend.backend()
JIT = {"tensorflow": (False, True), "jax": (True,), "torch": (False,)}[BACKEND]
"""The values of `jit_compile` that mean something."""


def traced(schedule, steps, jit=False):
    """The values at a vector of steps, from a function that sees the steps as a symbol."""
    steps = keras.ops.convert_to_tensor(np.asarray(steps), "int32")
    match BACKEND:
        case "tensorflow":
            import tensorflow as tf

            values = tf.function(lambda step: schedule(step), jit_compile=jit)(steps)
        case "jax":
            import jax

            values = jax.jit(schedule)(steps)
        case "torch":  # has no symbols in eager code; these are the operations that a tensor on a GPU goes through
            values = schedule.compute(steps, keras.ops)
    return keras.ops.convert_to_numpy(values)

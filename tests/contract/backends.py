"""Calls of a schedule or an optimizer inside a compiled function: the one thing that differs between the backends."""

import keras
import numpy as np

from tests.nightly import some

BACKEND = keras.backend.backend()
JIT = {"tensorflow": (False, True), "jax": (True,), "torch": (False,)}[BACKEND]
"""The values of `jit_compile` that mean something."""
JIT_WAYS = some(JIT)
"""The same where another test shows what XLA does: on TensorFlow it takes seconds to compile a step, and is nightly."""


def traced(schedule, steps, jit=False, autograph=False):
    """The values at a vector of steps, from a function that sees the steps as a symbol.

    TensorFlow's `autograph` rewrites what a `tf.function` calls by itself; what Keras calls in `fit`, it does not.
    """
    steps = keras.ops.convert_to_tensor(np.asarray(steps), "int32")
    match BACKEND:
        case "tensorflow":
            import tensorflow as tf

            values = tf.function(lambda step: schedule(step), jit_compile=jit, autograph=autograph)(steps)
        case "jax":
            import jax

            values = jax.jit(schedule)(steps)
        case "torch":  # has no symbols in eager code; these are the operations that a tensor on a GPU goes through
            values = schedule.compute(steps, keras.ops)
    return keras.ops.convert_to_numpy(values)


def compiled_update(optimizer, variables, jit=False):
    """A function of gradients that updates `variables` from within a compiled function, as `fit` does."""
    optimizer.build(variables)
    match BACKEND:
        case "tensorflow":
            import tensorflow as tf

            return tf.function(lambda grads: optimizer.apply(grads), jit_compile=jit, autograph=False)
        case "jax":
            import jax

            step = jax.jit(optimizer.stateless_apply)

            def update(grads):
                values = [variable.value for variable in variables]
                values, state = step([v.value for v in optimizer.variables], grads, values)
                for variable, value in zip([*variables, *optimizer.variables], [*values, *state], strict=True):
                    variable.assign(value)

            return update
        case "torch":
            return optimizer.apply


def quick_update(optimizer, variables):
    """The same for a few updates: only JAX takes longer to run them than to compile them."""
    if BACKEND == "jax":
        return compiled_update(optimizer, variables)
    optimizer.build(variables)
    return optimizer.apply

"""A choice between two functions, of which only one runs."""

import keras
from keras import ops

if keras.backend.backend() == "jax":
    from jax.core import Tracer

    def cond(condition, if_true, if_false):
        """`ops.cond` would compile both functions in each update that is not compiled itself."""
        if isinstance(condition, Tracer):
            return ops.cond(condition, if_true, if_false)
        return if_true() if condition else if_false()

else:
    cond = ops.cond

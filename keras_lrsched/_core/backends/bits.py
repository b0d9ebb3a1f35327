"""The bits of a tensor as numbers of another type."""

import keras
from keras import ops

BACKEND = keras.backend.backend()


def view(x, dtype):
    """`x` with its bits read as another type of the same size, whatever its shape.

    That is `ops.view` since Keras 3.12, which needs a last axis of known size, and before 3.15 an axis at all.
    """
    if not hasattr(ops, "view"):
        return _view_of_backend(x, dtype)
    if not len(x.shape) or x.shape[-1] is None:
        return ops.squeeze(ops.view(ops.expand_dims(x, -1), dtype), -1)
    return ops.view(x, dtype)


def _view_of_backend(x, dtype):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.bitcast(x, dtype)
    if BACKEND == "jax":
        import jax

        return jax.lax.bitcast_convert_type(x, dtype)
    import torch

    return x.view(getattr(torch, dtype))

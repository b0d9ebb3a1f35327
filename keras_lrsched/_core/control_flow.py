"""The order in which the operations of a compiled step run."""

import contextlib

import keras

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def after(tensors):
        """A context whose operations wait for all of `tensors`, which may be nested and hold `None`.

        Without XLA, TensorFlow finds the end of data of unknown length by running the compiled step once more: fetching the
        batch fails, and by then all that does not depend on it has run, such as a counter of updates. In a context that
        waits for the gradients or for the batch, nothing does.
        """
        if tf.executing_eagerly():
            return contextlib.nullcontext()
        values = [each.value if isinstance(each, keras.Variable) else each for each in tf.nest.flatten(tensors)]
        present = [each for each in values if tf.is_tensor(each)]
        return tf.control_dependencies([tf.group(*present)])  # one operation, for there may be many of both kinds

else:

    def after(tensors):
        """A context in which operations run as they are written: JAX and PyTorch fetch a batch before its step."""
        return contextlib.nullcontext()

"""The phase of a call of a quantized layer: training or inference."""

import functools
import warnings

from keras_lrsched._core import keras_private, training_loop


def is_training(training, tensors):
    """The phase of a call: what `training` says, else the running step of `fit`, `evaluate` or `predict`.

    Models whose `call` takes no `training`, and steps that call parts of a model without it, do not pass it on. Outside of
    Keras' steps, a call of which a gradient may be taken counts as training, with one warning; on PyTorch, where all calls
    look like that, it counts as inference.

    Args:
        training: What the layer was given; `None` if nothing.
        tensors: The inputs and weights of the call.
    """
    if training is not None:
        return bool(training)
    phase = training_loop.phase()
    if phase is not None:
        return phase == "train"
    if not keras_private.is_differentiated(tensors):
        return False
    _warn()
    return True


@functools.cache
def _warn():
    warnings.warn(
        "A quantized layer was called without `training` where a gradient may be taken: it counts as training. Pass "
        "`training=True` or `training=False` to be sure.",
        stacklevel=2,
    )

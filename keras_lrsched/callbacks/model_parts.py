"""What a model is made of, in lines of text, so that a checkpoint of another model can be refused."""

import itertools

from keras.layers import InputLayer


def describe(model):
    """A line for each layer with its settings, and one for the optimizer.

    Names and seeds are left out, which Keras may choose anew in each process, and which layers are frozen.
    """
    layers = [layer for layer in model._flatten_layers() if not isinstance(layer, InputLayer)]
    return [*map(_layer, layers), f"optimizer {type(model.optimizer).__name__}"]


def check(parts, saved):
    """Compares what `describe` says of a model and said of the saved one.

    Raises:
        ValueError: If they differ, with the first difference.
    """
    for number, (now, then) in enumerate(itertools.zip_longest(parts, saved, fillvalue="nothing more")):
        if now != then:
            raise ValueError(f"The saved state is of another model, whose part {number} is {then}. Received: {now}")


def _layer(layer):
    try:
        config = layer.get_config()
    except NotImplementedError:  # a layer of the user's own that cannot be saved
        config = {}
    settings = [f"{key}={value!r}" for key, value in config.items() if key not in _LEFT_OUT and _is_setting(value)]
    return f"{type(layer).__name__}({', '.join(settings)}) in {layer.dtype_policy.name}"


_LEFT_OUT = ("name", "seed", "trainable")


def _is_setting(value):
    """Whether it is a number, a string such as the name of an activation, or a list of numbers."""
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, (bool, int, float)) for item in value)
    return isinstance(value, (bool, int, float, str))

"""BatchNorm's moving statistics, computed anew for weights that no training step has had."""

import keras
import numpy as np
from keras import ops

from keras_lrsched.callbacks.snapshot import random_state, restore_random_state


def recompute_batch_norm(model, batches):
    """Replaces the moving mean and variance of each BatchNorm layer by their mean over the batches.

    The model is called on the inputs of each batch in training mode, in eager code. No weight changes, nor do the seeds of
    dropout. Each batch counts alike, so let them have one size. A frozen BatchNorm layer keeps its statistics.

    Args:
        model: A built model.
        batches: A `PyDataset`, or anything to iterate over as often as one likes: a list, a `tf.data.Dataset`. Each item is
            the inputs or, as for `fit`, a tuple of inputs and targets.

    Raises:
        ValueError: If there are no batches.

    Reference:
        `torch.optim.swa_utils.update_bn`, which does the same after stochastic weight averaging (arXiv 1803.05407).
    """
    layers = batch_norm_layers(model)
    momenta = [layer.momentum for layer in layers]
    ours = {id(variable) for variable in statistics(model)}
    others = [variable for variable in model.non_trainable_variables if id(variable) not in ours]
    kept, random = [np.array(variable.numpy()) for variable in others], random_state()
    number = 0
    try:
        for number, inputs in enumerate(_inputs(batches), 1):
            for layer in layers:
                layer.momentum = (number - 1) / number  # 0 for the first: it forgets what was there
            _call(model, inputs)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for variable, value in zip(others, kept, strict=True):
            variable.assign(value)
        restore_random_state(random)
    if not number:
        raise ValueError(f"`batch_norm_data` must have at least one batch. Received: batch_norm_data={batches!r}")


def batch_norm_layers(model):
    return [it for it in model._flatten_layers() if isinstance(it, keras.layers.BatchNormalization) and it.trainable]


def statistics(model):
    """The variables that `recompute_batch_norm` changes."""
    return [variable for layer in batch_norm_layers(model) for variable in (layer.moving_mean, layer.moving_variance)]


def _inputs(batches):
    items = (batches[i] for i in range(len(batches))) if isinstance(batches, keras.utils.PyDataset) else batches
    for item in items:
        yield keras.utils.unpack_x_y_sample_weight(item)[0]


def _call(model, inputs):
    inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    if keras.backend.backend() == "torch":
        import torch

        with torch.no_grad():
            model(inputs, training=True)
    else:
        model(inputs, training=True)

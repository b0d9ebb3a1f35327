"""BatchNorm's moving statistics, computed anew for weights that no training step has had."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_lrsched._core import keras_private, training_loop
from keras_lrsched._core.random_state import random_state, restore_random_state

BATCH_SIZE = 32
"""The size of the batches that arrays are cut into."""


def recompute_batch_norm(model: keras.Model, batches: Any) -> None:
    """Replace the moving mean and variance of each BatchNorm layer by their mean over the batches.

    The model is called on the inputs of each batch in training mode, in eager code. No weight changes, nor do the seeds of
    dropout. Each batch counts alike, so let them have one size. A frozen BatchNorm layer keeps its statistics.

    Args:
        model: A built model.
        batches: An array, or a dictionary of arrays, of inputs, or a tuple `(x, y)` as for `fit`, which are cut into
            batches of 32; what fills no batch is left out, unless there is no other. Or batches, each the inputs or a
            tuple of inputs and targets: a list, a `PyDataset`, a `tf.data.Dataset`, anything to iterate over as often as
            one likes.

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
                layer.momentum = (number - 1) / number  # 0 for the first, which discards what was there
            _call(model, inputs)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for variable, value in zip(others, kept, strict=True):
            variable.assign(value)
        restore_random_state(random)
    if not number:
        raise _no_batch(batches)


def check_batch_norm_data(model: keras.Model, batches: Any) -> None:
    """Raise for data on which `recompute_batch_norm` would fail, when `fit` begins and not when it has ended.

    Raises:
        ValueError: If the model has no BatchNorm, the data can be read only once or have no end, or the model cannot be
            called on their first batch.
    """
    training_loop.build(model)
    if not statistics(model):
        raise ValueError(f"`batch_norm_data` is given, but there is no BatchNorm. Received: model={model.name!r}")
    if isinstance(batches, Iterator):
        raise ValueError(
            f"`batch_norm_data` is read several times: give arrays, a dataset or a list of batches. Received: {batches!r}"
        )
    length = _length(batches)
    if length is not None and length < 0:
        raise ValueError(f"`batch_norm_data` must have an end. Received: batch_norm_data={batches!r}")
    first = next(_inputs(batches), None)
    if first is None:
        raise _no_batch(batches)
    spec = tree.map_structure(_spec, first)
    try:
        model.compute_output_spec(spec)
    except Exception as error:  # of any kind, from the model's layers
        raise ValueError(
            "`batch_norm_data` must be inputs that the model can be called on: an array, a tuple `(x, y)`, a dataset, or a "
            f"list of batches. Received: {model.name!r} on a batch of {tree.map_structure(lambda it: it.shape, spec)}"
        ) from error


def batch_norm_layers(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [it for it in keras_private.layers_of(model) if isinstance(it, keras.layers.BatchNormalization) and it.trainable]


def statistics(model: keras.Model) -> list[keras.Variable]:
    """The variables that `recompute_batch_norm` changes."""
    return [variable for layer in batch_norm_layers(model) for variable in (layer.moving_mean, layer.moving_variance)]


def _inputs(batches: Any) -> Iterator[Any]:
    if isinstance(batches, (dict, tuple)) or hasattr(batches, "shape"):
        return _cut(keras.utils.unpack_x_y_sample_weight(batches)[0])
    items = (batches[i] for i in range(len(batches))) if isinstance(batches, keras.utils.PyDataset) else batches
    return (keras.utils.unpack_x_y_sample_weight(item)[0] for item in items)


def _cut(inputs: Any) -> Iterator[Any]:
    """Batches of arrays."""
    length = len(tree.flatten(inputs)[0])
    for start in range(0, max(length // BATCH_SIZE, min(length, 1)) * BATCH_SIZE, BATCH_SIZE):
        yield tree.map_structure(lambda array, at=start: array[at : at + BATCH_SIZE], inputs)


def _length(batches: Any) -> int | None:
    """The number of batches of a dataset; negative for one without end, `None` if it is unknown."""
    if isinstance(batches, keras.utils.PyDataset):
        return -1 if batches.num_batches is None else batches.num_batches
    cardinality = getattr(batches, "cardinality", None)  # tf.data: -1 is without end, -2 unknown
    number = None if cardinality is None else int(cardinality())
    return None if number == -2 else number


def _spec(values: Any) -> keras.KerasTensor:
    dtype = keras.backend.standardize_dtype(values.dtype if hasattr(values, "dtype") else np.asarray(values).dtype)
    return keras.KerasTensor(np.shape(values), keras.config.floatx() if dtype == "float64" else dtype)


def _no_batch(batches: Any) -> ValueError:
    return ValueError(f"`batch_norm_data` must have at least one batch. Received: batch_norm_data={batches!r}")


def _call(model: keras.Model, inputs: Any) -> None:
    inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    if keras.backend.backend() == "torch":
        import torch

        with torch.no_grad():
            model(inputs, training=True)
    else:
        model(inputs, training=True)

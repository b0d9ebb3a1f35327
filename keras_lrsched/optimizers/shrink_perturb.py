"""Shrink and perturb: a warm start for new data that generalizes like a new model."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import keras_private, role_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.roles import roles
from keras_lrsched.optimizers.reset_moments import reset_moments


@register(
    title="shrink and perturb before training on with new data",
    paper="arXiv:1910.08475",
    checked="vectors",
    against="an own script of the formula",
    deviations="from memory: the formula, its values, and that moments and normalizations begin anew",
    kind="restart",
)
def shrink_perturb(
    model: keras.Model,
    shrink: float = 0.4,
    perturb: float = 0.1,
    fresh: keras.Model | Sequence[Any] | None = None,
) -> None:
    """Shrink the weights of a model, and add a part of a new initialization, before it trains on:

        w = shrink w + perturb w_new

    Normalization layers begin anew: their scales, offsets and moving statistics are those of the new initialization. So does
    the optimizer, but for its number of updates and its learning rate, see `reset_moments`. All shapes are treated alike.

    Args:
        model: A model that is built.
        shrink: How much of the weights is left, from 0 to 1. Defaults to `0.4`; 0.4 to 0.6 is usual.
        perturb: How much of the new initialization is added, at least 0. Defaults to `0.1`; 0.01 to 0.1 is usual.
        fresh: A model of the same architecture with new weights, or a list of arrays in the order of `model.weights`.
            Defaults to `None`: a clone, whose initializers draw anew, unless they have a seed of their own.

    Raises:
        ValueError: If an argument is out of its range, the model is not built, or `fresh` has weights of other shapes.

    Reference:
        Ash and Adams, On Warm-Starting Neural Network Training, arXiv:1910.08475, from memory.

    Example:

    >>> dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    >>> model = keras.Sequential([keras.Input((1,)), dense])
    >>> _ = dense.kernel.assign([[2.0]])
    >>> shrink_perturb(model, shrink=0.5, perturb=0.25)
    >>> dense.kernel.numpy().item()
    1.25
    """
    shrink, perturb = validation.fraction("shrink", shrink), validation.non_negative_float("perturb", perturb)
    if not model.built:
        raise ValueError(f"`model` must be built. Received: model={model.name}")
    fresh = keras.models.clone_model(model) if fresh is None else fresh
    values = fresh.weights if isinstance(fresh, keras.Model) else fresh
    values = [np.asarray(ops.convert_to_numpy(ops.cast(value, "float32"))) for value in values]
    shapes = [tuple(variable.shape) for variable in model.weights]
    if [value.shape for value in values] != shapes:
        raise ValueError(f"`fresh` must have weights of the shapes {shapes}. Received: {[value.shape for value in values]}")
    anew = _of_normalizations(model)
    trained = {id(variable) for variable in model.trainable_variables}
    for variable, value in zip(model.weights, values, strict=True):
        if id(variable) in anew:
            variable.assign(value)
        elif id(variable) in trained:
            old = ops.convert_to_numpy(ops.cast(variable, "float32"))
            variable.assign(shrink * old + perturb * value)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and optimizer.built:
        reset_moments(optimizer)


def _of_normalizations(model: keras.Model) -> set[int]:
    """The ids of the variables that begin anew."""
    layers = [each for each in keras_private.layers_of(model) if isinstance(each, role_rules.NORMALIZATIONS)]
    variables = model.trainable_variables
    by_role = [v for v, role in zip(variables, roles(model).of(variables), strict=True) if role.kind == "normalization"]
    return {id(v) for v in [*by_role, *(w for layer in layers for w in layer.weights)]}

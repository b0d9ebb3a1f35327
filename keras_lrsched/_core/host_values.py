"""Values of a model's variables on the host, between two steps of `fit`."""

from typing import Any

import keras
import numpy as np

from keras_lrsched._core import keras_private
from keras_lrsched._core.backends import host_value


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer that loss scaling is wrapped around, or `Lookahead`, or both."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def optimizer_value(model: keras.Model, variable: Any) -> np.ndarray:
    """The value of a variable of an optimizer, also in the middle of an epoch.

    On JAX the variables of the model's optimizer are empty between two steps; their values are what the last step returned,
    and taking only this one leaves the others where they are.
    """
    state = keras_private.state_between_steps(model, "optimizer_variables")
    if state is not None:
        values = zip(model.optimizer.variables, state, strict=True)
        variable = next((value for each, value in values if each is variable), variable)
    return host_value(variable)

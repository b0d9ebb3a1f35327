"""The optimizers of a model, and the values of their variables between two steps of `fit`."""

from collections.abc import Iterator
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


def optimizers_of(model: keras.Model) -> dict[str, Any]:
    """The optimizers of a model by their paths: `"optimizer"`, `"d_optimizer"`, `"optimizers.0"`, `"critic.optimizer"`, ...

    Those that its attributes hold, also in lists and dictionaries, and those of models that are attributes. An optimizer
    that is wrapped around others stands for them. None occurs twice.
    """
    attributes = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    if hasattr(model, "named_children"):  # PyTorch keeps models in a dictionary of its own
        attributes |= {name: value for name, value in model.named_children() if not name.startswith("_")}
    found: dict[str, Any] = {}
    for path, optimizer in [("optimizer", model.optimizer), *_optimizers_in(attributes)]:
        if optimizer is not None and all(optimizer is not it for it in found.values()):
            found[path] = optimizer
    return found


def other_optimizers(model: keras.Model) -> list[str]:
    """The paths of the optimizers of a model beside `model.optimizer` and those inside of it."""
    mine, inner = [], model.optimizer
    while inner is not None:
        mine.append(inner)
        inner = getattr(inner, "inner_optimizer", None)
    return [path for path, each in optimizers_of(model).items() if all(each is not it for it in mine)]


def _optimizers_in(attributes: dict) -> Iterator:
    for name, value in attributes.items():
        parts = dict(enumerate(value)) if isinstance(value, (list, tuple)) else value
        items = [(f"{name}.{key}", it) for key, it in parts.items()] if isinstance(parts, dict) else [(name, value)]
        for path, it in items:
            if isinstance(it, keras.optimizers.Optimizer):
                yield path, it
            elif isinstance(it, keras.Model):
                yield f"{path}.optimizer", getattr(it, "optimizer", None)

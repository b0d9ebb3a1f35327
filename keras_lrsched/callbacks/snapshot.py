"""All state of a model in training, kept aside and put back."""

import itertools
import random
from typing import Any

import keras
import numpy as np

from keras_lrsched._core import keras_private, training_loop
from keras_lrsched._core.tracked_state import TrackedState

KINDS = ("model", "optimizer", "metrics")


class Snapshot:
    """A copy of the weights, of all other state of the model, and of its optimizers; `restore()` puts it back, bit for bit.

    It holds `model.variables`, which include BatchNorm's moving statistics and the seeds of dropout; `optimizer.variables`:
    the counter, the learning rate, moments, averages, accumulated gradients, the loss scale; and what else hangs on the
    model: further optimizers, the states of recurrent layers, buffers of PyTorch modules, generators, counters and queues
    that are attributes. It may be taken and restored inside of `fit`, by any callback; what the first step would create is
    created.

    Args:
        model: A compiled model. Outside of `fit`, its weights must exist.
        metrics: Whether the metrics are held too. Defaults to `False`: the means in Keras' logs continue over what was
            trained, whether it is kept or not.
        others: Whether state beyond the variables of the model and of `model.optimizer` is held. Defaults to `True`.

    Raises:
        ValueError: If the model has no weights yet; from `restore`, if the model has other variables than it had.

    Example:

    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile("adam", loss="mse")
    >>> before = Snapshot(model)
    >>> history = model.fit(np.ones((2, 1)), np.ones((2, 1)), verbose=0)
    >>> before.restore()
    >>> float(model.get_weights()[0].item()), int(model.optimizer.iterations)
    (0.0, 0)
    """

    def __init__(self, model: keras.Model, metrics: bool = False, others: bool = True) -> None:
        _prepare(model)
        self._model = model
        kinds = KINDS if metrics else KINDS[:2]
        self._values: dict[str, Any] = {kind: [_copy(variable) for variable in _variables(model, kind)] for kind in kinds}
        self._values["trained"] = _trained(model)
        if others:
            self._values["others"] = TrackedState({"model": model}, known_of(model), model.variables).full_state()
        self._of_callbacks = [(each, _copy(each)) for each in _optimizer_variables(model) if _is_of_callback(each)]

    @classmethod
    def from_state(cls, model: keras.Model, state: dict[str, Any]) -> "Snapshot":
        """A snapshot that was taken of the same model, maybe in another process."""
        snapshot = cls.__new__(cls)
        snapshot._model, snapshot._values, snapshot._of_callbacks = model, state, []
        return snapshot

    def state(self) -> dict[str, Any]:
        """The copies: a dictionary of plain values, not to be changed."""
        return self._values

    def restore(self) -> None:
        model = self._model
        _prepare(model, self._values.get("trained"))
        places = {kind: _variables(model, kind) for kind in KINDS if kind in self._values}
        for kind, variables in places.items():
            _check(kind, variables, self._values[kind])
        for kind, variables in places.items():
            for variable, value in zip(variables, self._values[kind], strict=True):
                variable.assign(value)
        for variable, value in self._of_callbacks:
            variable.assign(value)
        if "others" in self._values:
            TrackedState({"model": model}, known_of(model), model.variables).restore(self._values["others"])


def known_of(model: keras.Model) -> list[Any]:
    """The variables that a snapshot of a model holds, and the generators that `random_state` holds."""
    optimizer = [] if model.optimizer is None else [model.optimizer, *model.optimizer.variables]
    generators = [np.random.mtrand._rand, random._inst]
    return [*model.variables, *model.metrics_variables, *optimizer, *generators]


def _prepare(model: keras.Model, trained: list[int] | None = None) -> None:
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # JAX keeps all state inside the compiled step
    if training_loop.epoch_iterator() is not None:
        training_loop.build(model)
    elif not model.built and not model.variables:
        raise ValueError(f"Call the model on data first: it has no weights yet. Received: model={model.name!r}, not built")
    if model.optimizer is not None and not model.optimizer.built:
        variables = model.variables
        model.optimizer.build([variables[place] for place in trained] if trained else model.trainable_variables)


def _trained(model: keras.Model) -> list[int]:
    """The places of the variables that the optimizer was built for: a step may train a part of them."""
    places = {id(variable): place for place, variable in enumerate(model.variables)}
    trained = [] if model.optimizer is None else keras_private.trained_by(model.optimizer)
    return [places[id(variable)] for variable in trained] if all(id(each) in places for each in trained) else []


def _variables(model: keras.Model, kind: str) -> list[keras.Variable]:
    if kind == "model":
        return model.variables
    if kind == "optimizer":
        return [each for each in _optimizer_variables(model) if not _is_of_callback(each)]
    return model.metrics_variables


def _optimizer_variables(model: keras.Model) -> list[keras.Variable]:
    return [] if model.optimizer is None else model.optimizer.variables


def _is_of_callback(variable: keras.Variable) -> bool:
    """Whether it is there for a callback while `fit` runs, in whose state it is saved."""
    return getattr(variable, "of_callback", False)


def _copy(variable: keras.Variable) -> np.ndarray:
    return np.array(variable.numpy())


def _check(kind: str, variables: list[keras.Variable], values: Any) -> None:
    now = [f"{_name(variable.dtype)} {list(variable.shape)}" for variable in variables]
    then = [f"{_name(value.dtype)} {list(value.shape)}" for value in values]
    for number, (one, other) in enumerate(itertools.zip_longest(now, then, fillvalue="missing")):
        if one != other:
            path = f", {variables[number].path!r}," if number < len(variables) else ""
            raise ValueError(f"The {kind} has changed since. Its variable {number}{path} is {one}. Received: {other}")


def _name(dtype: Any) -> str:
    return keras.backend.standardize_dtype(dtype)

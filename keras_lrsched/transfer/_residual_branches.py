"""Residual branches of a model, as far as graphs show them: the variables in them, and those of their last layers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from keras_lrsched._core import keras_private
from keras_lrsched._core.role_rules import LINEAR, NORMALIZATIONS
from keras_lrsched._core.roles import path_of, roles
from keras_lrsched._core.types import Variable

COMMUTE = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.ReLU,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.Identity,
)
"""Layers that may stand between the last weights of a branch and its end: a positive factor passes through them."""


class Branches(NamedTuple):
    """The ids of variables within residual branches, and of those that multiply the output of one."""

    inside: set[int]
    last: set[int]


def residual_branches(model: keras.Model) -> Branches:
    """The residual branches of all graphs in a model: in a sum of two tensors of which one is computed from the other.

    Raises:
        ValueError: If the end of a branch has no weights that a factor can be part of.
    """
    branches = Branches(set(), set())
    for graph in keras_private.layers_of(model):
        if isinstance(graph, keras_private.functional_model()):
            for branch, skip in _residual_sums(graph):
                for tensor in _computed_from(branch) - _computed_from(skip):
                    branches.inside.update(map(id, _variables(_operation(tensor))))
                branches.last.update(map(id, _last_variables(branch)))
    return branches


class _Tensor:
    """A symbolic tensor that is equal only to itself, for sets."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Tensor) and self.tensor is other.tensor

    def __hash__(self) -> int:
        return id(self.tensor)


def _operation(tensor: _Tensor) -> Any:
    return keras_private.producer(tensor.tensor)[0]


def _residual_sums(graph: Any) -> Iterator[tuple[_Tensor, _Tensor]]:
    """Branch and skip of each sum."""
    for tensor in set().union(*(_computed_from(_Tensor(output)) for output in keras.tree.flatten(graph.outputs))):
        operation, arguments = keras_private.producer(tensor.tensor)
        if type(operation).__name__ == "Add" and len(arguments) == 2:
            for branch, skip in (arguments, arguments[::-1]):
                if _Tensor(skip) in _computed_from(_Tensor(branch)) and branch is not skip:
                    yield _Tensor(branch), _Tensor(skip)


def _computed_from(tensor: _Tensor) -> set[_Tensor]:
    """A tensor with all those that it is computed from."""
    found, waiting = {tensor}, [tensor]
    while waiting:
        new = {_Tensor(each) for each in keras_private.producer(waiting.pop().tensor)[1]} - found
        found |= new
        waiting += new
    return found


def _variables(operation: Any) -> list[Variable]:
    if not isinstance(operation, keras.layers.Layer):
        return []
    return [v for layer in keras_private.layers_of(operation) for v in keras_private.own_trainable_variables(layer)]


def _last_variables(branch: _Tensor) -> list[Variable]:
    operation, arguments = keras_private.producer(branch.tensor)
    if isinstance(operation, COMMUTE) and len(arguments) == 1:
        return _last_variables(_Tensor(arguments[0]))
    if isinstance(operation, keras_private.ATTENTION):
        table = roles(operation)
        return [v for role, v in zip(table, table.variables or (), strict=True) if role.block == "attention_output"]
    activation = getattr(operation, "activation", keras.activations.linear)
    if isinstance(operation, (*LINEAR, *NORMALIZATIONS)) and activation in (
        keras.activations.linear,
        keras.activations.relu,
    ):
        return _variables(operation)
    raise ValueError(
        f"A residual branch ends in {operation.name!r} of the class {type(operation).__name__}, which cannot take a factor. "
        f"List the variables that multiply the ends of branches as `branch_outputs`, and all within branches as `branches`. "
        f"Its variables: {[path_of(v) for v in _variables(operation)]}"
    )

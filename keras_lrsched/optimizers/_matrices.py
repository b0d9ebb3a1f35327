"""Views of variables as matrices, for methods that update matrices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from keras import ops

from keras_lrsched._core.roles import Role, roles_of
from keras_lrsched._core.types import Tensor, Variable

HIDDEN = ("kernel", "convolution_kernel", "recurrent_kernel", "lora_a", "lora_b")
"""Kinds of variables that multiply inputs."""


@dataclass(frozen=True)
class MatrixView:
    """A variable as a matrix (inputs, outputs), or several of them, (stack, inputs, outputs)."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    """Those of the variable in the order of the matrix."""
    stack: int | None
    """The number of matrices; `None` for one without an axis for it."""
    inputs: int
    outputs: int

    def matrix(self, x: Tensor) -> Tensor:
        x = ops.transpose(x, self.axes) if self._is_permuted else x
        sizes = (self.inputs, self.outputs)
        return ops.reshape(x, sizes if self.stack is None else (self.stack, *sizes))

    def back(self, x: Tensor) -> Tensor:
        x = ops.reshape(x, [self.shape[axis] for axis in self.axes])
        return ops.transpose(x, [self.axes.index(axis) for axis in range(len(self.axes))]) if self._is_permuted else x

    @property
    def _is_permuted(self) -> bool:
        return self.axes != tuple(range(len(self.axes)))


@dataclass(frozen=True)
class LowMatrix:
    """A variable as a matrix that is not higher than wide."""

    view: MatrixView

    @property
    def is_transposed(self) -> bool:
        return self.view.inputs > self.view.outputs

    @property
    def rows(self) -> int:
        return min(self.view.inputs, self.view.outputs)

    @property
    def columns(self) -> int:
        return max(self.view.inputs, self.view.outputs)

    def wide(self, x: Tensor) -> Tensor:
        x = self.view.matrix(x)
        return ops.transpose(x) if self.is_transposed else x

    def back(self, x: Tensor) -> Tensor:
        return self.view.back(ops.transpose(x) if self.is_transposed else x)


def hidden_matrix(role: Role, input_axes: int | None = None, kinds: Sequence[str] = HIDDEN) -> MatrixView | None:
    """The view of a hidden layer's matrix, by its role or by the number of axes that are inputs; `None` for all else."""
    if input_axes is not None:
        return _by_input_axes(role, input_axes)
    is_matrix = role.kind in kinds and not role.head and role.inputs and role.outputs
    return _view(role) if is_matrix else None


def matrix_of(variable: Variable, input_axes: int | None, role: Role | None = None) -> LowMatrix | None:
    """A variable as a low-rank method takes it, if no rule excludes it; `None` if Adam updates it as it is.

    Matrices are also embeddings, but not kernels of convolutions, several matrices in one variable, nor what has more than
    two axes from unknown layers.
    """
    role = role or roles_of([variable])[0]
    if input_axes is not None:
        return LowMatrix(_by_input_axes(role, input_axes))
    if role.kind not in (*HIDDEN, "embedding") or role.kind == "convolution_kernel" or role.stack or not role.outputs:
        return None
    is_sure = len(role.shape) == 2 or (role.kind != "embedding" and role.source != "shape")
    return LowMatrix(_view(role)) if is_sure else None


def is_guess(role: Role) -> bool:
    """Whether the inputs and outputs of a matrix come from nothing but the number of its axes."""
    return role.source == "shape" and len(role.shape) > 2


def _view(role: Role) -> MatrixView:
    stack = role.size(role.stack) if role.stack else None
    axes = (*role.stack, *role.inputs, *role.outputs)
    return MatrixView(role.shape, axes, stack, role.size(role.inputs), role.size(role.outputs))


def _by_input_axes(role: Role, input_axes: int) -> MatrixView:
    path, shape = role.path, role.shape
    if input_axes >= len(shape):
        raise ValueError(f"`input_axes` must leave an axis for outputs. Received: {input_axes} for {path} of shape {shape}")
    axes = tuple(range(len(shape)))
    return MatrixView(shape, axes, None, math.prod(shape[:input_axes]), math.prod(shape[input_axes:]))

"""Views of variables as matrices, for methods that update matrices."""

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras import ops

from keras_lrsched._core import validation
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
    folded: tuple[int, ...] | None = None
    """The shape of the variable itself, where `shape` has an axis more, for blocks of one of its own; else `None`."""

    def matrix(self, x: Tensor) -> Tensor:
        x = x if self.folded is None else ops.reshape(x, self.shape)
        x = ops.transpose(x, self.axes) if self._is_permuted else x
        sizes = (self.inputs, self.outputs)
        return ops.reshape(x, sizes if self.stack is None else (self.stack, *sizes))

    def back(self, x: Tensor) -> Tensor:
        x = ops.reshape(x, [self.shape[axis] for axis in self.axes])
        x = ops.transpose(x, [self.axes.index(axis) for axis in range(len(self.axes))]) if self._is_permuted else x
        return x if self.folded is None else ops.reshape(x, self.folded)

    def matrices(self, x: Tensor) -> list[Tensor]:
        """The matrix, or the stack of them, alone in a list; see `SplitView`."""
        return [self.matrix(x)]

    def assembled(self, matrices: Sequence[Tensor]) -> Tensor:
        return self.back(matrices[0])

    @property
    def _is_permuted(self) -> bool:
        return self.axes != tuple(range(len(self.axes)))


@dataclass(frozen=True)
class SplitView:
    """A variable as a matrix that is cut into blocks of different sizes along its inputs or its outputs."""

    whole: MatrixView
    axis: int
    """-2 for inputs, -1 for outputs."""
    sizes: tuple[int, ...]

    stack = None

    @property
    def inputs(self) -> int:
        return self.whole.inputs

    @property
    def outputs(self) -> int:
        return self.whole.outputs

    def matrices(self, x: Tensor) -> list[Tensor]:
        ends = list(itertools.accumulate(self.sizes))[:-1]
        return list(ops.split(self.whole.matrix(x), ends, axis=self.axis))

    def assembled(self, matrices: Sequence[Tensor]) -> Tensor:
        return self.whole.back(ops.concatenate(list(matrices), axis=self.axis))


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


def hidden_matrix(
    role: Role, input_axes: int | None = None, kinds: Sequence[str] = HIDDEN, heads: bool = False
) -> MatrixView | None:
    """The view of a hidden layer's matrix, by its role or by the number of axes that are inputs; `None` for all else.

    With `heads`, also those of output layers, and kernels of depthwise convolutions that have no axis for outputs.
    """
    if input_axes is not None:
        return by_input_axes(role, input_axes)
    has_outputs = role.outputs or (heads and role.stack)
    is_matrix = role.kind in kinds and (heads or not role.head) and role.inputs and has_outputs
    return _view(role) if is_matrix else None


def by_head(role: Role, view: MatrixView) -> MatrixView:
    """The view of an attention layer's projection with a matrix for each head, where an axis numbers the heads.

    Of queries, keys and values, (features, heads, size) or (heads, features, size), the heads are the first axis of the
    outputs; of the output, (heads, size, features), that of the inputs.
    """
    heads, others = (role.inputs, role.outputs) if role.block == "attention_output" else (role.outputs, role.inputs)
    if role.block not in ATTENTION or len(heads) != 2 or view.folded is not None:
        return view
    inputs, outputs = (heads[1:], others) if role.block == "attention_output" else (others, heads[1:])
    stack = (*role.stack, heads[0])
    return MatrixView(role.shape, (*stack, *inputs, *outputs), role.size(stack), role.size(inputs), role.size(outputs))


ATTENTION = ("query", "key", "value", "query_key_value", "attention_output")


def block_sizes(name: str, value: Any) -> int | list[int]:
    """A value of the argument `blocks`: the number of equal blocks, or the size of each."""
    if isinstance(value, (list, tuple)):
        return validation.each(name, value, validation.positive_int)
    return validation.positive_int(name, value)


def in_blocks(role: Role, view: MatrixView, blocks: int | Sequence[int]) -> "MatrixView | SplitView":
    """The view with a matrix for each of some blocks of the outputs, or in the output of attention, of the inputs.

    Args:
        role: The role of the variable.
        view: It as one matrix.
        blocks: Their number, if they are equal, or the size of each.

    Raises:
        ValueError: If they do not make up the matrix, or there are several matrices already.
    """
    splits_inputs = role.block == "attention_output"
    side = "inputs" if splits_inputs else "outputs"
    size = getattr(view, side)
    sizes = [size // blocks] * blocks if isinstance(blocks, int) else list(blocks)
    if sum(sizes) != size:
        raise ValueError(
            f"`blocks` must divide the {side} of a matrix. Received: blocks={blocks!r} for the {size} {side} of {role.path} "
            f"of shape {role.shape}"
        )
    if view.stack is not None:
        raise ValueError(f"`blocks` are of one matrix. Received: blocks={blocks!r} for the {view.stack} of {role.path}")
    if len(set(sizes)) > 1:
        return SplitView(view, -2 if splits_inputs else -1, tuple(sizes))
    return _equal_blocks(role, view, len(sizes), splits_inputs)


def _equal_blocks(role: Role, view: MatrixView, count: int, splits_inputs: bool) -> "MatrixView | SplitView":
    if view.axes != tuple(range(len(view.axes))):  # whose axes lie apart
        size = (view.inputs if splits_inputs else view.outputs) // count
        return SplitView(view, -2 if splits_inputs else -1, (size,) * count)
    inputs, outputs = view.inputs, view.outputs
    if splits_inputs:
        return MatrixView((count, inputs // count, outputs), (0, 1, 2), count, inputs // count, outputs, role.shape)
    return MatrixView((inputs, count, outputs // count), (1, 0, 2), count, inputs, outputs // count, role.shape)


def matrix_of(variable: Variable, input_axes: int | None, role: Role | None = None) -> LowMatrix | None:
    """A variable as a low-rank method takes it, if no rule excludes it; `None` if Adam updates it as it is.

    Matrices are also embeddings, but not kernels of convolutions, several matrices in one variable, nor what has more than
    two axes from unknown layers.
    """
    role = role or roles_of([variable])[0]
    if input_axes is not None:
        return LowMatrix(by_input_axes(role, input_axes))
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


def by_input_axes(role: Role, input_axes: int) -> MatrixView:
    path, shape = role.path, role.shape
    if input_axes >= len(shape):
        raise ValueError(f"`input_axes` must leave an axis for outputs. Received: {input_axes} for {path} of shape {shape}")
    axes = tuple(range(len(shape)))
    return MatrixView(shape, axes, None, math.prod(shape[:input_axes]), math.prod(shape[input_axes:]))


def warn_of_guesses(
    roles: Sequence[Role], axes: Sequence[Any], views: Sequence[Any], remedy: str = "Set `input_axes`, or give"
) -> None:
    """Warn of matrices of which nothing but the shape is known, unless `axes` has their number of input axes."""
    places = zip(roles, axes, views, strict=True)
    guessed = [f"{role.path} of shape {role.shape}" for role, n, view in places if view and n is None and is_guess(role)]
    if guessed:
        warnings.warn(
            "All axes but the last are taken for inputs, as no layer is known that has it, or none of its class: "
            f"{', '.join(guessed)}. {remedy or 'Give'} `roles`, a corrected table from `roles(model)`.",
            stacklevel=2,
        )

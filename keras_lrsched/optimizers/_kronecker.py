"""Base of SOAP, Shampoo and PSGD-Kron: a factor for each axis of a variable, which its gradient is multiplied by."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import keras
from keras import ops

from keras_lrsched._core import keras_private, path_rules, validation
from keras_lrsched._core.roles import Role
from keras_lrsched._core.types import FindRoles, LearningRate, Patterns, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._matrices import HIDDEN, MatrixView, by_input_axes, is_guess
from keras_lrsched.optimizers._newton_schulz import LARGEST_IN_A_STACK, transposed
from keras_lrsched.optimizers._options import LowRankOptions, Options
from keras_lrsched.optimizers._update_context import UpdateContext
from keras_lrsched.optimizers.optimizer import Optimizer


@dataclass(frozen=True)
class AxesView:
    """A variable as tensors (count, size, ..., size), with an axis for each factor."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    """Those of the variable in the order of the tensors."""
    stack: int | None
    """The number of tensors; `None` for one without an axis for it."""
    sizes: tuple[int, ...]
    factors: tuple[int, ...]
    """The places in `sizes` that have a factor."""

    @property
    def count(self) -> int:
        return 1 if self.stack is None else self.stack

    @property
    def own_shape(self) -> tuple[int, ...]:
        """That of state with the entries of the variable."""
        return self.shape if self.axes == tuple(range(len(self.shape))) else self.with_stack(self.sizes)

    def with_stack(self, shape: Sequence[int]) -> tuple[int, ...]:
        return tuple(shape) if self.stack is None else (self.stack, *shape)

    def tensor(self, x: Tensor) -> Tensor:
        x = ops.transpose(x, self.axes) if self._is_permuted else x
        return ops.reshape(x, (self.count, *self.sizes))

    def back(self, x: Tensor) -> Tensor:
        x = ops.reshape(x, [self.shape[axis] for axis in self.axes])
        return ops.transpose(x, [self.axes.index(axis) for axis in range(len(self.axes))]) if self._is_permuted else x

    @property
    def _is_permuted(self) -> bool:
        return self.axes != tuple(range(len(self.axes)))


class Group:
    """Variables of one shape in an update, whose products are computed at once: tensors (number, size, ..., size)."""

    def __init__(self, contexts: Sequence[UpdateContext], views: Sequence[AxesView]) -> None:
        self.contexts, self.views = contexts, views
        self.sizes, self.factors = views[0].sizes, views[0].factors

    @property
    def members(self) -> Iterable[tuple[UpdateContext, AxesView]]:
        return zip(self.contexts, self.views, strict=True)

    def of_variables(self, values: Iterable[Tensor]) -> Tensor:
        """Tensors of the shapes of the variables, in one."""
        return _joined([view.tensor(value) for view, value in zip(self.views, values, strict=True)])

    def of_numbers(self, values: Iterable[Any], dtype: str) -> Tensor:
        """A number for each variable, or one for all of them, as a factor of the tensors."""
        each = [ops.broadcast_to(ops.cast(v, dtype), (view.count,)) for v, view in zip(values, self.views, strict=True)]
        return ops.reshape(_joined(each), (-1, *[1] * len(self.sizes)))

    def read(self, name: str) -> Tensor:
        """A state of all variables, with an axis before its own for the number."""
        return _joined([self._of_state(ctx, view, name) for ctx, view in zip(self.contexts, self.views, strict=True)])

    def _of_state(self, ctx: UpdateContext, view: AxesView, name: str) -> Tensor:
        value = getattr(ctx.state, name)
        tail = self.sizes if name in OF_EACH_ENTRY else value.shape[1:] if view.stack is not None else value.shape
        return ops.reshape(value, (view.count, *tail))

    def write(self, name: str, value: Tensor) -> None:
        for ctx, part in zip(self.contexts, self._parts(value), strict=True):
            setattr(ctx.state, name, ops.reshape(part, getattr(ctx.state, name).shape))

    def back(self, value: Tensor) -> dict[int, Tensor]:
        """Tensors of the shapes of the variables again, by their places."""
        parts = self._parts(value)
        return {ctx.index: view.back(x) for ctx, view, x in zip(self.contexts, self.views, parts, strict=True)}

    def _parts(self, value: Tensor) -> list[Tensor]:
        if len(self.views) == 1:
            return [value]
        parts, start = [], 0
        for view in self.views:
            parts.append(value[start : start + view.count])
            start += view.count
        return parts


OF_EACH_ENTRY = ("m", "v", "momentum")
"""State that has the entries of the variable."""


def _joined(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else ops.concatenate(values)


class KroneckerUnseededOptions(LowRankOptions, total=False):
    """Arguments that methods with a `seed` of their own hand on to `Kronecker`."""

    exclude_from_preconditioning: Patterns
    input_axes: Mapping[str, int] | None


class KroneckerOptions(KroneckerUnseededOptions, total=False):
    """Arguments that methods hand on to `Kronecker`."""

    seed: int | None


class Kronecker(Optimizer):
    """An optimizer with a factor for each axis of a variable.

    Matrices have two axes, by the roles of their variables: all inputs, and all outputs. Kernels of convolutions have all
    of theirs, unless `input_axes` makes them matrices; so have variables that are known by nothing but their shapes.
    """

    def __init__(
        self,
        learning_rate: LearningRate,
        weight_decay: WeightDecay,
        exclude_from_preconditioning: Patterns = None,
        input_axes: Mapping[str, int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.exclude_from_preconditioning = path_rules.patterns("exclude_from_preconditioning", exclude_from_preconditioning)
        self.input_axes = path_rules.numbers("input_axes", input_axes, validation.positive_int)

    # What a method defines

    convolutions_are_matrices = False

    @property
    def largest_axis(self) -> int:
        """The length of the longest axis that has a factor."""
        raise NotImplementedError

    def has_factors(self, role: Role, is_vector: bool) -> bool:
        """Return whether a variable that is not excluded has factors."""
        return not is_vector

    def update_groups(self, groups: Sequence[Group]) -> dict[int, Tensor]:
        """The steps of all variables, by their places; the state is updated."""
        raise NotImplementedError

    # The variables

    def resolve_paths(self, variables: Sequence[Variable], find_roles: FindRoles) -> None:
        super().resolve_paths(variables, find_roles)
        name = "exclude_from_preconditioning"
        taken = path_rules.included(name, self.exclude_from_preconditioning, variables, find_roles)
        rules = path_rules.first_match("input_axes", self.input_axes, variables, find_roles)
        self._views = [
            self._view(role, self.input_axes.get(rule), is_taken)
            for role, rule, is_taken in zip(find_roles(), rules, taken, strict=True)
        ]

    def _view(self, role: Role, input_axes: int | None, is_taken: bool) -> AxesView:
        axes, stack, sizes = self._axes(role, input_axes)
        is_vector = sum(size > 1 for size in sizes) < 2
        if not is_taken or not self.has_factors(role, is_vector):
            return AxesView(role.shape, tuple(range(len(role.shape))), None, role.shape or (1,), ())
        long = max(sizes, default=1)
        factors = [i for i, size in enumerate(sizes) if min(long, 2) <= size <= self.largest_axis]
        return AxesView(role.shape, axes, stack, sizes, tuple(factors))

    def _axes(self, role: Role, input_axes: int | None) -> tuple[tuple[int, ...], int | None, tuple[int, ...]]:
        """The order of the axes, the number of tensors, and the sizes of each."""
        if input_axes is not None:
            return _as_matrix(by_input_axes(role, input_axes))
        is_convolution = role.kind == "convolution_kernel" or is_guess(role)
        is_convolution = is_convolution and not self.convolutions_are_matrices
        if role.kind in (*HIDDEN, "embedding") and role.outputs and not is_convolution:
            stack = role.size(role.stack) if role.stack else None
            return (*role.stack, *role.inputs, *role.outputs), stack, (role.size(role.inputs), role.size(role.outputs))
        return tuple(range(len(role.shape))), None, role.shape or (1,)

    def view_of(self, variable: Variable) -> AxesView:
        return self._views[keras_private.variable_index(self, variable)]

    def add_for_axes(
        self, variable: Variable, name: str, is_diagonal: bool = False, initializer: Any = "zeros"
    ) -> dict[str, Any]:
        """State for each axis with a factor, `name_0` and so on: a matrix, or its diagonal."""
        view = self.view_of(variable)
        shapes = {i: (view.sizes[i],) if is_diagonal else (view.sizes[i],) * 2 for i in view.factors}
        return {
            f"{name}_{i}": self.add_state(variable, f"{name}_{i}", view.with_stack(shape), initializer=initializer)
            for i, shape in shapes.items()
        }

    def add_own(self, variable: Variable, *names: str) -> dict[str, Any]:
        """State with the entries of a variable."""
        return {name: self.add_state(variable, name, self.view_of(variable).own_shape) for name in names}

    # The update

    def before_update(self, contexts: Sequence[UpdateContext]) -> dict[int, Tensor]:
        groups: dict[Any, list[UpdateContext]] = {}
        for ctx in contexts:
            view = self._views[ctx.index]
            is_alone = not view.factors or math.prod(view.sizes) > LARGEST_IN_A_STACK
            key = ctx.index if is_alone else (view.sizes, view.factors, str(ctx.gradient.dtype))
            groups.setdefault(key, []).append(ctx)
        each = [Group(members, [self._views[ctx.index] for ctx in members]) for members in groups.values()]
        return self.update_groups(each)


def _as_matrix(view: MatrixView) -> tuple[tuple[int, ...], int | None, tuple[int, ...]]:
    return view.axes, view.stack, (view.inputs, view.outputs)


def identity(shape: Sequence[int], dtype: Any = None) -> Tensor:
    """An initializer: the identity, or several of them."""
    return ops.eye(shape[-1], dtype=dtype) * ops.ones(shape, dtype=dtype)


# Products of tensors (number, size, ..., size); an axis is counted without the first


def contraction(x: Tensor, axis: int) -> Tensor:
    """The product of x with itself over all axes but one: (number, size, size)."""
    if len(x.shape) == 3:
        return ops.matmul(x, transposed(x)) if axis == 0 else ops.matmul(transposed(x), x)
    rows = ops.reshape(ops.moveaxis(x, axis + 1, 1), (x.shape[0], x.shape[axis + 1], -1))
    return ops.matmul(rows, transposed(rows))


def multiplied(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """The sum of x_(.. i ..) matrix_(i j) over i, on one axis."""
    if len(x.shape) == 3:
        return ops.matmul(transposed(matrix), x) if axis == 0 else ops.matmul(x, matrix)
    moved = ops.moveaxis(x, axis + 1, -1)
    product = ops.matmul(ops.reshape(moved, (x.shape[0], -1, x.shape[axis + 1])), matrix)
    return ops.moveaxis(ops.reshape(product, moved.shape), -1, axis + 1)


def multiplied_all(x: Tensor, matrices: Mapping[int, Tensor]) -> Tensor:
    """x multiplied on each axis by its matrix."""
    for axis, matrix in matrices.items():
        x = multiplied(x, matrix, axis)
    return x


def along(x: Tensor, numbers: Tensor, axis: int) -> Tensor:
    """x times numbers (number, size) along one axis."""
    shape = [1] * len(x.shape)
    shape[0], shape[axis + 1] = numbers.shape
    return x * ops.reshape(numbers, shape)


def rotated_back(x: Tensor, bases: Mapping[int, Tensor]) -> Tensor:
    return multiplied_all(x, {axis: transposed(basis) for axis, basis in bases.items()})


def eigenvectors(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, the largest first, and eigenvectors as columns, of symmetric matrices (number, size, size)."""
    wide = "float64" if keras.backend.backend() != "jax" else symmetric.dtype  # which has no more than it is set to
    values, vectors = ops.eigh(ops.cast(tame(symmetric), wide))
    values, vectors = ops.flip(values, axis=-1), ops.flip(vectors, axis=-1)
    return ops.cast(values, symmetric.dtype), ops.cast(vectors, symmetric.dtype)


def orthonormal(x: Tensor) -> Tensor:
    """Q of the QR decomposition."""
    return ops.qr(tame(x))[0]


def tame(x: Tensor) -> Tensor:
    """Without numbers that are not finite, on which some libraries raise or hang; the gradient has them still."""
    return ops.where(ops.isfinite(x), x, 0.0)


def rayleigh(basis: Tensor, factor: Tensor) -> Tensor:
    """The diagonal of Q^T A Q: about the eigenvalues, if Q holds about the eigenvectors."""
    return ops.sum(basis * ops.matmul(factor, basis), axis=-2)


def in_order(values: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The order of some values, the largest first, and the columns of the basis in it."""
    order = ops.argsort(-values, axis=-1)
    return order, ops.take_along_axis(basis, ops.expand_dims(order, -2), axis=-1)


def reordered(x: Tensor, order: Tensor, axis: int) -> Tensor:
    """x with one of its axes in another order, (number, size)."""
    shape = [1] * len(x.shape)
    shape[0], shape[axis + 1] = order.shape
    return ops.take_along_axis(x, ops.broadcast_to(ops.reshape(order, shape), x.shape), axis=axis + 1)

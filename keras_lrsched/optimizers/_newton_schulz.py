"""Newton-Schulz iterations, which set the singular values of matrices to about 1: what Muon, Dion2 and Scion share."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels import orthogonalize as kernels
from keras_lrsched.optimizers._numerics import matrix_norm

Table: TypeAlias = Sequence[tuple[float, float, float]]
"""The coefficients a, b and c of each iteration; further ones repeat the last."""

NEWTON_SCHULZ: Table = ((3.4445, -4.7750, 2.0315),)
"""Of Muon: fast, but the singular values end anywhere from 0.68 to 1.16."""

QUINTIC: Table = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Five different polynomials, of microsoft/dion and NVIDIA's Emerging-Optimizers."""

POLAR_EXPRESS: Table = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Of Polar Express (arXiv:2505.16932), as microsoft/dion has them: each is the best after those before it."""

TABLES: dict[str, Table] = {"newton_schulz": NEWTON_SCHULZ, "polar_express": POLAR_EXPRESS, "quintic": QUINTIC}

SAFETY = {"polar_express": (1.02, 1e-8)}
"""Factor and summand of the norm by which a matrix is divided, so that no singular value is above 1 after rounding."""

LARGEST_IN_A_STACK = 1 << 20
"""Matrices with more entries are multiplied one by one: stacking them takes time and memory, and saves nothing."""

LEAST_ROWS_IN_BLOCKS = 384
"""Below, products are too small for their parts to be faster."""

WORTH_A_PRODUCT = 1_500_000
"""Floating-point operations that take as long as it takes to begin the three products of an iteration."""


def checked(value: Any) -> Any:
    """The argument `orthogonalize`: a key of `TABLES`, or a list of triples."""
    if isinstance(value, str):
        return validation.one_of("orthogonalize", value, tuple(TABLES))
    try:
        table = [[validation.finite_float("orthogonalize", each) for each in row] for row in value]
    except TypeError:
        table = []
    if not table or any(len(row) != 3 for row in table):
        raise ValueError(
            f"`orthogonalize` must be one of {', '.join(map(repr, TABLES))}, or a list of the coefficients (a, b, c) of "
            f"each iteration. Received: orthogonalize={value!r}"
        )
    return table


def orthogonalized(
    x: Tensor, steps: int, dtype: str = "float32", table: Table = NEWTON_SCHULZ, safety: float = 1.0, epsilon: float = 1e-7
) -> Tensor:
    """The singular vectors of a matrix, with singular values that are not far from 1.

    X = G / (safety ||G|| + epsilon), then `steps` times: A = X X^T; X = a X + (b A + c A A) X. The coefficients of Muon give
    up convergence for speed: five steps bring singular values from 0.005 to 1 of ||G|| into 0.68 to 1.16, more steps no
    closer.

    Args:
        x: The matrix, or several of one shape, (..., rows, columns).
        steps: The number of iterations.
        dtype: In what to multiply matrices: `"bfloat16"` has 2 to 3 digits. Defaults to `"float32"`.
        table: a, b and c of each iteration. Defaults to those of Muon.
        safety: Multiplies the norm. Defaults to `1`.
        epsilon: Is added to it. Defaults to `1e-7`.
    """
    is_tall, x_dtype = x.shape[-2] > x.shape[-1], x.dtype

    def product(one: Tensor, other: Tensor) -> Tensor:
        if dtype == "float32":
            return ops.matmul(one, other)
        return ops.cast(ops.matmul(ops.cast(one, dtype), ops.cast(other, dtype)), x_dtype)

    x = x / (safety * matrix_norm(x) + epsilon)
    for step in range(steps):
        a, b, c = table[min(step, len(table) - 1)]
        # A has the shorter side, and its polynomial multiplies X from there: no matrix is transposed for it.
        gram = _symmetric(transposed(x) if is_tall else x, product)
        polynomial = b * gram if isinstance(c, float) and c == 0 else b * gram + c * _symmetric(gram, product)
        x = a * x + (product(x, polynomial) if is_tall else product(polynomial, x))
    return x


def _symmetric(x: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """X X^T. Of large matrices the blocks above the diagonal are those below it, which saves up to half of the product."""
    rows = x.shape[-2]
    if rows < LEAST_ROWS_IN_BLOCKS or rows % 2:
        return product(x, transposed(x))
    upper, lower = ops.split(x, 2, axis=-2)
    across = product(lower, transposed(upper))
    first, last = _symmetric(upper, product), _symmetric(lower, product)
    tops = ops.concatenate([first, transposed(across)], axis=-1)
    return ops.concatenate([tops, ops.concatenate([across, last], axis=-1)], axis=-2)


def orthogonalized_all(
    xs: Sequence[Tensor],
    steps: int,
    dtype: str = "float32",
    table: Table = NEWTON_SCHULZ,
    safety: float = 1.0,
    epsilon: float = 1e-7,
) -> list[Tensor]:
    """Orthogonalize several matrices, in compiled code where there is some: all in one call, half of what is symmetric.

    Else those of one shape, up to a transposition, are multiplied at once. So are small ones of different shapes, with zeros
    around them, which stay zeros.
    """
    if dtype == "float32" and kernels.usable(xs):
        return kernels.orthogonalize(xs, [table[min(step, len(table) - 1)] for step in range(steps)], safety, epsilon)
    settings = steps, dtype, table, safety, epsilon
    results: dict[int, Tensor] = {}
    for (short, long), places in _stacks(xs):
        if len(places) == 1:
            results[places[0]] = orthogonalized(xs[places[0]], *settings)
            continue
        stack = orthogonalized(ops.concatenate([_wide(xs[i], short, long) for i in places]), *settings)
        start = 0
        for i in places:
            stop = start + (1 if len(xs[i].shape) == 2 else xs[i].shape[0])
            results[i] = _back(stack[start:stop], xs[i])
            start = stop
    return [results[i] for i in range(len(xs))]


def _stacks(xs: Sequence[Tensor]) -> list[tuple[tuple[int, int], list[int]]]:
    """Shapes (shorter side, longer side) of stacks, each with the places of its matrices; large ones are alone."""
    alone: list[tuple[tuple[int, int], list[int]]] = []
    groups: dict[Any, dict[tuple[int, int], list[int]]] = {}
    for i, x in enumerate(xs):
        short, long = sorted(x.shape[-2:])
        if short * long > LARGEST_IN_A_STACK:
            alone.append(((short, long), [i]))
        else:
            groups.setdefault(str(x.dtype), {}).setdefault((short, long), []).append(i)
    return alone + [stack for shapes in groups.values() for stack in _merged(xs, sorted(shapes.items()))]


def _merged(
    xs: Sequence[Tensor], stacks: list[tuple[tuple[int, int], list[int]]]
) -> list[tuple[tuple[int, int], list[int]]]:
    """The stacks, from small to large, joined where the zeros take fewer operations than a product of its own costs."""

    def operations(shape: tuple[int, int], places: list[int]) -> int:
        short, long = shape
        return sum(math.prod(xs[i].shape[:-2]) for i in places) * (4 * short**2 * long + 2 * short**3)

    merged: list[tuple[tuple[int, int], list[int]]] = []
    for shape, places in stacks:
        if merged:
            (short, long), before = merged[-1]
            larger = max(short, shape[0]), max(long, shape[1])
            added = operations(larger, before + places) - operations((short, long), before) - operations(shape, places)
            if added < WORTH_A_PRODUCT:
                merged[-1] = larger, before + places
                continue
        merged.append((shape, places))
    return merged


def _wide(x: Tensor, short: int, long: int) -> Tensor:
    """Matrices (count, shorter side, longer side), with zeros up to these sizes."""
    x = ops.expand_dims(x, 0) if len(x.shape) == 2 else x
    x = transposed(x) if x.shape[-2] > x.shape[-1] else x
    missing = short - x.shape[-2], long - x.shape[-1]
    return ops.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]))) if any(missing) else x


def _back(x: Tensor, like: Tensor) -> Tensor:
    short, long = sorted(like.shape[-2:])
    x = x if tuple(x.shape[-2:]) == (short, long) else x[:, :short, :long]
    x = transposed(x) if like.shape[-2] > like.shape[-1] else x
    return x[0] if len(like.shape) == 2 else x


def transposed(x: Tensor) -> Tensor:
    """Rows and columns exchanged, of a matrix or of each of several."""
    return ops.transpose(x) if len(x.shape) == 2 else ops.swapaxes(x, -2, -1)

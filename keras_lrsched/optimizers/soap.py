"""SOAP: Adam in the eigenbasis of Shampoo's factors."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

import keras
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.backends import cond
from keras_lrsched._core.registry import register
from keras_lrsched._core.roles import Role
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._kronecker import (
    Group,
    Kronecker,
    KroneckerOptions,
    along,
    contraction,
    eigenvectors,
    identity,
    in_order,
    multiplied_all,
    orthonormal,
    rayleigh,
    reordered,
    rotated_back,
    transposed,
)
from keras_lrsched.optimizers._numerics import average, bias_correction
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext


@register(
    "soap",
    title="Adam in the eigenbasis of Shampoo",
    paper="arXiv:2409.11321",
    code=("nikhilvyas/SOAP", "NVIDIA-NeMo/Emerging-Optimizers"),
    checked="trajectory",
    against="the authors' code and NVIDIA's, float32 widened to float64",
    deviations="`merge_dims` is not offered: `input_axes` makes matrices of other kernels",
    kind="optimizer",
    options={"learning_rate": 3e-3},
)
class SOAP(Kronecker):
    """Adam in the basis in which the gradient's correlations are about diagonal, which QR iterations follow.

    For a matrix G (m, n), from the second update on, k = t - 1:

        G' = QL^T G QR
        m' = beta_1 m' + (1 - beta_1) G';  v = beta_2 v + (1 - beta_2) G'^2
        u = QL (m' / (sqrt(v) + epsilon)) QR^T                  normalize_grads: u = u / rms(u)
        w = w - lr sqrt(1 - beta_2^k) / (1 - beta_1^k) u;  w = (1 - lr weight_decay) w
        L = shampoo_beta L + (1 - shampoo_beta) G G^T;  R = shampoo_beta R + (1 - shampoo_beta) G^T G
        when k is a multiple of precondition_frequency: QL, QR = qr(L QL), qr(R QR), columns ordered by diag(Q^T L Q)

    The first update only sets L, R and the bases, by eigenvectors: weights stay. A gradient never enters the basis that
    rotates it. m' is kept rotated, and rotated on when a basis changes, which is the same as the authors' code does by two
    more products an update.

    Matrices are, by their roles (see `Role`), kernels that multiply inputs, factors of LoRA and embeddings: one axis for all
    inputs, one for all outputs, also in attention layers. Kernels of convolutions have a factor for each axis; `input_axes`
    makes them matrices. An axis longer than `max_precond_dim` is not rotated. Each matrix of a stack, such as the experts of
    a mixture, has its own factors. Vectors, scalars, normalizations, and what `exclude_from_preconditioning` lists have
    Adam, with the same late start; vectors a factor, too, with `precondition_1d`. The first update of a variable is that
    with its first gradient.

    `form="nvidia"` is the order of NVIDIA's code: decay first, factors before they are used, with a decay rate that is
    corrected for the start; no update without a step; bases refreshed every `precondition_frequency` updates, 1 there;
    Adam's bias corrections inside the root. `correction="kl"` is KL-SOAP (arXiv:2509.03378) in that order:

        L = b L + (1 - b) G R^-1 G^T / n;  R = b R + (1 - b) G^T L^-1 G / m,    both from the old factors

    where X^-1 = Q diag(1 / max(e, epsilon)) Q^T, and e are the eigenvalues found with the basis. At first e is
    `initial_eigenvalue`. NVIDIA's code has 0 there, so that the first factors are 1 / epsilon times too large; with its
    epsilon of 1e-8 its results in float32 and in float64 differ by percents. `basis="eigh"` computes eigenvectors in each
    refresh (REKLS).

    State: for a matrix 2 (m n + m^2 + n^2) float32 numbers, so 24 bytes for each parameter of a square one; two for each
    parameter of all else. In a direction without a gradient, such as one of a rank that is not full, m' and v are rounding
    errors, and so is its step, of full length; an `epsilon` above them, in proportion to the gradients, prevents it.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a function without arguments. Defaults to `3e-3`.
        beta_1: Decay rate of the mean of gradients, at least 0 and below 1. Defaults to `0.95`.
        beta_2: Decay rate of the mean of their squares, at least 0 and below 1. Defaults to `0.95`.
        shampoo_beta: Decay rate of the factors, at least 0 and below 1. Defaults to `None`, for that of `beta_2`.
        epsilon: Added to the root. Defaults to `1e-8`.
        weight_decay: A number, a `LearningRateSchedule`, or `None`. Defaults to `0.01`.
        precondition_frequency: The number of updates between refreshes of the bases. Defaults to `10`.
        max_precond_dim: The longest axis that is rotated. Defaults to `10000`.
        precondition_1d: Whether vectors have a factor. Defaults to `False`.
        normalize_grads: Whether each matrix moves by a root mean square of the learning rate. Defaults to `False`.
        correct_bias: Whether to correct the means for their start. Defaults to `True`.
        form: `"authors"` or `"nvidia"`, as above. Defaults to `None`: NVIDIA's where `correction` or `nesterov` belong to
            it, else that of the authors.
        correction: `"kl"` for KL-SOAP, or `None`. Defaults to `None`.
        basis: `"qr"` or `"eigh"`: how a basis is refreshed. Defaults to `"qr"`.
        nesterov: Whether to look ahead, in NVIDIA's form. Defaults to `False`.
        correct_shampoo_beta: Whether the decay rate of factors is corrected for the start, in NVIDIA's form. Defaults to
            `True`.
        initial_eigenvalue: Of the factors of KL-SOAP. Defaults to `1`.
        exclude_from_preconditioning: Regular expressions; Adam updates a variable if one is found in its path. Defaults to
            `None`, for none.
        input_axes: A dictionary from regular expressions to how many of the first axes of a variable are inputs. Defaults
            to `None`, as above.
        **options: See `keras_lrsched.optimizers.Optimizer`.

    Raises:
        ValueError: If an argument is out of its range, or belongs to the other form. When the optimizer is built, if a
            variable has no more axes than in `input_axes`.

    Reference:
        Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, arXiv:2409.11321. Trajectories agree with the
        authors' code, nikhilvyas/SOAP, and with NVIDIA's Emerging-Optimizers.

    Example:

    >>> w = keras.Variable(keras.ops.zeros((2, 2)))
    >>> optimizer = SOAP(learning_rate=0.1, epsilon=1e-3, weight_decay=None)
    >>> for _ in range(2):
    ...     optimizer.apply([keras.ops.array([[3.0, 1.0], [1.0, 3.0]])], [w])
    >>> w.numpy().round(3)  # 0.1 along both of its singular vectors
    array([[-0.1, -0. ],
           [-0. , -0.1]], dtype=float32)
    """

    def __init__(
        self,
        learning_rate: LearningRate = 3e-3,
        beta_1: float = 0.95,
        beta_2: float = 0.95,
        shampoo_beta: float | None = None,
        epsilon: float = 1e-8,
        weight_decay: WeightDecay = 0.01,
        precondition_frequency: int = 10,
        max_precond_dim: int = 10000,
        precondition_1d: bool = False,
        normalize_grads: bool = False,
        correct_bias: bool = True,
        form: Literal["authors", "nvidia"] | None = None,
        correction: Literal["kl"] | None = None,
        basis: Literal["qr", "eigh"] = "qr",
        nesterov: bool = False,
        correct_shampoo_beta: bool = True,
        initial_eigenvalue: float = 1.0,
        **options: Unpack[KroneckerOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.max_precond_dim = validation.positive_int("max_precond_dim", max_precond_dim)
        self.beta_1 = validation.beta("beta_1", beta_1)
        self.beta_2 = validation.beta("beta_2", beta_2)
        self.shampoo_beta = None if shampoo_beta is None else validation.beta("shampoo_beta", shampoo_beta)
        self.epsilon = validation.non_negative_float("epsilon", epsilon)
        self.precondition_frequency = validation.positive_int("precondition_frequency", precondition_frequency)
        self.precondition_1d = precondition_1d
        self.normalize_grads = normalize_grads
        self.correct_bias = correct_bias
        self.form = validation.one_of("form", form, ("authors", "nvidia", None))
        self.correction = validation.one_of("correction", correction, ("kl", None))
        self.basis = validation.one_of("basis", basis, ("qr", "eigh"))
        self.nesterov = nesterov
        self.correct_shampoo_beta = correct_shampoo_beta
        self.initial_eigenvalue = validation.non_negative_float("initial_eigenvalue", initial_eigenvalue)
        if form == "authors" and (correction or nesterov):
            raise ValueError(
                "`correction` and `nesterov` belong to NVIDIA's form: leave `form` out. "
                f"Received: form='authors', correction={correction!r}, nesterov={nesterov!r}"
            )
        self._is_nvidia = form == "nvidia" or bool(correction) or nesterov

    @property
    def largest_axis(self) -> int:
        return self.max_precond_dim

    def has_factors(self, role: Role, is_vector: bool) -> bool:
        return self.precondition_1d if is_vector else role.kind not in NOT_MATRICES

    def make_state(self, variable: Variable) -> dict[str, Any]:
        state = self.add_own(variable, "m", "v") | {"seen": self.add_state(variable, "seen", shape=())}
        state |= self.add_for_axes(variable, "factor") | self.add_for_axes(variable, "basis", initializer=identity)
        if self.correction:
            start = keras.initializers.Constant(self.initial_eigenvalue)
            state |= self.add_for_axes(variable, "eigenvalues", is_diagonal=True, initializer=start)
        return state

    # The update

    def update_groups(self, groups: Sequence[Group]) -> dict[Any, Tensor]:
        rotations = [Rotation(group) for group in groups]
        update = self._nvidia_update if self._is_nvidia else self._authors_update
        moves = update(rotations) if rotations else []
        started = {(ctx.index, "moves"): ctx.state.seen for group in groups for ctx in group.contexts}
        for rotation in rotations:
            rotation.store()
        each = {i: move for group, part in zip(groups, moves, strict=True) for i, move in group.back(part).items()}
        return {**each, **started}

    def decay(self, w: Tensor, new: Tensor, ctx: UpdateContext) -> Tensor:
        decay = ctx.learning_rate * ctx.weight_decay
        return decay * w if self._is_nvidia else decay * ctx.shared[ctx.index, "moves"] * new

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        move, rate = ctx.shared[ctx.index], ctx.learning_rate
        if self._is_nvidia:
            return w - rate * ctx.weight_decay * w - rate * move
        k = ops.maximum(ctx.t - 1, 1.0)
        if self.correct_bias:
            rate = rate * ops.sqrt(bias_correction(self.beta_2, k)) / bias_correction(self.beta_1, k)
        w = w - rate * move
        return w - self.decay(w, w, ctx)

    def _authors_update(self, rotations: Sequence["Rotation"]) -> list[Tensor]:
        """The steps, with the bases of the update before; then the factors and, when they are due, the bases."""
        moves = []
        for each in rotations:
            is_first = each.is_first
            projected = multiplied_all(each.g, each.bases)
            m, v = average(self.beta_1, each.m, projected), average(self.beta_2, each.v, ops.square(projected))
            move = rotated_back(m / (ops.sqrt(v) + self.epsilon), each.bases)
            moves.append(ops.where(is_first, 0.0, self._normalized(move) if self.normalize_grads else move))
            each.m, each.v = ops.where(is_first, each.m, m), ops.where(is_first, each.v, v)
            beta = self.beta_2 if self.shampoo_beta is None else self.shampoo_beta
            each.factors = {i: average(beta, old, contraction(each.g, i)) for i, old in each.factors.items()}
        self._refresh(rotations, moves_v=True)
        return moves

    def _refresh(self, rotations: Sequence["Rotation"], moves_v: bool) -> None:
        """New bases: eigenvectors of variables in their first update, and of the others what `basis` names, if it is due."""
        turning = [each for each in rotations if each.factors]
        if turning:
            iterations = turning[0].group.contexts[0].iterations
            is_due = ops.logical_and(iterations > 0, ops.equal(iterations % self.precondition_frequency, 0))
            are_new = functools.reduce(ops.logical_or, [ops.any(each.is_first) for each in turning])
            refresh_all(turning, are_new, "by_eigenvectors", moves_v, of_first=True)
            refresh_all(turning, is_due, "by_qr" if self.basis == "qr" else "by_eigenvectors", moves_v, of_first=False)

    @staticmethod
    def _normalized(move: Tensor) -> Tensor:
        axes = tuple(range(1, len(move.shape)))
        return move / (1e-30 + ops.sqrt(ops.mean(ops.square(move), axis=axes, keepdims=True)))

    def _nvidia_update(self, rotations: Sequence["Rotation"]) -> list[Tensor]:
        """The factors and bases with this gradient, then the steps."""
        ctx = rotations[0].group.contexts[0]
        beta = self.beta_2 if self.shampoo_beta is None else self.shampoo_beta
        if self.correct_shampoo_beta:
            beta = 1 - (1 - beta) / bias_correction(beta, ctx.t)
        for each in rotations:
            new = self._kl_products(each) if self.correction else {i: contraction(each.g, i) for i in each.factors}
            each.factors = {i: average(ops.cast(beta, old.dtype), old, new[i]) for i, old in each.factors.items()}
        self._refresh(rotations, moves_v=False)
        return [self._nvidia_move(each, ctx.t) for each in rotations]

    def _kl_products(self, each: "Rotation") -> dict[int, Tensor]:
        """For each axis, the products of G with itself over the others, weighted by the inverses of their factors."""
        rotated = multiplied_all(each.g, each.bases)
        products = {}
        for axis in each.factors:
            weighted, count = rotated, 1
            for other in each.factors:
                if other != axis:
                    roots = ops.rsqrt(ops.maximum(each.eigenvalues[other], self.epsilon))
                    weighted = along(weighted, roots, other)
            count = math.prod(each.g.shape[1:]) // each.g.shape[axis + 1]
            basis = each.bases[axis]
            inner = contraction(weighted, axis) / count
            products[axis] = ops.matmul(basis, ops.matmul(inner, transposed(basis)))
        return products

    def _nvidia_move(self, each: "Rotation", t: Tensor) -> Tensor:
        projected = multiplied_all(each.g, each.bases)
        each.m = average(self.beta_1, each.m, projected)
        each.v = average(self.beta_2, each.v, ops.square(projected))
        mean = each.m / bias_correction(self.beta_1, t)
        if self.nesterov:
            mean = self.beta_1 * each.m / bias_correction(self.beta_1, t + 1)
            mean = mean + (1 - self.beta_1) * projected / bias_correction(self.beta_1, t)
        move = mean / (ops.sqrt(each.v / bias_correction(self.beta_2, t)) + self.epsilon)
        move = rotated_back(move, each.bases)
        return self._normalized(move) if self.normalize_grads else move


NOT_MATRICES = ("normalization", "bias", "scale")
"""Kinds of variables that are no matrices, whatever their shapes."""


class Rotation:
    """The state of a group while it is updated: all in the current bases."""

    def __init__(self, group: Group) -> None:
        self.group, self.g = group, group.of_variables(ctx.gradient for ctx in group.contexts)
        self.m, self.v = group.read("m"), group.read("v")
        seen = ops.stack([ctx.state.seen for ctx, view in group.members for _ in range(view.count)])
        self.is_first = ops.reshape(seen, (-1, *[1] * len(group.sizes))) == 0
        self.factors, self.bases = self._of_axes("factor"), self._of_axes("basis")
        has_eigenvalues = group.factors and f"eigenvalues_{group.factors[0]}" in group.contexts[0].state
        self.eigenvalues = self._of_axes("eigenvalues") if has_eigenvalues else {}

    def _of_axes(self, name: str) -> dict[int, Tensor]:
        return {i: self.group.read(f"{name}_{i}") for i in self.group.factors}

    def store(self) -> None:
        for ctx in self.group.contexts:
            ctx.state.seen = ops.ones_like(ctx.state.seen)
        self.group.write("m", self.m)
        self.group.write("v", self.v)
        for name, each in (("factor", self.factors), ("basis", self.bases), ("eigenvalues", self.eigenvalues)):
            for i, value in each.items():
                self.group.write(f"{name}_{i}", value)

    def in_bases(self, new: Mapping[int, tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The mean in other bases, and what else changes with them; see `take`."""
        turns = {i: ops.matmul(transposed(self.bases[i]), basis) for i, (_, basis) in new.items()}
        m = multiplied_all(self.m, turns)
        return [m, self.v, *(basis for _, basis in new.values()), *(values for values, _ in new.values())]

    def as_it_is(self) -> list[Tensor]:
        values = self.eigenvalues or {i: basis[:, 0] for i, basis in self.bases.items()}
        return [self.m, self.v, *self.bases.values(), *values.values()]

    def take(self, parts: Sequence[Tensor]) -> None:
        axes = self.group.factors
        self.m, self.v = parts[:2]
        self.bases = dict(zip(axes, parts[2:], strict=False))
        if self.eigenvalues:
            self.eigenvalues = dict(zip(axes, parts[2 + len(axes) :], strict=True))

    def by_eigenvectors(self, moves_v: bool) -> list[Tensor]:
        return self.in_bases({i: eigenvectors(factor) for i, factor in self.factors.items()})

    def by_qr(self, moves_v: bool) -> list[Tensor]:
        """One step of the QR iteration. The authors sort columns before it, and v with them; NVIDIA after it, without v."""
        new, v = {}, self.v
        for i, factor in self.factors.items():
            if moves_v:
                order, basis = in_order(rayleigh(self.bases[i], factor), self.bases[i])
                v, basis = reordered(v, order, i), orthonormal(ops.matmul(factor, basis))
                values = rayleigh(basis, factor) if self.eigenvalues else basis[:, 0]
            else:
                basis = orthonormal(ops.matmul(factor, self.bases[i]))
                values = rayleigh(basis, factor)
                order, basis = in_order(values, basis)
                values = ops.take_along_axis(values, order, axis=-1)
            new[i] = values, basis
        m, _, *rest = self.in_bases(new)
        return [m, v, *rest]


def refresh_all(turning: Sequence[Rotation], condition: Tensor, method: str, moves_v: bool, of_first: bool) -> None:
    """New bases by a method of `Rotation`, of the variables in their first update or of all others, where they are due."""

    def new() -> list[Tensor]:
        pairs = [
            (each, new, old)
            for each in turning
            for new, old in zip(getattr(each, method)(moves_v), each.as_it_is(), strict=True)
        ]
        return [ops.where(_first(each, x) == of_first, x, old) for each, x, old in pairs]

    def old() -> list[Tensor]:
        return [x for each in turning for x in each.as_it_is()]

    parts, start = cond(condition, new, old), 0
    for each in turning:
        length = 2 + 2 * len(each.factors)
        each.take(parts[start : start + length])
        start += length


def _first(each: Rotation, x: Tensor) -> Tensor:
    """Whether a variable is in its first update, for a tensor (number, ...)."""
    return ops.reshape(each.is_first, (-1, *[1] * (len(x.shape) - 1)))

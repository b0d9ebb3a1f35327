"""Steps of length 1 in norms of matrices: what Scion moves by, and the dual norms that NoiseAdaptive measures noise in."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras import ops

from keras_lrsched._core.types import Tensor
from keras_lrsched.optimizers._matrices import MatrixView
from keras_lrsched.optimizers._numerics import norm, sign

NORMS = ("spectral", "spectral_conv", "sign", "column", "row", "bias_rms")
OF_MATRICES = ("spectral", "spectral_conv", "column", "row")
NOT_NORMALIZED = ("column",)
"""Norms that are not divided by the number of inputs by default."""


@dataclass(frozen=True)
class NormBall:
    """A norm with its options, for one variable.

    Attributes:
        name: One of `NORMS`.
        view: The variable as a matrix (inputs, outputs); `None` for what is none.
        fans: The numbers of inputs and outputs, without the places of a convolution.
        taps: The number of these.
        normalized: Whether the number of inputs counts.
        largest: Whether a spectral step is at least as long as that of a square matrix.
    """

    name: str
    view: MatrixView | None
    fans: tuple[int, int] = (1, 1)
    taps: int = 1
    normalized: bool = True
    largest: bool = False

    @property
    def is_spectral(self) -> bool:
        return self.name in ("spectral", "spectral_conv")

    def step(self, b: Tensor, orthogonalized: Tensor | None) -> Tensor:
        """The step for a momentum, in the shape of the variable; spectral ones take the orthogonalized matrix."""
        if self.name == "bias_rms":
            return b / (ops.sqrt(ops.mean(ops.square(b))) + 1e-8)
        if self.view is None:  # the sign of a vector
            return sign(b)
        return self.view.back(self._matrix_step(self.view.matrix(b), orthogonalized))

    def _matrix_step(self, b: Tensor, orthogonalized: Any) -> Tensor:
        inputs = b.shape[-2]
        if self.is_spectral:
            return self._spectral_scale() * orthogonalized
        if self.name == "sign":
            return sign(b) / (inputs if self.normalized else 1)
        if self.name == "column":
            rms = ops.sqrt(ops.mean(ops.square(b), axis=-1, keepdims=True))
            return b / ((inputs if self.normalized else 1) * rms + 1e-8)
        length = ops.sqrt(ops.sum(ops.square(b), axis=-2, keepdims=True))
        return b / ((math.sqrt(inputs) if self.normalized else 1) * length + 1e-8)

    def _spectral_scale(self) -> float:
        inputs, outputs = self.fans
        scale = math.sqrt(outputs / inputs if self.normalized else outputs)
        return (max(1.0, scale) if self.largest else scale) / self.taps

    def dual(self, g: Tensor, orthogonalized: Tensor | None) -> Tensor:
        """The dual norm, that of gradients: nuclear for spectral norms, L1 for signs, sums of L2 norms for the others."""
        if self.view is None or self.name == "bias_rms":
            return ops.sum(ops.abs(g)) if self.name == "sign" else norm(g)
        matrix = self.view.matrix(g)
        if self.is_spectral:
            return ops.sum(matrix * orthogonalized)
        if self.name == "sign":
            return ops.sum(ops.abs(g))
        return ops.sum(ops.sqrt(ops.sum(ops.square(matrix), axis=-1 if self.name == "column" else -2)))


def checked(name: str, value: Any) -> Any:
    """A value of the argument `norms`: a name, or a dictionary with the name and its options."""
    options = {"norm": value} if isinstance(value, str) else value
    if not isinstance(options, Mapping) or not set(options) <= {"norm", "normalized", "max"} or "norm" not in options:
        raise ValueError(
            f"`{name}` must have names of norms, or dictionaries with `norm`, `normalized` and `max`. Received: {value!r}"
        )
    if options["norm"] not in NORMS:
        raise ValueError(f"`{name}` must have norms among {', '.join(NORMS)}. Received: {value!r}")
    return value if isinstance(value, str) else dict(value)


def ball(path: str, value: Any, view: MatrixView | None, fans: tuple[int, int], taps: int) -> NormBall:
    """The norm of a variable by what `checked` returned."""
    options: dict[str, Any] = {"norm": value} if isinstance(value, str) else value
    name = options["norm"]
    if name in OF_MATRICES and view is None:
        raise ValueError(f"`norms`: {name!r} is for matrices, which {path} is not. Received: {value!r}")
    normalized = options.get("normalized", name not in NOT_NORMALIZED)
    if name != "spectral_conv" and view is not None:
        fans, taps = (view.inputs, view.outputs), 1
    return NormBall(name, view, fans, taps, normalized, options.get("max", False))

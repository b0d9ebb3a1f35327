"""Compiled Newton-Schulz iterations; see `keras_lrsched.kernels` for the setting."""

from collections.abc import Sequence

import keras
from keras import ops

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels._build import mode
from keras_lrsched.kernels._loading import binding, cannot_call, place


def usable(matrices: Sequence[Tensor]) -> bool:
    """Return whether compiled code can take these tensors, which have two axes or more.

    Args:
        matrices: What is read.

    Raises:
        RuntimeError: If there is none for matrices in float32, and `KERAS_LRSCHED_FUSED` is 1.
    """
    if mode() == "0" or {keras.backend.standardize_dtype(each.dtype) for each in matrices} != {"float32"}:
        return False
    reason = cannot_call("orthogonalize", "orthogonalization of matrices", matrices)
    if reason is not None and mode() == "1":
        raise RuntimeError(f"The orthogonalization of matrices has no compiled code here: {reason}")
    return reason is None


def orthogonalize(
    matrices: Sequence[Tensor], coefficients: Sequence[Sequence[Tensor]], safety: Tensor, epsilon: Tensor
) -> list[Tensor]:
    """The compiled iterations; see `keras_lrsched.optimizers._newton_schulz`, which falls back to Keras operations.

    Args:
        matrices: Tensors in float32, of two axes or more; each stands for a matrix, or several along its first axes.
        coefficients: a, b and c of each step.
        safety: Multiplies the norm.
        epsilon: Is added to it.
    """
    binding("orthogonalize").load(place())
    settings = [ops.cast(ops.convert_to_tensor(each), "float32") for row in coefficients for each in row]
    bounds = [ops.cast(ops.convert_to_tensor(each), "float32") for each in (safety, epsilon)]
    return binding("orthogonalize").orthogonalize(matrices, ops.stack(settings), ops.stack(bounds))

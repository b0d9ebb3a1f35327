"""The update in JAX: a call through XLA's foreign function interface, whose results take the places of its operands."""

import ctypes
import functools
from collections.abc import Sequence

import jax
import numpy as np

from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.kernels._build import library, mode

TARGET = "keras_lrsched_update"


def unavailable(variables: Sequence[Variable]) -> str | None:
    """Reason why these variables cannot be updated here, or `None`."""
    import keras

    if jax.default_backend() not in ("cpu", "gpu"):
        return f"JAX on {jax.default_backend()} has no kernel."
    if jax.default_backend() == "gpu" and mode() != "1":
        return "The CUDA kernels have been compiled, but never run: KERAS_LRSCHED_FUSED=1 tries them."
    if keras.distribution.distribution() is not None:
        return "Under a `keras.distribution` the update is left to JAX, which partitions it."
    return None


@functools.cache
def load(place: str) -> None:
    """Build and load what is needed."""
    handler = ctypes.CDLL(str(library("jax"))).keras_lrsched_update
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(handler), platform="cpu")
    if place == "gpu":
        handler = ctypes.CDLL(str(library("jax_cuda"))).keras_lrsched_update_cuda
        jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(handler), platform="CUDA")


def update(
    method: str,
    variables: Sequence[Variable],
    slots: Sequence[Sequence[Variable]],
    gradients: Sequence[Tensor],
    rates: Tensor,
    parameters: Tensor,
    seed: Tensor,
    stochastic_rounding: bool,
    blocks: Sequence[int],
) -> None:
    """As `keras_lrsched.kernels.update`."""
    targets = [*variables, *(slot for same in zip(*slots, strict=True) for slot in same)]
    old = [variable.value for variable in targets]
    for variable, gradient in zip(variables, gradients, strict=True):
        if gradient.shape != variable.value.shape:
            raise ValueError(f"A variable of shape {variable.value.shape} has a gradient of shape {gradient.shape}.")
    call = jax.ffi.ffi_call(
        TARGET,
        [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in old],
        input_output_aliases={i: i for i in range(len(old))},
    )
    attributes = {"method": method, "stochastic_rounding": stochastic_rounding, "blocks": np.array(blocks, "int64")}
    new = call(*old, *gradients, rates, parameters, seed, **attributes)
    for variable, value in zip(targets, new, strict=True):
        variable.assign(value)

"""Quantization in JAX: calls through XLA's foreign function interface."""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels import _c_interface as core
from keras_lrsched.kernels._build import library, mode

TARGETS = ("quantize", "fake_quantize", "dequantize")


def unavailable(tensors: Sequence[Tensor]) -> str | None:
    """Reason why these tensors have no kernel here, or `None`."""
    import keras

    del tensors
    if jax.default_backend() not in ("cpu", "gpu"):
        return f"JAX on {jax.default_backend()} has no kernel."
    if jax.default_backend() == "gpu" and mode() != "1":
        return "The CUDA kernels have been compiled, but never run: KERAS_LRSCHED_FUSED=1 tries them."
    if keras.distribution.distribution() is not None:
        return "Under a `keras.distribution` quantization is left to JAX, which partitions it."
    return None


@functools.cache
def load(place: str) -> None:
    """Build and load what is needed."""
    core.load("quantize")
    _register(library("jax", "quantize"), "", "cpu")
    if place == "gpu":
        _register(library("jax_cuda", "quantize"), "_cuda", "CUDA")


def _register(path: Path, suffix: str, platform: str) -> None:
    handlers = ctypes.CDLL(str(path))
    for name in TARGETS:
        handler = getattr(handlers, f"keras_lrsched_{name}{suffix}")
        jax.ffi.register_ffi_target(f"keras_lrsched_{name}", jax.ffi.pycapsule(handler), platform=platform)


def rotates() -> bool:
    """Whether kernels take Hadamard transforms: those of CUDA do not."""
    return jax.default_backend() == "cpu"


def quantize(x: Tensor, spec: Sequence[int], seed: Tensor, signs: Tensor, has_bytes: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As `keras_lrsched.kernels.quantize.quantize`, but with codes and scales as rows."""
    sizes = core.stored_sizes(core.make_quantizer(x.shape, spec, core.FLOAT32))
    results = [
        jax.ShapeDtypeStruct((sizes.code_rows, sizes.code_bytes), jnp.uint8),
        jax.ShapeDtypeStruct((sizes.scale_rows, sizes.scale_columns), jnp.uint8 if has_bytes else jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.float32),
    ]
    return _call("quantize", results, spec, x, seed, signs)


def fake_quantize(x: Tensor, spec: Sequence[int], seed: Tensor, signs: Tensor) -> Tensor:
    """As `keras_lrsched.kernels.quantize.fake_quantize`."""
    return _call("fake_quantize", jax.ShapeDtypeStruct(x.shape, x.dtype), spec, x, seed, signs)


def dequantize(codes: Tensor, scales: Tensor, tensor_scale: Tensor, shape: Sequence[Any], spec: Sequence[int]) -> Tensor:
    """As `keras_lrsched.kernels.quantize.dequantize`."""
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    return _call("dequantize", result, spec, codes, scales, tensor_scale)


def _call(name: str, results: Any, spec: Sequence[int], *operands: Tensor) -> Any:
    call = jax.ffi.ffi_call(f"keras_lrsched_{name}", results, vmap_method="sequential")
    return call(*operands, numbers=np.array(spec, "int64"))

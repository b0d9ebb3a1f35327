"""Quantization in JAX: calls through XLA's foreign function interface."""

import ctypes
import functools

import jax
import jax.numpy as jnp
import numpy as np

from keras_lrsched.kernels import _c_interface as core
from keras_lrsched.kernels._build import library, mode

TARGETS = ("quantize", "fake_quantize", "dequantize")


def unavailable(tensors):
    """Why these tensors have no kernel here, or `None`."""
    import keras

    del tensors
    if jax.default_backend() not in ("cpu", "gpu"):
        return f"JAX on {jax.default_backend()} has no kernel."
    if jax.default_backend() == "gpu" and mode() != "1":
        return "The CUDA kernels have been compiled, but never run: KERAS_LRSCHED_FUSED=1 tries them."
    if keras.distribution.distribution() is not None:
        return "Under a `keras.distribution` quantization is left to JAX, which knows how to share it out."
    return None


@functools.cache
def load(place):
    """Builds and loads what is needed."""
    core.load("quantize")
    _register(library("jax", "quantize"), "", "cpu")
    if place == "gpu":
        _register(library("jax_cuda", "quantize"), "_cuda", "CUDA")


def _register(path, suffix, platform):
    handlers = ctypes.CDLL(str(path))
    for name in TARGETS:
        handler = getattr(handlers, f"keras_lrsched_{name}{suffix}")
        jax.ffi.register_ffi_target(f"keras_lrsched_{name}", jax.ffi.pycapsule(handler), platform=platform)


def rotates():
    """Whether kernels take Hadamard transforms: those of CUDA do not."""
    return jax.default_backend() == "cpu"


def quantize(x, numbers, seed, signs, has_bytes):
    """As `keras_lrsched.kernels.quantize.quantize`, but with codes and scales as rows."""
    sizes = core.stored_sizes(core.make_quantizer(x.shape, numbers, core.FLOAT32))
    results = [
        jax.ShapeDtypeStruct((sizes.code_rows, sizes.code_bytes), jnp.uint8),
        jax.ShapeDtypeStruct((sizes.scale_rows, sizes.scale_columns), jnp.uint8 if has_bytes else jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.float32),
    ]
    return _call("quantize", results, numbers, x, seed, signs)


def fake_quantize(x, numbers, seed, signs):
    """As `keras_lrsched.kernels.quantize.fake_quantize`."""
    return _call("fake_quantize", jax.ShapeDtypeStruct(x.shape, x.dtype), numbers, x, seed, signs)


def dequantize(codes, scales, tensor_scale, shape, numbers):
    """As `keras_lrsched.kernels.quantize.dequantize`."""
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    return _call("dequantize", result, numbers, codes, scales, tensor_scale)


def _call(name, results, numbers, *operands):
    call = jax.ffi.ffi_call(f"keras_lrsched_{name}", results, vmap_method="sequential")
    return call(*operands, numbers=np.array(numbers, "int64"))

"""Products in JAX: of int8 matrices a call through XLA's foreign function interface on CPU, XLA's own product on GPUs; of
FP8 matrices always the latter.
"""

import ctypes
import functools
from collections.abc import Sequence

import jax

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels._build import library

TARGET = "keras_lrsched_matmul"


def unavailable(tensors: Sequence[Tensor], output: str) -> str | None:
    """Reason why these tensors have no kernel here, or `None`."""
    import keras

    del tensors
    if keras.distribution.distribution() is not None:
        return "Under a `keras.distribution` the product is left to JAX, which partitions it."
    if jax.default_backend() != "cpu" and (jax.default_backend() != "gpu" or output == "blocks"):
        return f"JAX on {jax.default_backend()} has no product for this."
    return None


@functools.cache
def load(place: str) -> None:
    """Build and load what is needed."""
    if place == "cpu":
        handler = ctypes.CDLL(str(library("jax", "matmul"))).keras_lrsched_matmul
        jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(handler), platform="cpu")


def multiply(
    a: Tensor, b: Tensor, a_scales: Tensor, b_scales: Tensor, transpose_a: bool, transpose_b: bool, output: str
) -> Tensor:
    """As `keras_lrsched.kernels.matmul.multiply`."""
    if jax.default_backend() == "gpu":
        return _by_xla(a, b, a_scales, b_scales, transpose_a, transpose_b, output)
    shape = a.shape[1 if transpose_a else 0], b.shape[0 if transpose_b else 1]
    result = jax.ShapeDtypeStruct(shape, "int32" if output == "int32" else "float32")
    call = jax.ffi.ffi_call(TARGET, result, vmap_method="sequential")
    return call(a, b, a_scales, b_scales, transpose_a=transpose_a, transpose_b=transpose_b, output=output)


def _by_xla(
    a: Tensor, b: Tensor, a_scales: Tensor, b_scales: Tensor, transpose_a: bool, transpose_b: bool, output: str
) -> Tensor:
    """The same by XLA, which calls cuBLAS with integers; this has not been run on a GPU."""
    axes = (((0 if transpose_a else 1,), (1 if transpose_b else 0,)), ((), ()))
    sums = jax.lax.dot_general(a, b, axes, preferred_element_type="int32")
    if output == "int32":
        return sums
    return sums.astype("float32") * (a_scales.reshape(-1, 1) * b_scales.reshape(1, -1))


def gpu_has_fp8() -> bool:
    """Whether arrays are on an NVIDIA GPU with products of FP8 matrices: Ada, Hopper and later."""
    device = jax.devices()[0]
    capability = getattr(device, "compute_capability", "")
    is_nvidia = device.platform == "gpu" and capability.replace(".", "").isdigit()
    return is_nvidia and tuple(map(int, capability.split("."))) >= (8, 9)


def multiply_fp8(a: Tensor, b: Tensor, a_dtype: str, b_dtype: str, scale: Tensor) -> Tensor:
    """As `keras_lrsched.kernels.matmul.multiply_fp8`; this has not been run on a GPU.

    XLA makes a call of cuBLASLt of it, `__cublas$lt$matmul$f8`, and of the scale an argument of this call. It fills sizes
    that are no multiples of 16 with zeros, and lays operands out as the call requires.
    """
    a, b = (jax.lax.bitcast_convert_type(each, dtype) for each, dtype in ((a, a_dtype), (b, b_dtype)))
    # With the default precision sums would have fewer bits than float32 on Hopper.
    axes, precision = (((1,), (1,)), ((), ())), jax.lax.Precision.HIGHEST
    return jax.lax.dot_general(a, b, axes, precision, preferred_element_type="float32") * scale

"""Products of int8 matrices in JAX: a call through XLA's foreign function interface on CPU, XLA's own product on GPUs."""

import ctypes
import functools

import jax

from keras_lrsched.kernels.build import library

TARGET = "keras_lrsched_matmul"


def unavailable(tensors, output):
    """Why these tensors have no kernel here, or `None`."""
    import keras

    del tensors
    if keras.distribution.distribution() is not None:
        return "Under a `keras.distribution` the product is left to JAX, which knows how to share it out."
    if jax.default_backend() != "cpu" and (jax.default_backend() != "gpu" or output == "blocks"):
        return f"JAX on {jax.default_backend()} has no product for this."
    return None


@functools.cache
def load(place):
    """Builds and loads what is needed."""
    if place == "cpu":
        handler = ctypes.CDLL(str(library("jax", "matmul"))).keras_lrsched_matmul
        jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(handler), platform="cpu")


def multiply(a, b, a_scales, b_scales, transpose_a, transpose_b, output):
    """As `keras_lrsched.kernels.matmul.multiply`."""
    if jax.default_backend() == "gpu":
        return _by_xla(a, b, a_scales, b_scales, transpose_a, transpose_b, output)
    shape = a.shape[1 if transpose_a else 0], b.shape[0 if transpose_b else 1]
    result = jax.ShapeDtypeStruct(shape, "int32" if output == "int32" else "float32")
    call = jax.ffi.ffi_call(TARGET, result, vmap_method="sequential")
    return call(a, b, a_scales, b_scales, transpose_a=transpose_a, transpose_b=transpose_b, output=output)


def _by_xla(a, b, a_scales, b_scales, transpose_a, transpose_b, output):
    """What cuBLAS computes with integers; this has not been run on a GPU."""
    axes = (((0 if transpose_a else 1,), (1 if transpose_b else 0,)), ((), ()))
    sums = jax.lax.dot_general(a, b, axes, preferred_element_type="int32")
    if output == "int32":
        return sums
    return sums.astype("float32") * (a_scales.reshape(-1, 1) * b_scales.reshape(1, -1))

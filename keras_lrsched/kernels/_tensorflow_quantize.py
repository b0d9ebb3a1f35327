"""Quantization in TensorFlow: ops without state, eagerly, in graphs, and in what XLA compiles."""

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import tensorflow as tf

from keras_lrsched._core.types import Tensor
from keras_lrsched.kernels import _loading
from keras_lrsched.kernels._build import library, mode


def unavailable(tensors: Sequence[Tensor]) -> str | None:
    """Reason why these tensors have no kernel here, or `None`."""
    del tensors
    if tf.config.list_logical_devices("GPU"):
        if _loading.place() != "xla":
            return "TensorFlow tensors on a GPU have a kernel with jit_compile only."
        if mode() != "1":
            return "The CUDA kernels have been compiled, but never run: KERAS_LRSCHED_FUSED=1 tries them."
    return None


def load(place: str) -> None:
    """Build and load what is needed; where XLA compiles, its part, too, which takes longer."""
    _ops()
    if place == "xla":
        _load_for_xla()


def rotates() -> bool:
    """Whether kernels take Hadamard transforms: those of CUDA do not."""
    return not tf.config.list_logical_devices("GPU")


def quantize(x: Tensor, spec: Sequence[int], seed: Tensor, signs: Tensor, has_bytes: bool) -> tuple[Tensor, Tensor, Tensor]:
    """As `keras_lrsched.kernels.quantize.quantize`, but with codes and scales as rows."""
    return _ops().keras_lrsched_quantize(
        x=x, seed=seed, signs=signs, scale_type=tf.uint8 if has_bytes else tf.float32, numbers=list(spec)
    )


def fake_quantize(x: Tensor, spec: Sequence[int], seed: Tensor, signs: Tensor) -> Tensor:
    """As `keras_lrsched.kernels.quantize.fake_quantize`."""
    return _ops().keras_lrsched_fake_quantize(x=x, seed=seed, signs=signs, numbers=list(spec))


def dequantize(codes: Tensor, scales: Tensor, tensor_scale: Tensor, shape: Sequence[Any], spec: Sequence[int]) -> Tensor:
    """As `keras_lrsched.kernels.quantize.dequantize`."""
    sizes = [-1 if size is None else size for size in shape]
    return _ops().keras_lrsched_dequantize(
        codes=codes, scales=scales, tensor_scale=tensor_scale, sizes=sizes, numbers=list(spec)
    )


@functools.cache
def _ops() -> ModuleType:
    loaded = tf.load_op_library(str(library("tensorflow", "quantize")))
    for name in ("KerasLrschedQuantize", "KerasLrschedFakeQuantize", "KerasLrschedDequantize"):
        tf.no_gradient(name)
    return loaded


@functools.cache
def _load_for_xla() -> None:
    target = "tensorflow_xla_cuda" if tf.config.list_logical_devices("GPU") else "tensorflow_xla"
    tf.load_library(str(library(target, "quantize")))

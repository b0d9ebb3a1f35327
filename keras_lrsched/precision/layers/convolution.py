"""Convolutions in low precision: patches of the inputs, times the kernel."""

import math
from typing import Any

import keras
from keras import ops

from keras_lrsched._core import keras_private
from keras_lrsched._core.training_loop import is_exporting
from keras_lrsched.precision.layers._base import Quantized, add_adapter, quantizes


class QuantizedConvolution(Quantized):
    """Mixed into a convolution. A patch of the inputs is a row of (positions of the kernel, channels) numbers to be
    summed."""

    data_format: Any
    kernel_size: Any
    strides: Any
    dilation_rate: Any
    padding: Any
    _kernel: Any
    lora_kernel_a: Any
    lora_kernel_b: Any
    lora_rank: Any
    filters: Any
    bias: Any
    activation: Any

    def call(self, inputs: Any) -> Any:
        if self.gemm is None:
            return super().call(inputs)
        channels_first = self.data_format == "channels_first"
        x = ops.moveaxis(inputs, 1, -1) if channels_first else inputs
        x = patches(x, self.kernel_size, self.strides, self.dilation_rate, self.padding)
        y = ops.cast(
            self.gemm(x, ops.reshape(keras_private.kernel_without_adapter(self), (-1, self.filters))), self.compute_dtype
        )
        y = add_adapter(self, y, lambda: self._adapter(x))
        y = y if self.bias is None else ops.add(y, self.bias)
        y = ops.moveaxis(y, -1, 1) if channels_first else y
        return y if self.activation is None else self.activation(y)

    def _adapter(self, x: Any) -> Any:
        return ops.matmul(ops.matmul(x, ops.reshape(self.lora_kernel_a, (-1, self.lora_rank))), self.lora_kernel_b)


def patches(x: Any, size: Any, strides: Any, dilation: Any, padding: Any) -> Any:
    """(batch, *places, channels) -> (batch, *results, positions of the kernel times channels)."""
    if padding != "valid":
        x = ops.pad(x, [(0, 0), *_padding(x.shape[1:-1], size, strides, dilation, padding), (0, 0)])
    for axis, (n, stride, rate) in enumerate(zip(size, strides, dilation, strict=True), start=1):
        x = _windows(x, axis, n, stride, rate)
    rank = len(size)
    return ops.reshape(x, (*ops.shape(x)[: rank + 1], math.prod(x.shape[rank + 1 :])))


def _windows(x: Any, axis: int, n: int, stride: int, rate: int) -> Any:
    """Adds an axis for the `n` positions of the kernel along `axis`, before the channels."""
    shape = ops.shape(x)
    before, size, after = shape[:axis], shape[axis], shape[axis + 1 :]
    results = (size - (n - 1) * rate - 1) // stride + 1
    if is_exporting():  # LiteRT slices tensors of 5 axes at most
        starts = range(0, n * rate, rate)
        parts = [x[(slice(None),) * axis + (slice(i, i + (results - 1) * stride + 1, stride),)] for i in starts]
        return ops.stack(parts, axis=-2)
    # `axis` becomes two, so that no slice has a stride: the gradient of those is slow on TensorFlow.
    missing = -size % stride
    if stride > 1:
        x = ops.pad(x, [(0, missing) if i == axis else (0, 0) for i in range(len(shape))])
    x = ops.reshape(x, (*before, (size + missing) // stride, stride, *after))
    taken = []
    for place in range(0, n * rate, rate):
        first = (*(0 for _ in before), place // stride, place % stride, *(0 for _ in after))
        taken.append(ops.reshape(ops.slice(x, first, (*before, results, 1, *after)), (*before, results, *after)))
    return ops.stack(taken, axis=-2)


def _padding(places: Any, size: Any, strides: Any, dilation: Any, padding: Any) -> Any:
    """The padding of Keras before and after each axis. With `"same"` there are ceil(places / stride) results."""
    for n, k, stride, rate in zip(places, size, strides, dilation, strict=True):
        span = (k - 1) * rate
        if padding == "causal":
            yield span, 0
            continue
        if n is None and stride > 1:
            raise ValueError(
                f"Strides with padding='same' need known sizes in a quantized layer. Received: sizes={tuple(places)}"
            )
        missing = span if stride == 1 else max((-(-n // stride) - 1) * stride + span + 1 - n, 0)
        yield missing // 2, missing - missing // 2


_ARGUMENTS = """

    Args:
        *args: As without "Quantized".
        recipe: A `Recipe` or its name. Defaults to `None`: as without.
        context: A `LayerContext`; `quantize_model` sets it. Defaults to that of the only layer.
        **kwargs: As without "Quantized".
    """


@quantizes(keras.layers.Conv1D)
class QuantizedConv1D(QuantizedConvolution, keras.layers.Conv1D):
    __doc__ = "`keras.layers.Conv1D` whose product of patches and kernel follows a recipe." + _ARGUMENTS


@quantizes(keras.layers.Conv2D)
class QuantizedConv2D(QuantizedConvolution, keras.layers.Conv2D):
    __doc__ = "`keras.layers.Conv2D` whose product of patches and kernel follows a recipe." + _ARGUMENTS

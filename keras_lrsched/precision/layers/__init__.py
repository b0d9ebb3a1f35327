"""Keras layers that compute in low precision, and how an existing layer becomes one."""

import keras

from keras_lrsched.precision.layers._base import QUANTIZED, Quantized, convert_in_place
from keras_lrsched.precision.layers._conversion import (
    convert,
    flattened,
    forget_in_configuration,
    keep_in_configuration,
    quantized_base,
    resume_rematerialization,
    stop_rematerialization,
)
from keras_lrsched.precision.layers._gemm_layer import fits
from keras_lrsched.precision.layers.attention import QuantizedGroupQueryAttention, QuantizedMultiHeadAttention, projections
from keras_lrsched.precision.layers.convolution import QuantizedConv1D, QuantizedConv2D
from keras_lrsched.precision.layers.dense import QuantizedDense
from keras_lrsched.precision.layers.einsum_dense import QuantizedEinsumDense, matrix_form

__all__ = [
    "QUANTIZED",
    "Quantized",
    "QuantizedConv1D",
    "QuantizedConv2D",
    "QuantizedDense",
    "QuantizedEinsumDense",
    "QuantizedGroupQueryAttention",
    "QuantizedMultiHeadAttention",
    "convert",
    "convert_in_place",
    "fits",
    "flattened",
    "forget_in_configuration",
    "keep_in_configuration",
    "matrix_form",
    "projections",
    "quantized_base",
    "resume_rematerialization",
    "stop_rematerialization",
]

if hasattr(keras.layers, "ReversibleEmbedding"):  # since Keras 3.12
    from keras_lrsched.precision.layers.embedding import QuantizedReversibleEmbedding as QuantizedReversibleEmbedding

    __all__ += ["QuantizedReversibleEmbedding"]

"""Low precision: formats, quantization, gradients through it, and rotations that spread outliers.

    q = quantize(x, "MXFP4")                      codes and scales
    y = dequantize(q)                             float32 again
    y = fake_quantize(x, "NVFP4", gradient="dge") both, in training
    y = matmul(q, r)                              of two quantized tensors
    y = quest(x, bits=4)                          on the grid of QuEST
    x = hadamard(x, 128)                          rotated

`FORMATS` holds the named formats; a `Format` of one's own says which element type, block and scale it has.
"""

from keras_lrsched.precision import layers as layers
from keras_lrsched.precision import recipes as recipes
from keras_lrsched.precision._fake_quantize import dge_factor, fake_quantize
from keras_lrsched.precision._hadamard import NVFP4_SIGNS, hadamard, random_signs
from keras_lrsched.precision._matmul import int8_matmul, matmul
from keras_lrsched.precision._quantized import QuantizedTensor, dequantize, quantize
from keras_lrsched.precision._quest import quest
from keras_lrsched.precision.elements import E2M1, E2M3, E3M2, E4M3, E5M2, FIXED8, INT4, INT8, Element
from keras_lrsched.precision.formats import FORMATS, SCALE_RULES, Format, get_format
from keras_lrsched.precision.loss_scale_optimizer import LossScaleOptimizer
from keras_lrsched.precision.model import (
    QuantizationReport,
    quantize_model,
    restore_model,
    switch_recipe,
)
from keras_lrsched.precision.quantized_state import QuantizedState
from keras_lrsched.precision.recipe import RECIPES, LayerContext, Recipe, get_recipe

__all__ = [
    "E2M1",
    "E2M3",
    "E3M2",
    "E4M3",
    "E5M2",
    "FIXED8",
    "FORMATS",
    "INT4",
    "INT8",
    "NVFP4_SIGNS",
    "RECIPES",
    "SCALE_RULES",
    "Element",
    "Format",
    "LayerContext",
    "LossScaleOptimizer",
    "QuantizationReport",
    "QuantizedState",
    "QuantizedTensor",
    "Recipe",
    "dequantize",
    "dge_factor",
    "fake_quantize",
    "get_format",
    "get_recipe",
    "hadamard",
    "int8_matmul",
    "matmul",
    "quantize",
    "quantize_model",
    "quest",
    "random_signs",
    "restore_model",
    "switch_recipe",
]

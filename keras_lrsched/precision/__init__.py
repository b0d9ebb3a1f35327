"""Low precision: formats, quantization, gradients through it, and recipes that train a model with it.

    q = quantize(x, "MXFP4")                      codes and scales
    y = dequantize(q)                             float32 again
    y = fake_quantize(x, "NVFP4", gradient="dge") both, in training
    y = matmul(q, r)                              of two quantized tensors
    y = quest(x, bits=4)                          on the grid of QuEST
    x = hadamard(x, 128)                          rotated
    quantize_model(model, "nvfp4")                all products of a model with kernels

`FORMATS` holds the named formats; a `Format` of one's own has an element type, a block and a scale. `recipe_names` lists the
recipes. To write a recipe, derive from `Recipe`; its `rule` returns the `LinearGemms` of a layer.
"""

from keras_lrsched._core.registry import register
from keras_lrsched.precision import layers as layers
from keras_lrsched.precision import recipes as recipes
from keras_lrsched.precision._fake_quantize import dge_factor, fake_quantize
from keras_lrsched.precision._gemms import GemmSpec, LinearGemms, Rule
from keras_lrsched.precision._hadamard import NVFP4_SIGNS, hadamard, random_signs
from keras_lrsched.precision._matmul import int8_matmul, matmul
from keras_lrsched.precision._operands import IDENTITY, Cast, Operand, QuantizedOperand
from keras_lrsched.precision._quantized import QuantizedTensor, dequantize, quantize
from keras_lrsched.precision._quest import quest
from keras_lrsched.precision.elements import E2M1, E2M3, E3M2, E4M3, E5M2, FIXED8, INT4, INT8, Element
from keras_lrsched.precision.formats import FORMATS, SCALE_RULES, Format, get_format
from keras_lrsched.precision.loss_scale_optimizer import LossScaleOptimizer
from keras_lrsched.precision.model import QuantizationReport, quantize_model, restore_model, switch_recipe
from keras_lrsched.precision.quantized_state import QuantizedState
from keras_lrsched.precision.recipe import LayerContext, Recipe, get_recipe, recipe_names

__all__ = [
    "E2M1",
    "E2M3",
    "E3M2",
    "E4M3",
    "E5M2",
    "FIXED8",
    "FORMATS",
    "IDENTITY",
    "INT4",
    "INT8",
    "NVFP4_SIGNS",
    "SCALE_RULES",
    "Cast",
    "Element",
    "Format",
    "GemmSpec",
    "LayerContext",
    "LinearGemms",
    "LossScaleOptimizer",
    "Operand",
    "QuantizationReport",
    "QuantizedOperand",
    "QuantizedState",
    "QuantizedTensor",
    "Recipe",
    "Rule",
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
    "recipe_names",
    "register",
    "restore_model",
    "switch_recipe",
]

"""Recipes from the literature, a module each. `quantize_model` takes them, or their names."""

from keras_lrsched.precision.recipes.aqt_int4 import AQTInt4
from keras_lrsched.precision.recipes.coat import Coat
from keras_lrsched.precision.recipes.double_rounding import DoubleRounding
from keras_lrsched.precision.recipes.forward_only import ForwardOnly
from keras_lrsched.precision.recipes.fp4_dge import FP4DGE
from keras_lrsched.precision.recipes.fp4_target_precision import FP4TargetPrecision
from keras_lrsched.precision.recipes.fp8_current import FP8Current
from keras_lrsched.precision.recipes.fp8_delayed import FP8Delayed
from keras_lrsched.precision.recipes.int8_jetfire import INT8Jetfire
from keras_lrsched.precision.recipes.int8_switchback import INT8Switchback
from keras_lrsched.precision.recipes.mxfp8 import MXFP8
from keras_lrsched.precision.recipes.nvfp4 import NVFP4
from keras_lrsched.precision.recipes.quartet_mxfp4 import QuartetMXFP4
from keras_lrsched.precision.recipes.quest import Quest
from keras_lrsched.precision.recipes.wta_crs import WtaCrs

__all__ = [
    "FP4DGE",
    "MXFP8",
    "NVFP4",
    "AQTInt4",
    "Coat",
    "DoubleRounding",
    "FP4TargetPrecision",
    "FP8Current",
    "FP8Delayed",
    "ForwardOnly",
    "INT8Jetfire",
    "INT8Switchback",
    "QuartetMXFP4",
    "Quest",
    "WtaCrs",
]

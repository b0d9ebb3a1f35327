"""Recipes from the literature, a module each. `quantize_model` takes them, or their names."""

from keras_lrsched.precision.recipes.mxfp8 import MXFP8

__all__ = ["MXFP8"]

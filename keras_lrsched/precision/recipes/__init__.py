"""Recipes from the literature, a module each. `quantize_model` takes them, or their names."""

from keras_lrsched._core import registry

globals().update(registry.import_methods(__name__))
__all__ = sorted(entry.target.__name__ for entry in registry.entries("precision", "recipe"))

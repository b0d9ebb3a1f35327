"""Callbacks: watch training, set values.

To write one that sets values, derive from `Controller`, or, for computations with gradients within the compiled step, from
`GradientController`.
"""

from keras_lrsched._core import registry
from keras_lrsched.callbacks.controller import Controller
from keras_lrsched.callbacks.gradient_controller import GradientController
from keras_lrsched.callbacks.snapshot import Snapshot

globals().update(registry.import_methods(__name__))
__all__ = registry.public_names(globals())

"""keras_lrsched decides how a Keras model is trained: its learning rate, its update rule, its precision."""

from keras_lrsched import schedules
from keras_lrsched.version import __version__

__all__ = ["__version__", "schedules"]

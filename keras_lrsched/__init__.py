"""keras_lrsched decides how a Keras model is trained: its learning rate, its update rule, its precision."""

import os
import sys

from keras_lrsched.version import __version__

__all__ = ["__version__", "callbacks", "laws", "optimizers", "precision", "schedules"]

# Every room is imported at once, so that `keras.saving` finds their classes. Not so for our own command: it must be able to
# choose the backend first, and to say in one line that there is none.
if os.path.basename(sys.argv[0]).removesuffix(".exe") not in ("keras-lrsched", "-m"):
    from keras_lrsched import callbacks, laws, optimizers, precision, schedules

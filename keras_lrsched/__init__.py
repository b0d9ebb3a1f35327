"""keras_lrsched decides how a Keras model is trained: its learning rate, its update rule, its precision."""

import os
import sys

from keras_lrsched.version import __version__

__all__ = ["__version__", "callbacks", "data", "laws", "optimizers", "precision", "schedules"]


def _is_own_command(argv, all_of_command_line):
    """Return `True` within `keras-lrsched` and `python -m keras_lrsched`, where `argv[0]` is `-m` at first."""
    if argv[0] == "-m":
        module = all_of_command_line[-len(argv)].removeprefix("-m")
        return module.partition(".")[0] == __name__
    return os.path.basename(argv[0]).removesuffix(".exe") == "keras-lrsched"


# Every room is imported at once, so that `keras.saving` finds their classes. Not so for our own command: it must be able to
# choose the backend first, and to say in one line that there is none.
if not _is_own_command(sys.argv, sys.orig_argv):
    from keras_lrsched import callbacks, data, laws, optimizers, precision, schedules

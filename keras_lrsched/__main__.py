"""`python -m keras_lrsched` is the command `keras-lrsched`."""

import os
import sys

if __name__ == "__main__":
    # Python imports the package first, and Keras with it. The command has to choose the backend before that.
    os.execv(sys.executable, [sys.executable, "-m", "keras_lrsched_command", *sys.argv[1:]])

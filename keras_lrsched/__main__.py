"""`python -m keras_lrsched` is the command `keras-lrsched`."""

import sys

from keras_lrsched.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""The command `keras-lrsched`, outside of the package, which it imports without its rooms, and so without Keras."""

import sys


def main() -> int:
    sys.modules.setdefault("keras_lrsched_command", sys.modules[__name__])  # what keras_lrsched/__init__.py looks for
    from keras_lrsched.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())

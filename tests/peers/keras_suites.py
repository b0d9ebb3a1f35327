"""Runs Keras' own tests, as the installed Keras brings them, with this package's classes under Keras' names.

    KERAS_BACKEND=jax python -m tests.peers.keras_suites -n 2

takes those files on optimizers, schedules, callbacks, saving and the trainer that name one of the classes. What fails must
be in `keras_differences.py`, with the reason, and what is there must fail. Arguments are those of pytest.
"""

import os
import re
import sys

import keras
import pytest

from .keras_names import CLASSES, FOLDER, SCHEDULES

VERSION = "3.15"
"""Of Keras, that `keras_differences.py` lists the failing tests of."""
SUITES = ("optimizers", "callbacks", "saving", "trainers")


def files():
    names, strings = "|".join([*CLASSES, *SCHEDULES]), "|".join(CLASSES).lower()
    mentions = re.compile(rf"\b({names})\b|[\"']({strings})[\"']")
    tests = [file for suite in SUITES for file in sorted((FOLDER / suite).rglob("*_test.py"))]
    return [str(file) for file in tests if mentions.search(file.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    if not keras.__version__.startswith(f"{VERSION}."):
        sys.exit(f"keras_differences.py is of Keras {VERSION}. Installed: {keras.__version__}")
    options = ["-p", "tests.peers.keras_names", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(FOLDER), "-q"]
    sys.exit(pytest.main([*options, *files(), *sys.argv[1:]]))

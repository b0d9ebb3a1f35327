"""The versions of Keras that the package was tested with."""

import warnings

import keras

from keras_lrsched.version import KERAS


def warn_if_untested() -> None:
    """Warn once, at import, if Keras is older or newer than what was tested."""
    oldest, below = KERAS
    if not _numbers(oldest) <= _numbers(keras.__version__) < _numbers(below):
        warnings.warn(
            f"Keras {keras.__version__} is installed, but keras_lrsched was tested with Keras >={oldest},<{below} only: "
            "what it relies on may be another way there.",
            stacklevel=3,
        )


def _numbers(version: str) -> tuple[int, ...]:
    """Major and minor version."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)

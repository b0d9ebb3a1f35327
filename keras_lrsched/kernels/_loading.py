"""Loads the compiled code of a family of kernels for the backend, or returns the reason why there is none."""

import functools
import importlib
import warnings

import keras

from keras_lrsched._core import keras_private
from keras_lrsched.kernels import _prebuilt
from keras_lrsched.kernels._build import BuildError


@functools.cache
def binding(family):
    """The module that binds a family of kernels to the backend of Keras."""
    return importlib.import_module(f"keras_lrsched.kernels._{keras.backend.backend()}_{family}")


def place():
    """From where compiled code is called: `"xla"` in what TensorFlow compiles with XLA, on JAX `"cpu"` or `"gpu"`."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend()
    return "xla" if keras.backend.backend() == "tensorflow" and keras_private.is_compiled_by_xla() else "cpu"


def has_gpu():
    """Whether what XLA compiles runs on a GPU."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_logical_devices("GPU"))
    return place() == "gpu"


def cannot_call(family, what, *arguments):
    """The reason for which a family of kernels cannot be called, or `None`.

    Args:
        family: A key of `keras_lrsched.kernels._targets.FAMILIES`.
        what: What it is for, for the warning that is given once if it cannot be loaded.
        *arguments: Those of the binding's `unavailable`.
    """
    try:
        bound = binding(family)
    except ImportError as error:  # there is none for the backend, or for its version
        return _unavailable(what, str(error))
    return bound.unavailable(*arguments) or _cannot_load(family, what, place())


@functools.cache
def _cannot_load(family, what, place):
    """Tried once, as a compiler that fails takes its time."""
    try:
        _load(family, place)
    except BuildError as error:
        return _unavailable(what, str(error))
    except Exception as error:  # of as many kinds as there are loaders
        return _unavailable(what, f"{type(error).__name__}: {error}"[:1000])
    return None


def _load(family, place):
    """A library that came with the package may not load here, for instance by an older C++ runtime: then one is built."""
    try:
        binding(family).load(place)
    except Exception:  # of as many kinds as there are loaders
        if not _prebuilt.refuse():
            raise
        binding(family).load(place)


def _unavailable(what, reason):
    _warn_once(reason)
    return f"The compiled {what} is not available. {reason}"


@functools.cache
def _warn_once(reason):
    warnings.warn(f"Compiled code is not available. {reason} Plain Keras operations are used instead.", stacklevel=2)

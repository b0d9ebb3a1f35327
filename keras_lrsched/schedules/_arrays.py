"""Steps and values as arrays of NumPy (float64) or of Keras' backend (float32)."""

from typing import Any

import keras
import numpy as np
from keras import ops


def float_dtype() -> str:
    """The dtype that schedules compute in: float32 in every model, or float64 if that is the dtype of the whole program."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


def to_float(x: Any, xp: Any) -> Any:
    """`x` as a float array of `xp`."""
    return np.asarray(x, "float64") if xp is np else ops.cast(x, float_dtype())


def to_int(x: Any, xp: Any) -> Any:
    """`x` as an index array of `xp`."""
    return np.asarray(x, "int64") if xp is np else ops.cast(x, "int32")


def at_least(x: Any, least: float, xp: Any) -> Any:
    """`maximum` of an array and a number in the array's own type.

    Under a model in bfloat16, Keras takes the number for a float: on JAX it would turn whole steps into float32, and on
    PyTorch round the number to bfloat16.
    """
    return xp.where(x < least, xp.full_like(x, least), x)


def known(step: Any) -> np.ndarray | None:
    """The step in NumPy if its value is at hand, as in eager code; `None` inside a traced function or on a GPU.

    A schedule takes some twenty operations: twenty eager calls into a backend, or one read and twenty NumPy scalars.
    """
    try:
        return widened(np.asarray(step))
    except (TypeError, NotImplementedError):  # a tensor that is being traced, or in the memory of another device
        return None


def widened(step: np.ndarray) -> np.ndarray:
    """A NumPy step of any integer type in int64, so that unsigned and narrow ones do not wrap; floats stay floats."""
    return step.astype("int64") if step.dtype.kind in "iu" else step


def standard_step(step: Any) -> Any:
    """`widened` for a tensor: in the backend's own integer type."""
    step = ops.convert_to_tensor(step)
    return ops.cast(step, "int" if "int" in keras.backend.standardize_dtype(step.dtype) else float_dtype())

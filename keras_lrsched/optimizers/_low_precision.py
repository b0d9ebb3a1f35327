"""Conversion between the dtype of a variable and the float32 in which an update is computed."""

import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_lrsched._core.backends import view
from keras_lrsched._core.path_rules import path
from keras_lrsched._core.types import Tensor, Variable


def wide(x: Tensor) -> Tensor:
    """`x` as a tensor: floats in float32, or in float64 if that is what they are; integers as they are."""
    x = ops.stop_gradient(ops.convert_to_tensor(x))
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, wide_dtype(dtype)) if "float" in dtype else x


def wide_dtype(dtype: str) -> str:
    """The dtype in which an update of a variable in `dtype` is computed."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"


def bytes_of(variable: Variable) -> int:
    """Number of bytes of the values of a variable."""
    digits = re.search(r"\d+", keras.backend.standardize_dtype(variable.dtype))
    bits = int(digits.group()) if digits else 8  # a bool
    return math.prod(variable.shape) * bits // 8


def stochastic_round(x: Tensor, seed: Any) -> Tensor:
    """Round float32 to bfloat16, up or down at random, such that the expected value is `x`.

    bfloat16 is the upper half of a float32. Adding a random lower half carries into the upper one with a probability equal
    to the fraction that is then cut off.
    """
    bits = view(x, "int32") + keras.random.randint(ops.shape(x), 0, 2**16, dtype="int32", seed=seed)
    rounded = view(ops.bitwise_and(bits, -(2**16)), "float32")
    return ops.cast(ops.where(ops.isfinite(x), rounded, x), "bfloat16")


def warn_of_lost_updates(variables: Sequence[Variable]) -> None:
    """Warn of variables in low precision that are neither copied in float32 nor rounded at random."""
    narrow = [v for v in variables if wide_dtype(v.dtype) != v.dtype]
    if narrow:
        warnings.warn(
            f"Variables in {keras.backend.standardize_dtype(narrow[0].dtype)}, such as {path(narrow[0])}, do not change by "
            "updates that are too small for their precision. Pass master_weights=True or stochastic_rounding=True, or "
            "master_weights=False to silence this warning.",
            stacklevel=3,
        )

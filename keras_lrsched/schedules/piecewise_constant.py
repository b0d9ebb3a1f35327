"""Piecewise constant: a value until a step, another from there on; the form of everything that goes by stages."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import validation
from keras_lrsched._core.registry import register
from keras_lrsched.schedules._arrays import to_float, to_int
from keras_lrsched.schedules.schedule import Schedule


@register(
    title="levels between boundaries",
    kind="combinator",
)
class PiecewiseConstant(Schedule):
    """A constant until a boundary, another from there on: with boundaries b_1 < b_2 < ... and levels v_0, v_1, ...,

        t < b_1:             v_0
        b_i <= t < b_(i+1):  v_i

    So the level changes with the update that is numbered as the boundary. `PiecewiseConstantDecay` of Keras changes one
    update later, at t = b_i + 1.

    Args:
        boundaries: A list of steps, positive integers in strictly increasing order.
        levels: A list of non-negative numbers, one more than boundaries.

    Raises:
        ValueError: If the boundaries are not increasing, or their number does not fit that of the levels.

    Example:

    >>> PiecewiseConstant([2, 3], [1.0, 0.1, 0.01]).values(5)
    array([1.  , 1.  , 0.1 , 0.01, 0.01])
    """

    def __init__(self, boundaries: Sequence[int], levels: Sequence[float]) -> None:
        self.boundaries = validation.increasing("boundaries", boundaries, validation.positive_int)
        self.levels = validation.each("levels", levels, validation.non_negative_float)
        if len(self.levels) != len(self.boundaries) + 1:
            raise ValueError(
                "There must be one more of `levels` than of `boundaries`. "
                f"Received: {len(self.levels)} levels, {len(self.boundaries)} boundaries"
            )

    def compute(self, step: Any, xp: Any) -> Any:
        return xp.take(to_float(np.array(self.levels), xp), to_int(piece(step, self.boundaries, xp), xp))


def piece(step: Any, boundaries: Sequence[int], xp: Any) -> Any:
    """The number of the increasing `boundaries` that are at or before each step."""
    if xp is np:
        return np.searchsorted(boundaries, step, side="right")
    dtype = keras.backend.standardize_dtype(step.dtype)
    # a boundary beyond the integers of the backend is never reached
    counted = np.minimum(boundaries, np.iinfo(dtype).max) if "int" in dtype else np.asarray(boundaries)
    passed = ops.expand_dims(step, -1) >= ops.convert_to_tensor(counted, dtype)
    return ops.sum(ops.cast(passed, "int32"), -1)

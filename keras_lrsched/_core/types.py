"""Names for the types of arguments that several rooms share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core.roles import Role

Tensor: TypeAlias = Any
"""A tensor of the running backend."""

Variable: TypeAlias = keras.Variable

LearningRate: TypeAlias = float | LearningRateSchedule | Callable[[], Any]
"""A number, a schedule, or a function without arguments."""

WeightDecay: TypeAlias = float | LearningRateSchedule | None
"""A number, a schedule, or `None` for none."""

Patterns: TypeAlias = Sequence[str] | None
"""Regular expressions for the paths of variables; `None` for none."""

Multipliers: TypeAlias = Mapping[str, float] | None
"""Numbers by regular expressions for the paths of variables; `None` for none."""

FindRoles: TypeAlias = Callable[[], Sequence[Role]]
"""A function that returns the roles of the variables that are trained, in their order."""

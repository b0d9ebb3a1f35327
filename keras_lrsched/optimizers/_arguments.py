"""Arguments of constructors: checks, and their form in configs."""

from collections.abc import Mapping
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import validation
from keras_lrsched._core.roles import Roles
from keras_lrsched.schedules.per_update import refuse_per_update


def checked_rate(name: str, value: Any) -> Any:
    """A learning rate or weight decay: a number as a float, all else as Keras takes it."""
    if value is None or isinstance(value, LearningRateSchedule) or (callable(value) and name == "learning_rate"):
        refuse_per_update("The optimizer", name, value)
        return value
    if callable(value):
        raise ValueError(f"`{name}` must be a number, a LearningRateSchedule or None. Received: {name}={value!r}")
    return validation.non_negative_float(name, value)


def refuse_schedules(**numbers: Any) -> None:
    """Raise for an argument that Keras would accept and fail on in the first update, or not at all."""
    for name, value in numbers.items():
        if callable(value):
            raise ValueError(
                f"`{name}` must be a number; the callback ScheduleHyperparameter varies numbers of an optimizer by a "
                f"schedule. Received: {name}={value!r}"
            )


def to_config(value: Any) -> Any:
    return keras.saving.serialize_keras_object(value) if callable(value) or isinstance(value, Roles) else value


def from_config(value: Any, custom_objects: Mapping[str, Any] | None) -> Any:
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
    return value

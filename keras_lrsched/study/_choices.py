"""Choices of a study, its optimizers and schedules, as functions with unique labels."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched import optimizers, schedules
from keras_lrsched.schedules import Scale, Tabulated
from keras_lrsched.schedules.schedule import compute

OptimizerFactory = Callable[[Any], keras.optimizers.Optimizer]
"""From a learning rate, a number or a schedule, to a new optimizer."""
ScheduleFactory = Callable[[float, int], Any]
"""From the peak and the optimizer steps of a run to its schedule, or to callbacks that start from the peak."""

PROBE = 1e-3
"""A learning rate to build optimizers with in order to look at them."""


@dataclasses.dataclass(frozen=True)
class NamedOptimizer:
    """An optimizer by its name, with the values of its paper."""

    identifier: str

    def __call__(self, learning_rate: Any) -> keras.optimizers.Optimizer:
        return optimizers.get(self.identifier, learning_rate=learning_rate)


@dataclasses.dataclass(frozen=True)
class CopiedOptimizer:
    """An optimizer that was given as an object or a config, with another learning rate."""

    kind: Any
    config: dict[str, Any]

    def __call__(self, learning_rate: Any) -> keras.optimizers.Optimizer:
        if isinstance(learning_rate, LearningRateSchedule):
            learning_rate = keras.optimizers.schedules.serialize(learning_rate)
        return self.kind.from_config({**self.config, "learning_rate": learning_rate})


@dataclasses.dataclass(frozen=True)
class MadeOptimizer:
    """An optimizer that a function or class of the user makes from a learning rate."""

    label: str
    make: Callable

    def __call__(self, learning_rate: Any) -> keras.optimizers.Optimizer:
        made = self.make(learning_rate)
        if not isinstance(made, keras.optimizers.Optimizer):
            raise ValueError(
                f"{self.label!r} of `optimizers` must return an optimizer for a learning rate. Received: {made!r:.200}"
            )
        return made


@dataclasses.dataclass(frozen=True)
class NamedSchedule:
    """A schedule by its name, or a class of them, in its usual proportions for a run behind a linear warmup."""

    identifier: Any
    warmup: float

    def __call__(self, peak_learning_rate: float, total_steps: int) -> LearningRateSchedule:
        warmup_steps = int(self.warmup * total_steps)
        if isinstance(self.identifier, str):
            return schedules.get(self.identifier, peak_learning_rate, total_steps, warmup_steps)
        return self.identifier.for_budget(peak_learning_rate, total_steps, warmup_steps=warmup_steps)


@dataclasses.dataclass(frozen=True)
class MadeSchedule:
    """The schedule or callbacks of a function of `(peak_learning_rate, total_steps)` and, if it has it, `warmup_steps`."""

    label: str
    make: Callable
    warmup: float

    def __call__(self, peak_learning_rate: float, total_steps: int) -> Any:
        options = {"warmup_steps": int(self.warmup * total_steps)} if _has(self.make, "warmup_steps") else {}
        made = self.make(peak_learning_rate, total_steps, **options)
        if not isinstance(made, LearningRateSchedule) and not controllers(made):
            raise ValueError(
                f"{self.label!r} of `schedules` must return a LearningRateSchedule or callbacks for a peak and a number of "
                f"steps. Received: {made!r:.200}"
            )
        return made


@dataclasses.dataclass(frozen=True)
class ScaledSchedule:
    """A schedule that was given as an object, scaled to a peak, and stretched to runs of another length."""

    schedule: LearningRateSchedule
    budget: int
    highest: float

    @classmethod
    def of(cls, label: str, schedule: LearningRateSchedule, budget: int) -> "ScaledSchedule":
        size, warmup = getattr(schedule, "total_steps", None), getattr(schedule, "warmup_steps", None) or 0
        if size not in (None, budget):
            raise ValueError(f"{label!r} of `schedules` is one for {size} steps. Received: budget={budget}")
        if warmup >= budget:
            raise ValueError(f"`warmup_steps` of {label!r} must be less than `budget`. Received: {warmup}, budget={budget}")
        highest = float(np.max(compute(schedule, np.arange(budget), np)))
        if not highest > 0:
            raise ValueError(f"{label!r} of `schedules` has no value above 0 in {budget} steps. Received: {schedule!r:.200}")
        return cls(schedule, budget, highest)

    def __call__(self, peak_learning_rate: float, total_steps: int) -> LearningRateSchedule:
        factor = peak_learning_rate / self.highest
        if total_steps == self.budget:
            return self.schedule if factor == 1 else Scale(self.schedule, factor)
        steps = np.minimum(np.arange(total_steps) * self.budget // total_steps, self.budget - 1)
        return Tabulated(factor * compute(self.schedule, steps, np))


def controllers(made: Any) -> list[keras.callbacks.Callback]:
    """The callbacks that a function of `schedules` has returned in the place of a schedule; none if it is a schedule."""
    several = list(made) if isinstance(made, (list, tuple)) else [made]
    return several if all(isinstance(each, keras.callbacks.Callback) for each in several) else []


def optimizer_factories(given: Any) -> dict[str, OptimizerFactory]:
    """The optimizers of a study by their labels.

    Raises:
        ValueError: If there is none, one is unknown or makes no optimizer, or two have the same label.
    """
    found = {}
    for label, choice in _labeled("optimizers", given, _optimizer_label):
        found[label] = _optimizer_factory(label, choice)
        found[label](PROBE)
    return found


def schedule_factories(given: Any, budget: int, warmup_steps: int) -> dict[str, ScheduleFactory]:
    """The schedules of a study by their labels.

    Raises:
        ValueError: If there is none, one is unknown or does not fit the budget, or two have the same label.
    """
    warmup, found = warmup_steps / budget, {}
    for label, choice in _labeled("schedules", given, _schedule_label):
        found[label] = _schedule_factory(label, choice, budget, warmup)
        try:
            found[label](PROBE, budget)
        except Exception as error:
            error.add_note(f"It is the schedule {label!r} for a run of {budget} steps.")
            raise
    return found


def usual_learning_rate(factory: OptimizerFactory) -> float:
    """The learning rate that an optimizer has by default: in the middle of its first grid."""
    if isinstance(factory, NamedOptimizer):
        return _as_number(optimizers.get(factory.identifier).learning_rate)
    if isinstance(factory, CopiedOptimizer):
        rate = factory.config["learning_rate"]
        return float(rate) if isinstance(rate, (int, float)) else PROBE
    default = inspect.signature(type(factory(PROBE))).parameters.get("learning_rate")
    return float(default.default) if default and isinstance(default.default, (int, float)) else PROBE


def fingerprint(optimizer: keras.optimizers.Optimizer) -> str:
    """An optimizer with its options as text, the same in another program.

    Options that have their defaults are left out, so a version with more options does not make it another one.
    """
    shown = ", ".join(f"{name}={value!r}" for name, value in sorted(_options(optimizer).items()))
    return re.sub(r" at 0x\w+", "", f"{type(optimizer).__name__}({shown})")


def _defaults(kind: type) -> dict[str, Any]:
    """The defaults of the constructor of a class, and of those of its bases, for options that they pass on."""
    found: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        own = vars(each).get("__init__")
        parameters = inspect.signature(own).parameters if callable(own) else {}
        found |= {name: it.default for name, it in parameters.items() if it.default is not inspect.Parameter.empty}
    return found


def _options(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """The options of an optimizer that are not its defaults; an empty list or dictionary is the same as none."""
    defaults = _defaults(type(optimizer))

    def is_default(name: str, value: Any) -> bool:
        if name not in defaults:
            return False
        return value == defaults[name] or (value in ([], {}) and not defaults[name])

    config = optimizer.get_config().items()
    return {name: value for name, value in config if name not in ("name", "learning_rate") and not is_default(name, value)}


def _as_number(learning_rate: Any) -> float:
    value = float(keras.ops.convert_to_numpy(learning_rate))
    return float(f"{value:.6g}")  # 0.001 and not 0.0010000000474974513


def _labeled(name: str, given: Any, label_of: Callable[[Any], str]) -> list[tuple[str, Any]]:
    if isinstance(given, Mapping) and "class_name" not in given:
        pairs = list(given.items())
    else:
        choices = list(given) if isinstance(given, (list, tuple)) else [given]
        pairs = [(label_of(choice), choice) for choice in choices]
    if not pairs:
        raise ValueError(f"`{name}` must have one or more. Received: {name}={given!r}")
    found: dict[str, Any] = {}
    for label, choice in pairs:
        if label in found and (isinstance(choice, str) or not isinstance(label, str)):
            raise ValueError(f"`{name}` must be different ones. Received: {label!r} twice")
        found[_free(label, found)] = choice
    return list(found.items())


def _free(label: str, taken: Mapping[str, Any]) -> str:
    numbers = range(2, len(taken) + 3)
    return next(each for each in (label, *(f"{label} ({i})" for i in numbers)) if each not in taken)


def _optimizer_label(choice: Any) -> str:
    if isinstance(choice, str):
        return choice
    if isinstance(choice, Mapping):
        return _described(keras.optimizers.deserialize(dict(choice)))
    if isinstance(choice, keras.optimizers.Optimizer):
        return _described(choice)
    name = getattr(choice, "__name__", "<")
    if not callable(choice) or "<" not in name:
        return name if callable(choice) else repr(choice)
    return _described(choice(PROBE))


def _described(optimizer: Any) -> str:
    """The class of an optimizer, with the options that are not its defaults: `SGD(momentum=0.9)`."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return repr(optimizer)
    options = _options(optimizer).items()
    shown = ", ".join(f"{name}={value!r}" for name, value in options if isinstance(value, (int, float, str)))
    return f"{type(optimizer).__name__}({shown})" if shown else type(optimizer).__name__


def _optimizer_factory(label: str, choice: Any) -> OptimizerFactory:
    if isinstance(choice, str):
        return NamedOptimizer(choice)
    if isinstance(choice, Mapping):
        choice = keras.optimizers.deserialize(dict(choice))
    if isinstance(choice, keras.optimizers.Optimizer):
        config = choice.get_config()
        if "learning_rate" not in config:
            raise ValueError(
                f"{label!r} of `optimizers` has its learning rate in another one: give a function of the learning rate. "
                f"Received: {type(choice)}"
            )
        return CopiedOptimizer(type(choice), config)
    if not callable(choice):
        raise ValueError(
            f"`optimizers` must be names, optimizers, or functions of the learning rate. Received: {choice!r:.200}"
        )
    return MadeOptimizer(label, choice)


def _schedule_label(choice: Any) -> str:
    if isinstance(choice, str):
        return choice
    if isinstance(choice, Mapping):
        return str(choice["class_name"])
    if isinstance(choice, LearningRateSchedule):
        return type(choice).__name__
    name = getattr(choice, "__name__", None) or type(choice).__name__
    return re.sub("[<>]", "", name) if callable(choice) else repr(choice)


def _schedule_factory(label: str, choice: Any, budget: int, warmup: float) -> ScheduleFactory:
    if isinstance(choice, Mapping) or (isinstance(choice, str) and choice.startswith("file:")):
        choice = schedules.get(choice)
    if isinstance(choice, LearningRateSchedule):
        return ScaledSchedule.of(label, choice, budget)
    if isinstance(choice, str) or (isinstance(choice, type) and hasattr(choice, "for_budget")):
        return NamedSchedule(choice, warmup)
    if not callable(choice):
        hint = " A callback is for one run: give a function that returns a new one." if controllers(choice) else ""
        raise ValueError(
            "`schedules` must be names, schedules, or functions of the peak and the number of steps that return a schedule "
            f"or callbacks.{hint} Received: {choice!r:.200}"
        )
    return MadeSchedule(label, choice, warmup)


def _has(function: Callable, name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False

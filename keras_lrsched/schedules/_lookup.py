"""Schedules by name, with options in the usual proportions for a budget: `rex:a=0.1:b=0.9`."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import registry
from keras_lrsched._core.registry import Entry
from keras_lrsched.schedules.schedule import Schedule
from keras_lrsched.schedules.tabulated import Tabulated

KIND = "learning rate"
"""The kind of entry that a budget gives a schedule for."""

BUDGET = ("warmup_steps", "warmup_target", "name")
"""Arguments of schedules that are no options: they come from the budget and the entry."""


def names() -> list[str]:
    """The names that `get` finds, sorted."""
    return registry.names("schedules", KIND)


def get(
    identifier: str | Mapping[str, Any] | LearningRateSchedule,
    peak_learning_rate: float | None = None,
    total_steps: int | None = None,
    warmup_steps: int = 0,
) -> LearningRateSchedule:
    """The schedule of an identifier; a name stands for the schedule in its usual proportions for a run.

    Args:
        identifier: `"name"`, `"name:option=value:option=value"`, `"file:PATH"`, a config, or a schedule, which is returned
            as it is. Options are constructor arguments of the class; values are JSON, or plain words. A file is one of
            `Tabulated.save`; its values count as they are, and must be as many as `total_steps`, if that is given.
        peak_learning_rate: The largest value; required for a name. The same for two schedules that are to be compared.
        total_steps: Steps of the run, warmup included; required for a name.
        warmup_steps: Steps until the peak; fewer than `total_steps`. Defaults to `0`.

    Raises:
        ValueError: If the name or an option is unknown, a value is out of its range, or a file is damaged or of another
            length.
        OSError: If a file cannot be read.

    Example:

    >>> get("rex:a=0.1:b=0.9", peak_learning_rate=1.0, total_steps=100)
    REXDecay(initial_learning_rate=1.0, decay_steps=100, a=0.1, b=0.9)
    """
    if isinstance(identifier, LearningRateSchedule):
        return identifier
    if isinstance(identifier, Mapping):
        return keras.optimizers.schedules.deserialize(dict(identifier))
    if not isinstance(identifier, str):
        raise ValueError(f"`identifier` must be a name, a config or a schedule. Received: identifier={identifier!r}")
    if identifier.startswith("file:"):
        return _from_file(identifier.removeprefix("file:"), total_steps)
    entry = _find(identifier.partition(":")[0])
    name, options = registry.parse(identifier)
    if peak_learning_rate is None or total_steps is None:
        raise ValueError(
            f"{name!r} needs a budget. Received: peak_learning_rate={peak_learning_rate}, total_steps={total_steps}"
        )
    try:
        return for_budget(entry, peak_learning_rate, total_steps, warmup_steps, **options)
    except TypeError as error:
        known = _options(entry, peak_learning_rate, total_steps, warmup_steps)
        unknown = [key for key in options if key not in known]
        if not unknown:
            raise ValueError(f"An option of {identifier!r} has a value of the wrong kind: {error}") from error
        hint = f"It has: {', '.join(known) or 'none'}."
        raise ValueError(f"{name!r} has no option {unknown[0]!r}. {hint} Received: {identifier!r}") from error


def for_budget(entry: Entry, peak_learning_rate: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> Schedule:
    """The schedule of an entry in its usual proportions; see `Schedule.for_budget`."""
    options = {**entry.options, **options}
    return entry.target.for_budget(peak_learning_rate, total_steps, warmup_steps=warmup_steps, **options)


def _find(name: str) -> Entry:
    for entry in registry.entries("schedules"):
        if entry.name == name and entry.kind != KIND:
            raise ValueError(
                f"{name!r} cannot be made from a budget, it schedules a {entry.kind}: use keras_lrsched.schedules."
                f"{entry.target.__name__}."
            )
    return registry.find("schedules", name, KIND)


def _options(entry: Entry, *budget: Any) -> list[str]:
    """The names of the options that go with a budget: those with a default that the budget does not set itself."""

    def goes(name: str, value: Any) -> bool:
        try:
            for_budget(entry, *budget, **{name: value})
        except (TypeError, ValueError):
            return False
        return True

    functions = entry.target.__init__, entry.target.for_budget
    parameters = {name: each for function in functions for name, each in inspect.signature(function).parameters.items()}
    parameters = {name: each for name, each in parameters.items() if each.default is not each.empty}
    return [name for name, each in parameters.items() if name not in BUDGET and goes(name, each.default)]


def _from_file(path: str, total_steps: int | None) -> Tabulated:
    schedule = Tabulated.load(path)
    if total_steps not in (None, schedule.total_steps):
        raise ValueError(f"The schedule in {path!r} is one for {schedule.total_steps} updates. Received: {total_steps}")
    return schedule

"""The cases of the schedule contract, collected from the modules beside this file: a new module joins by existing."""

import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

from keras_lrsched.schedules import Schedule


@dataclass(frozen=True)
class Case:
    """One schedule, what it must be worth, and what it must refuse."""

    name: str
    build: Callable[[], Schedule]
    values: dict[int, float]
    """t -> the exact value: hard-coded, or from a plain-Python formula; never from the code under test."""
    source: str
    printed: dict[int, float] = field(default_factory=dict)
    """t -> the value as published, to six digits."""
    bad: tuple[dict, ...] = ()
    """Constructor arguments that must raise ValueError; for what no single argument out of its range would show."""
    rtol: float = 1e-9
    """Wider where a schedule of Keras' own, which knows float32 only, is inside."""


def about(formula, *edges):
    """The formula at 0 and one step before, at and after each edge."""
    steps = {0, *(edge + offset for edge in edges for offset in (-1, 0, 1))}
    return {t: float(formula(t)) for t in sorted(steps) if t >= 0}


def decayed(shape, decay_steps, warmup_steps=0, peak=1.0, alpha=0.0, initial=0.0):
    """t -> value of a decay from `peak` to `alpha * peak` along `shape`, behind a linear warmup; as the textbook has it."""

    def value(t):
        if t < warmup_steps:
            return initial + (peak - initial) * t / warmup_steps
        return peak * (alpha + (1 - alpha) * shape(min(t - warmup_steps, decay_steps) / decay_steps))

    return value


def cosine(x):
    return (1 + math.cos(math.pi * x)) / 2


CASES = [
    case for module in pkgutil.iter_modules(__path__) for case in importlib.import_module(f"{__name__}.{module.name}").CASES
]

"""Checks of constructor arguments: each returns the value in its plain Python type, or raises and shows what it received."""

import itertools
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any


def positive_int(name: str, value: Any) -> int:
    return _checked(name, value, "a positive integer", _whole, lambda v: v > 0)


def non_negative_int(name: str, value: Any) -> int:
    return _checked(name, value, "a non-negative integer", _whole, lambda v: v >= 0)


def positive_float(name: str, value: Any) -> float:
    return _checked(name, value, "a positive number", _real, lambda v: v > 0)


def non_negative_float(name: str, value: Any) -> float:
    return _checked(name, value, "a non-negative number", _real, lambda v: v >= 0)


def negative_float(name: str, value: Any) -> float:
    return _checked(name, value, "a negative number", _real, lambda v: v < 0)


def finite_float(name: str, value: Any) -> float:
    return _checked(name, value, "a finite number", _real, lambda v: True)


def at_least_one(name: str, value: Any) -> float:
    return _checked(name, value, "a number of at least 1", _real, lambda v: v >= 1)


def fraction(name: str, value: Any) -> float:
    return _checked(name, value, "a number between 0 and 1", _real, lambda v: 0 <= v <= 1)


def positive_fraction(name: str, value: Any) -> float:
    return _checked(name, value, "a number above 0 and at most 1", _real, lambda v: 0 < v <= 1)


def beta(name: str, value: Any) -> float:
    return _checked(name, value, "a number of at least 0 and below 1", _real, lambda v: 0 <= v < 1)


def inner_fraction(name: str, value: Any) -> float:
    return between(name, value, 0, 1)


def between(name: str, value: Any, low: float, high: float) -> float:
    return _checked(name, value, f"a number between {low} and {high}, both excluded", _real, lambda v: low < v < high)


def one_of(name: str, value: Any, allowed: Iterable) -> Any:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}. Received: {name}={value!r}")
    return value


def each(name: str, values: Any, check: Callable) -> list:
    """A list of values, each of which passes `check`."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise ValueError(f"`{name}` must be a list of numbers. Received: {name}={values!r}")
    return [check(name, value) for value in values]


def increasing(name: str, values: Any, check: Callable) -> Any:
    """A list of values, each of which passes `check`, in strictly increasing order."""
    values = each(name, values, check)
    if any(left >= right for left, right in itertools.pairwise(values)):
        raise ValueError(f"`{name}` must be strictly increasing. Received: {name}={values!r}")
    return values


def shorter(name: str, value: Any, limit_name: str, limit: Any) -> None:
    """Raise unless `value`, a number of steps, leaves room for at least one more within `limit`."""
    if non_negative_int(name, value) >= positive_int(limit_name, limit):
        raise ValueError(f"`{name}` must be less than `{limit_name}`. Received: {name}={value!r}, {limit_name}={limit!r}")


def below(name: str, value: Any, limit_name: str, limit: Any) -> None:
    """Raise unless `value`, a checked number, lies below `limit`, another."""
    if value >= limit:
        raise ValueError(f"`{name}` must be below `{limit_name}`. Received: {name}={value!r}, {limit_name}={limit!r}")


def _checked(name: str, value: Any, what: str, convert: Callable, accept: Callable) -> Any:
    converted = convert(value)
    if converted is None or not accept(converted):
        raise ValueError(f"`{name}` must be {what}. Received: {name}={value!r}")
    return converted


def _real(value: Any) -> float | None:
    """`value` as a float; None if it is no finite real number. A bool is a mistake, not a number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        return None
    return float(value)


def _whole(value: Any) -> int | None:
    """`value` as an int; None if it is not whole. `1e4` is whole: Keras users write step counts that way."""
    value_as_float = _real(value)
    if value_as_float is None or value_as_float != math.floor(value_as_float):
        return None
    return int(value)

"""Tests that `make test` leaves to `make test-nightly`: they take seconds, and show again what another has shown."""

import pytest

nightly = pytest.mark.nightly


def some(values, first=1, chosen=None):
    """Parameters of which `make test` takes the first ones, or those for which `chosen` is true; the others are nightly.

    What is a `pytest.param` already keeps its name and marks.
    """
    kept = [index < first if chosen is None else chosen(value) for index, value in enumerate(values)]
    return [value if keep else _nightly(value) for value, keep in zip(values, kept, strict=True)]


def _nightly(value):
    if isinstance(value, type(pytest.param())):
        return value._replace(marks=[*value.marks, nightly])
    return pytest.param(value, marks=nightly)

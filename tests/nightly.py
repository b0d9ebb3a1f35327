"""Tests that `make test` leaves to `make test-nightly`: they take seconds, and show again what another has shown."""

import pytest

nightly = pytest.mark.nightly


def some(values, first=1, chosen=None):
    """Parameters of which `make test` takes the first ones, or those for which `chosen` is true; the others are nightly."""
    kept = [index < first if chosen is None else chosen(value) for index, value in enumerate(values)]
    return [value if keep else pytest.param(value, marks=nightly) for value, keep in zip(values, kept, strict=True)]

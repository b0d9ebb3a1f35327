"""What `make test` leaves to `make test-nightly`: what takes seconds and shows again what another test has shown."""

import pytest

nightly = pytest.mark.nightly


def some(values, first=1, chosen=None):
    """Parameters of which `make test` takes the first ones, or those for which `chosen` is true; the others are nightly."""
    values = list(values)
    kept = values[:first] if chosen is None else [value for value in values if chosen(value)]
    return [value if value in kept else pytest.param(value, marks=nightly) for value in values]

"""All tests here are marked, and left out of a run that does not ask for them; see `make test-exports`."""

from pathlib import Path

import pytest

collect_ignore = ["served.py"]  # a program for a process of its own


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.exports)

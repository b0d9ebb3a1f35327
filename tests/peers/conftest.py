"""All tests here are marked, and left out of a run that does not ask for them."""

from pathlib import Path

import pytest

collect_ignore = ["tfa_runs.py"]  # a program for another environment


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.peers)

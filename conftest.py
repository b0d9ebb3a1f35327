"""Modules that are not collected, since each needs one backend and has no examples; names that examples may use."""

import sys

import pytest

collect_ignore_glob = [
    *(f"keras_lrsched/kernels/_{backend}_*.py" for backend in ("tensorflow", "jax", "torch")),
    *(f"keras_lrsched/_core/backends/{backend}.py" for backend in ("tensorflow", "jax", "torch")),
]


@pytest.fixture(autouse=True, scope="session")
def names_in_examples(doctest_namespace):
    import keras
    import numpy

    doctest_namespace.update(keras=keras, np=numpy)


@pytest.fixture(autouse=True)
def no_entries_of_examples():
    """Examples and tests register classes of their own; they are in no module, and leave the registry afterwards."""
    yield
    registry = sys.modules.get("keras_lrsched._core.registry")
    if registry is not None:
        registry._entries[:] = [each for each in registry._entries if _is_of_module(each.target)]


def _is_of_module(target):
    return getattr(sys.modules.get(target.__module__), target.__name__, None) is target

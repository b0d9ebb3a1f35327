"""What is not collected, as each of these modules needs one backend and has no examples; and what examples may use."""

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

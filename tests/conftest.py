"""Set before any test imports a framework: no start-up notes from TensorFlow, no window from Matplotlib.

One thread for OpenBLAS: the laws search with small matrices, over which more threads only wait for each other.
"""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_dir():
    """The folder with CIFAR-10 and Tiny Shakespeare, for the tests that can use them; without it they are skipped."""
    folder = Path(os.environ.get("KERAS_LRSCHED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("needs the data folder that KERAS_LRSCHED_DATA names")
    return folder

"""Set before any test imports a framework: no start-up notes from TensorFlow, no window from Matplotlib.

One thread for OpenBLAS: the laws search with small matrices, over which more threads only wait for each other.
The garbage collector leaves alone what was imported, and what TensorFlow keeps of each function that it traced: millions of
objects after some thousand tests, through which it would look for seconds again and again.
JAX compiles equal code of several models once in a process: it finds the first result in a folder.
"""

import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

compiled_by_jax = None
if os.environ.get("KERAS_BACKEND") == "jax":
    compiled_by_jax = tempfile.TemporaryDirectory(prefix="compiled-by-jax-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled_by_jax.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.02"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_unconfigure(config):
    if compiled_by_jax is not None:
        compiled_by_jax.cleanup()


BETWEEN_FREEZES = 2
"""Collections of the second generation, one after each 200,000 new objects: after any test that traces some functions."""


def freeze_objects():
    gc.collect()
    gc.freeze()


def pytest_collection_finish(session):
    freeze_objects()
    gc.set_threshold(20_000, 10, 10)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item):
    if gc.get_count()[2] >= BETWEEN_FREEZES:
        freeze_objects()


@pytest.fixture(scope="session")
def data_dir():
    """The folder with CIFAR-10 and Tiny Shakespeare, for the tests that can use them; without it they are skipped."""
    folder = Path(os.environ.get("KERAS_LRSCHED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("needs the data folder that KERAS_LRSCHED_DATA names")
    return folder


@pytest.fixture(scope="module")
def browser():
    """Chromium of the system, driven by Playwright; without either, the tests that look at pages are skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra `docs`")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()

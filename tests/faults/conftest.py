"""Processes that are forked from one which has imported Keras already, and a disk that is small."""

import contextlib
import multiprocessing
import os
import subprocess
from multiprocessing import forkserver
from pathlib import Path

import pytest

collect_ignore = ["kernel_user.py", "small_run.py", "two_jax_workers.py", "two_workers.py"]
"""Files that are run in processes of their own."""

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def processes():
    """Where to start processes, each in a moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.small_run", "keras_lrsched.kernels._build", "keras_lrsched.optimizers"])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        patch.setenv("PYTHONPATH", str(ROOT))
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def mounted(folder, option):
    """A disk in the memory of the machine."""
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no tmpfs can be mounted here ({mount.stderr.strip()})")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def small_disk(tmp_path):
    """A folder that holds 4 MiB. Where it cannot be had, there are the quick tests, which limit the size of files."""
    with mounted(tmp_path / "disk", "size=4m") as folder:
        yield folder


@pytest.fixture
def read_only_folder(tmp_path):
    folder = tmp_path / "read_only"
    if os.geteuid() == 0:  # who may write into any folder
        with mounted(folder, "ro,mode=0755"):
            yield folder
    else:
        folder.mkdir(mode=0o555)
        yield folder


@pytest.fixture
def report(record_property):
    """Puts a row into the table of faults: what happened, how often, and how it ended."""

    def add(fault, tries, outcome):
        record_property("fault", (fault, tries, outcome))

    return add

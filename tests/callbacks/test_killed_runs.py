"""Runs that are killed with SIGKILL at random moments, also while they write, end with the weights of undisturbed ones."""

import multiprocessing
import random
import time
import zlib
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest

from tests.callbacks.killed_run import CONTROLLERS, EPOCHS, STEPS, train
from tests.nightly import some

PROCESSES = multiprocessing.get_context("forkserver")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _imported_once():
    """A process of its own imports Keras and is forked for each run."""
    PROCESSES.set_forkserver_preload(["tests.callbacks.killed_run"])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        patch.setenv("PYTHONPATH", str(ROOT))
        forkserver.ensure_running()


def start(name, folder, epochs, every):
    steps, told = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=train, args=(name, folder, epochs, every, told))
    process.start()
    told.close()
    return process, steps


def finish(process, steps):
    while _told(steps):
        pass
    process.join()
    assert process.exitcode == 0


def kill_after(process, steps, number, delay):
    """Kills the run after a number of steps and so many seconds; says whether it was still there."""
    for _ in range(number):
        _told(steps)
    time.sleep(delay)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9)
    return process.exitcode == -9


def _told(steps):
    try:
        steps.recv()
    except EOFError:
        return False
    return True


def result(folder):
    with np.load(folder / "result.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_survives(name, tmp_path, epochs, kills, every):
    """The kills are spread over the run: each process gets on by a few steps before it dies."""
    chance = random.Random(zlib.crc32(name.encode()))
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        folder.mkdir()
    reference = start(name, undisturbed, epochs, 0)
    for number in range(kills):
        steps = chance.randint(1, STEPS * epochs // EPOCHS * 2 // (3 * kills + 4))
        alive = kill_after(*start(name, killed, epochs, every), steps, chance.uniform(0, 0.01))
        assert alive, f"over before kill {number}"
    assert not (killed / "result.npz").exists()
    finish(*start(name, killed, epochs, every))
    finish(*reference)
    expected, actual = result(undisturbed), result(killed)
    assert set(expected) == set(actual)
    for key, value in expected.items():
        np.testing.assert_array_equal(actual[key], value, err_msg=key)


@pytest.mark.parametrize("name", some(["plain", "keras"]))
def test_killed_twice(name, tmp_path):
    assert_survives(name, tmp_path, EPOCHS, kills=2, every=2)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", CONTROLLERS)
def test_killed_twenty_times(name, tmp_path):
    assert_survives(name, tmp_path, 6 * EPOCHS, kills=20, every=1)

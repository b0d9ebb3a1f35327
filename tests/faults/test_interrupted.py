"""Ctrl-C and SIGTERM at random moments. The batch is finished and saved, then the run ends; the end is the same."""

import os
import random
import signal
import time

import numpy as np
import pytest

from keras_lrsched._core import checkpoint_file
from tests.faults.small_run import assert_same, train, train_until_interrupted

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
EPOCHS = 60


def start(processes, folder):
    told, tells = processes.Pipe(duplex=False)
    process = processes.Process(target=train_until_interrupted, args=(folder, EPOCHS, tells))
    process.start()
    tells.close()
    return process, told


def interrupt(processes, folder, number, delay):
    """Starts the run, and sends the signal so many seconds after its first batch has begun: its exit code."""
    process, told = start(processes, folder)
    assert told.recv() == "starts"
    time.sleep(delay)
    os.kill(process.pid, number)
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize(("number", "code", "tries"), [(signal.SIGINT, 130, 100), (signal.SIGTERM, 143, 20)])
def test_interrupted_at_random_moments(number, code, tries, processes, tmp_path, report):
    chance, steps = random.Random(int(number)), [0]
    for _ in range(tries):
        assert interrupt(processes, tmp_path, number, chance.uniform(0, 0.03)) == code
        steps.append(checkpoint_file.read(tmp_path / "state")["step"])
    assert all(np.diff(steps) > 0), "The batch in which a signal came was not saved."
    process, _ = start(processes, tmp_path)
    process.join(600)
    assert process.exitcode == 0
    with np.load(tmp_path / "result.npz") as arrays:
        assert_same(dict(arrays), train(None, EPOCHS))
    name = signal.Signals(number).name
    report(f"{name} at a random moment", tries, f"the batch is finished and saved, exit code {code}; exact resume each time")

"""SIGKILL between and within the writes of checkpoints. No checkpoint that was finished is lost, and the end is the same."""

import random
import time

import numpy as np
import pytest

from keras_lrsched._core import checkpoint_file
from tests.faults.small_run import BATCHES, assert_same, train, train_and_tell

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
KILLS, EPOCHS, BALLAST = 20, 8, 2**20


class Killer:
    """Starts the same run again and again, and kills it."""

    def __init__(self, processes, folder):
        self._processes, self._folder = processes, folder
        self.finished = 0
        """The step of the last checkpoint that a process said it had written."""
        self.duration = 0.03
        """Seconds that the last write took."""

    def kill_after(self, what, times, delay):
        """Kills the process so many seconds after it has sent a message so many times; says whether it was in a write."""
        process, told = self.start()
        began = 0.0
        while times:
            event = self._next(told)
            began = time.monotonic() if event == "writes" else began
            if event == "has written":
                self.duration = time.monotonic() - began
            times -= event == what
        time.sleep(delay)
        process.kill()
        process.join()
        writing = event == "writes"
        while told.poll():
            try:
                event, step = told.recv()
            except EOFError:
                break
            writing = event == "writes"
            self.finished = step if event == "has written" else self.finished
        assert process.exitcode == -9
        self._check()
        return writing

    def finish(self):
        process, told = self.start()
        try:
            while True:
                told.recv()
        except EOFError:
            process.join()
        assert process.exitcode == 0
        with np.load(self._folder / "result.npz") as arrays:
            return dict(arrays)

    def start(self):
        told, tells = self._processes.Pipe(duplex=False)
        process = self._processes.Process(target=train_and_tell, args=(self._folder, EPOCHS, BALLAST, tells))
        process.start()
        tells.close()
        return process, told

    def _next(self, told):
        try:
            event, step = told.recv()
        except EOFError:
            raise AssertionError("The run was over before it was killed.") from None
        self.finished = step if event == "has written" else self.finished
        return event

    def _check(self):
        """The next process will read the state that was finished last, or one that was just being written."""
        if self.finished:
            assert checkpoint_file.read(self._folder / "state")["step"] in (self.finished, self.finished + 1)


@pytest.fixture
def killer(processes, tmp_path):
    return Killer(processes, tmp_path)


@pytest.fixture(scope="module")
def undisturbed():
    return train(None, EPOCHS, BALLAST)


def test_killed_at_random_steps(killer, undisturbed, report):
    chance = random.Random(0)
    for _ in range(KILLS):
        killer.kill_after("has written", chance.randint(1, 3), chance.uniform(0, 0.03))
    assert killer.finished < EPOCHS * BATCHES
    assert_same(killer.finish(), undisturbed)
    report("SIGKILL at a random step", KILLS, "exact resume each time; no finished checkpoint was lost")


def test_killed_while_it_writes(killer, undisturbed, report):
    chance = random.Random(1)
    kills = attempts = 0
    while kills < KILLS:
        attempts += 1
        assert attempts < 5 * KILLS
        kills += killer.kill_after("writes", chance.randint(1, 3), chance.uniform(0, killer.duration))
    assert_same(killer.finish(), undisturbed)
    report("SIGKILL while a checkpoint is being written", kills, "exact resume each time; no finished checkpoint was lost")

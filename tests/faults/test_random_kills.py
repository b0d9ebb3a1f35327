"""Scripts of many kinds, killed at random batches and ends of epochs: exact when they are started again, or warned of."""

import os
import random
import zlib

import pytest

from tests.resuming.scripts import EPOCHS, STEPS, WARNED, Kills, kinds, run, same

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]
KINDS, KILLS = int(os.environ.get("KINDS", "60")), 5


def resumed(kind, path):
    """The end of a run that is killed at random until it gets through, the number of kills, and its warnings."""
    draw = random.Random(zlib.crc32(repr(kind).encode()))
    warned = []
    for kills in range(KILLS):
        at_epoch = draw.random() < 0.25
        kill = Kills(epoch=draw.randrange(EPOCHS - 1)) if at_epoch else Kills(batches=draw.randrange(1, 2 * STEPS))
        result, told = run(kind, path, kill)
        warned += told
        if result is not None:
            return result, kills, warned
    result, told = run(kind, path)
    return result, KILLS, warned + told


def test_killed_at_random_scripts_of_many_kinds_are_exact_or_have_warned(tmp_path, report):
    kills = exact = 0
    silent = []
    for number, kind in enumerate(kinds(KINDS)):
        folder = tmp_path / str(number)
        whole, told = run(kind, folder / "whole")
        assert same(run(kind)[0], whole), f"TrainingState changes a run that is not killed: {kind}"
        assert bool(told) == (kind[1] in WARNED), kind
        result, killed, warned = resumed(kind, folder / "state")
        kills += killed
        exact += same(result, whole)
        if not warned and not same(result, whole):
            silent.append(kind)
    assert not silent
    report(
        f"{KINDS} generated scripts (model x data x optimizer x callbacks) ended at random batches and ends of epochs",
        kills,
        f"exact resume of {exact}; the others have data whose order cannot be saved, which a warning names",
    )

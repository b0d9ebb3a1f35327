"""Scripts of many kinds, killed at random batches and ends of epochs: exact when they are started again, or warned of."""

import random
import zlib

import pytest

from tests.contract.backends import BACKEND
from tests.resuming.scripts import EPOCHS, STEPS, WARNED, Kills, kinds, run, same

KINDS = kinds(60 if BACKEND == "tensorflow" else 15)
KILLS = 5


def resumed(kind, path, seed):
    """The end of a run that is killed at random until it gets through, the number of kills, and its warnings."""
    draw = random.Random(zlib.crc32(repr((kind, seed)).encode()))
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=" x ".join)
def test_killed_at_random_it_ends_as_if_it_had_not_been_or_has_warned(kind, tmp_path):
    whole, told = run(kind, tmp_path / "whole")
    assert same(run(kind)[0], whole), "TrainingState changes a run that is not killed"
    result, kills, warned = resumed(kind, tmp_path / "state", 0)
    assert kills
    assert warned or same(result, whole), "other than the undisturbed run, without a warning"
    assert bool(told) == (kind[1] in WARNED)


def test_one_kind_of_each(tmp_path):
    for kind in (
        ("subclassed", "PyDataset", "Keras' Adam", "a user's"),
        ("stateful recurrence", "scheduled batches", "Lookahead", "Keras'"),
    ):
        path = tmp_path / kind[1]
        whole, _ = run(kind)
        assert run(kind, path, Kills(batches=8)) == (None, [])
        assert run(kind, path, Kills(epoch=2)) == (None, [])
        assert same(run(kind, path)[0], whole)

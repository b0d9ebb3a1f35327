"""A script with state of many kinds, killed within and at the end of an epoch; `make faults` kills scripts of many kinds."""

from tests.nightly import nightly
from tests.resuming.scripts import Kills, run, same


@nightly
def test_killed_it_ends_as_if_it_had_not_been(tmp_path):
    kind = ("subclassed", "PyDataset", "Keras' Adam", "a user's")
    whole, _ = run(kind)
    assert run(kind, tmp_path / "state", Kills(batches=8)) == (None, [])
    assert run(kind, tmp_path / "state", Kills(epoch=2)) == (None, [])
    assert same(run(kind, tmp_path / "state")[0], whole)

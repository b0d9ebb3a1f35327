"""Scripts of two kinds, killed in the middle and at the end of an epoch. `make faults` kills scripts of many kinds."""

from tests.resuming.scripts import Kills, run, same


def test_killed_it_ends_as_if_it_had_not_been(tmp_path):
    for kind in (
        ("subclassed", "PyDataset", "Keras' Adam", "a user's"),
        ("stateful recurrence", "scheduled batches", "Lookahead", "Keras'"),
    ):
        path = tmp_path / kind[1]
        whole, _ = run(kind)
        assert run(kind, path, Kills(batches=8)) == (None, [])
        assert run(kind, path, Kills(epoch=2)) == (None, [])
        assert same(run(kind, path)[0], whole)

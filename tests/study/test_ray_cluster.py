"""Studies on a Ray cluster: two nodes on this machine, as `ray start` makes them, of which one is lost in the middle."""

import collections
import threading
import time

import numpy as np
import pytest

from keras_lrsched.study import Results
from keras_lrsched.study.journal import Journal
from tests.study.killed_study import make
from tests.tune import conftest  # noqa: F401, a token for Ray
from tests.tune.ray_nodes import Cluster

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="needs Ray: pip install 'keras-lrsched[ray]'")


@pytest.fixture
def cluster(monkeypatch):
    """As in a job of `ray job submit`."""
    with Cluster() as nodes:
        nodes.second = nodes.add()
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        assert not ray.is_initialized()


def test_a_node_that_leaves_loses_no_run(cluster, tmp_path):
    """Its runs are made again on the other node, each run is recorded once, and the results are those of this process."""
    runs = tmp_path / "runs.jsonl"

    def leave():
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and (not runs.exists() or len(runs.read_text().splitlines()) < 8):
            time.sleep(0.05)
        cluster.end(cluster.second)

    leaving = threading.Thread(target=leave)
    leaving.start()
    try:
        found = make(tmp_path, workers=2, executor="ray").outcomes(verbose=0)
    finally:
        leaving.join()
    counts = collections.Counter(outcome.trial for outcome in Journal(tmp_path).outcomes())
    assert len(counts) == 40
    assert set(counts.values()) == {1}
    alone = make().outcomes(verbose=0)
    assert [each.trial for each in found] == [each.trial for each in alone]
    for one, other in zip(found, alone, strict=True):
        assert one.status == other.status == "finished"
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-5)
    assert [row.verdict for row in Results.load(tmp_path).table().rows] == [
        row.verdict for row in Results(alone, tuned=False).table().rows
    ]

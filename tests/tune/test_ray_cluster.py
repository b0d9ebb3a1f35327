"""Searches on a Ray cluster: two nodes on this machine, as `ray start` makes them, with one CPU each."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from keras_lrsched._core import ray_pool
from keras_lrsched.tune import ParallelAutoLRS, PopulationBasedTraining
from tests.tune.ray_nodes import Cluster

pytestmark = pytest.mark.slow
RATE = "optimizer.learning_rate"
ray = pytest.importorskip("ray", reason="needs Ray: pip install 'keras-lrsched[ray]'")


@pytest.fixture(scope="module")
def nodes():
    with Cluster() as cluster:
        cluster.second = cluster.add()
        yield cluster


@pytest.fixture
def cluster(nodes, monkeypatch):
    """As in a job of `ray job submit`."""
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    yield nodes
    assert not ray.is_initialized()


def maker(folder=None, deaths=0, seconds=0.0):
    """A function that makes model and data; the first `deaths` processes that call it die of that."""

    def make():
        import os
        import time

        import keras
        import numpy as np

        from keras_lrsched.data import ScheduledBatches

        for death in range(deaths):
            try:
                os.close(os.open(folder / f"died {death}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            os._exit(1)
        time.sleep(seconds)
        x = np.random.default_rng(0).normal(size=(16, 2)).astype("float32")
        y = x @ np.array([[1.0], [-2.0]], "float32")
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", loss="mse", jit_compile=False)
        return model, {"x": ScheduledBatches(x, y, batch_size=4, seed=0), "validation_data": (x, y)}

    return make


def search(**options):
    return PopulationBasedTraining({RATE: (1e-3, 0.1)}, **{"population": 3, "rounds": 2, **options})


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The search by workers of this machine alone."""
    return search().search(maker(), tmp_path_factory.mktemp("local"), workers=2)


def same(found, local):
    assert found.values == local.values
    assert found.copies == local.copies
    assert found.policy.settings == local.policy.settings


def test_as_on_one_machine_though_a_worker_dies(local, cluster, tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    same(search().search(maker(tmp_path, deaths=1), tmp_path / "found", workers=2), local)
    assert (tmp_path / "died 0").exists()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_worker_that_always_dies(cluster, tmp_path):
    with pytest.raises(ray.exceptions.ActorDiedError):
        search(rounds=1).search(maker(tmp_path, deaths=9), tmp_path / "found", workers=1)
    assert (tmp_path / "died 2").exists()
    assert not (tmp_path / "died 4").exists()


def test_more_workers_than_cpus(local, cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_pool, "PATIENCE", 3.0)
    message = r"2 of 3 workers run after \d+ s. The search continues with 2; .* CPU: 1 a worker, 0 free of 2$"
    with pytest.warns(UserWarning, match=message):
        same(search().search(maker(seconds=5.0), tmp_path / "found", workers=3), local)


def test_a_worker_that_fits_no_node(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_pool, "PATIENCE", 1.0)
    monkeypatch.setattr(ray_pool, "GIVE_UP_AFTER", 3.0)
    message = r"No node of the Ray cluster is large enough for a worker after \d+ s: CPU: 2 a worker, 2 free of 2"
    with pytest.raises(RuntimeError, match=message), pytest.warns(UserWarning, match="0 of 1 workers"):
        search().search(maker(), tmp_path / "found", workers=1, resources={"num_cpus": 2})


def test_ray_of_the_program(cluster, tmp_path):
    """It is used and left as it is."""
    ray.init(log_to_driver=False, logging_level="error")
    try:
        search(rounds=1).search(maker(), tmp_path / "found", workers=2)
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_candidates(cluster):
    x = np.ones((8, 2), "float32")
    make = maker()
    options = {"search_steps": 8, "exploitation_steps": 8, "candidates": 2, "search": "log_grid"}
    autolrs = ParallelAutoLRS(lambda: make()[0], 1e-3, 0.1, **options)
    make()[0].fit(x, x[:, :1], batch_size=4, epochs=1, verbose=0, callbacks=[autolrs])
    assert len(autolrs.stages[0]["tried"]) == 2


def test_a_node_that_leaves(local, cluster, tmp_path):
    """With the last node but one: the search goes on with the worker that is left."""

    def leave():
        deadline = time.monotonic() + 120
        while not [*tmp_path.glob("found/rounds/0/*/outcome.json")] and time.monotonic() < deadline:
            time.sleep(0.1)
        cluster.end(cluster.second)

    leaving = threading.Thread(target=leave)
    leaving.start()
    try:
        same(search().search(maker(seconds=3.0), tmp_path / "found", workers=2), local)
    finally:
        leaving.join()
    assert os.listdir(tmp_path) == ["found"]

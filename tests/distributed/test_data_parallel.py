"""`keras.distribution` on JAX: two or four devices in one process, and two processes."""

import pytest

from tests.contract.backends import BACKEND
from tests.distributed import problem
from tests.distributed.processes import run

pytestmark = pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution")

PAIRS = [f"{optimizer}:{schedule}" for optimizer in problem.OPTIMIZERS for schedule in problem.SCHEDULES]
QUICK = ["SGD:REXDecay", "Prodigy:WarmupStableDecay"]
TOLERANCE = 2e-6
every_number = pytest.mark.parametrize("processes", [1, 2])


def within(tolerance, results):
    for apart in results:
        assert max(apart.values()) <= tolerance, apart


@every_number
def test_two_workers_end_where_one_does(processes):
    within(TOLERANCE, run("data_parallel.py", "optimizers", *QUICK, workers=processes))


@pytest.mark.slow
@every_number
def test_two_workers_end_where_one_does_with_all_others(processes):
    others = sorted({*PAIRS} - {*QUICK})
    within(TOLERANCE, run("data_parallel.py", "optimizers", *others, workers=processes))


IN_THE_STEP = ("GradientNormRecorder", "HypergradientLearningRate", "GradientNoiseScale", "MagnitudePruning")


@pytest.mark.parametrize(
    "names", [["Lion:REXDecay", *IN_THE_STEP], pytest.param([*sorted({*PAIRS}), "VolSched"], marks=pytest.mark.slow)]
)
def test_four_devices_end_where_one_does(names):
    """Also with callbacks that are part of the compiled step, in the way that Keras compiles it by itself."""
    within(1e-5, run("data_parallel.py", "meshes", *names, environments=[{"DEVICES": "4"}]))


@pytest.mark.slow
def test_four_devices_end_where_one_does_with_all_optimizers():
    names = [name for name in problem.optimizer_cases() if name != "LocalUpdates"]  # which is refused, below
    within(1e-5, run("data_parallel.py", "meshes", *names, environments=[{"DEVICES": "4"}]))


@every_number
def test_callbacks_see_the_whole_batch_and_decide_alike(processes, tmp_path):
    results = run("data_parallel.py", "callbacks", tmp_path, workers=processes)
    for result in results:
        assert result["received"] == {"loss": 0.1, "accuracy": -1.0}  # as the first process has it
        assert max(result[name] for name in ("weights", "loss", "seen", "norms", "recorded")) < 1e-5
        assert result["rates"][0] == result["rates"][1]
        assert len(set(result["rates"][0])) > 1
        assert result["sizes"][0] == result["sizes"][1]
    rows = (tmp_path / "run.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(len(results[0]["sizes"][0])))  # by the first process
    assert len({str(result["exact"]) for result in results}) == 1


@pytest.mark.parametrize(
    ("processes", "names"), [(1, ["Lion"]), *(pytest.param(n, problem.RESUMED, marks=pytest.mark.slow) for n in (1, 2))]
)
def test_a_run_that_was_interrupted_ends_the_same(tmp_path, processes, names):
    for results in run("data_parallel.py", "resumed", tmp_path, *names, workers=processes):
        problem.check_resumed(results)


@pytest.mark.slow
def test_optimizers_with_kernels_use_plain_operations():
    (result,) = run("data_parallel.py", "fused", environments=[{"KERAS_LRSCHED_FUSED": "auto"}])
    assert result["apart"] < TOLERANCE
    assert "Under a `keras.distribution` the update is left to JAX" in result["error"]


def test_local_updates_are_refused():
    (error,) = run("data_parallel.py", "local")
    assert "LocalUpdates averages over the replicas of tf.distribute, on the TensorFlow backend. Received: 1 pr" in error

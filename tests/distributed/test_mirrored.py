"""`MirroredStrategy` with `fit`, on two CPU devices in a process of its own."""

import itertools

import numpy as np
import pytest

from tests.contract.backends import BACKEND
from tests.distributed import fedhyper, problem
from tests.distributed.processes import run, run_tasks
from tests.nightly import nightly

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")

PAIRS = [f"{optimizer}:{schedule}" for optimizer in problem.OPTIMIZERS for schedule in problem.SCHEDULES]
QUICK = ["SGD:REXDecay", "Prodigy:WarmupStableDecay"]
TOLERANCE = 2e-6


def within(tolerance, apart):
    assert max(apart.values()) <= tolerance, apart


@pytest.fixture(scope="module")
def results():
    """The results of a process that ran what is neither nightly nor slow."""
    tasks = {
        "callbacks": ["callbacks", "HypergradientLearningRate", "VolSched"],
        "refusals": ["refusals"],
        "local": ["local", "ours"],
        "outer": ["outer", "outer_average_own", "outer_diloco_own", "outer_slowmo_own", "scaffold_own"],
        "hyper": ["hyper"],
    }
    by_name = run_tasks("mirrored.py", tasks, environments=[{"KERAS_LRSCHED_FUSED": "auto"}])
    return {name: result for name, (result,) in by_name.items()}


@nightly
def test_two_replicas_end_where_one_does():
    within(TOLERANCE, *run("mirrored.py", "optimizers", *QUICK))


@pytest.mark.slow
def test_two_replicas_end_where_one_does_with_all_others():
    within(TOLERANCE, *run("mirrored.py", "optimizers", *(set(PAIRS) - set(QUICK))))


@nightly
def test_callbacks_see_the_whole_batch_and_decide_once(results):
    within(1e-5, results["callbacks"])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_all_other_callbacks_too(part):
    within(1e-5, *run("mirrored.py", "callbacks", *problem.CALLBACKS[part::2]))


@pytest.mark.slow
def test_optimizers_with_kernels_use_plain_operations():
    within(TOLERANCE, *run("mirrored.py", "fused", environments=[{"KERAS_LRSCHED_FUSED": "auto"}]))


@nightly
def test_a_run_that_was_interrupted_ends_the_same(tmp_path):
    (resumed,) = run("mirrored.py", "resumed", tmp_path, "Lion")
    problem.check_resumed(resumed)


@pytest.mark.slow
def test_a_run_that_was_interrupted_ends_the_same_with_others(tmp_path):
    (resumed,) = run("mirrored.py", "resumed", tmp_path, *problem.RESUMED)
    problem.check_resumed(resumed)


@nightly
def test_what_cannot_work_is_refused(results):
    errors = results["refusals"]
    for name in ("GradientNoiseScale", "PrecisionSchedule", "ScheduleHyperparameter"):
        assert f"ValueError: {name} works with one replica." in errors[name]
    assert "GradientNormRecorder needs one gradient for all replicas" in errors["LocalUpdates"]
    assert "Received: gradient_accumulation_steps=2, 2 replicas" in errors["accumulation"]
    assert "RuntimeError: AdamW has no compiled update here: Variables that lie on several replicas" in errors["fused"]


def check_local(result):
    assert result["averages"] == result["due"] == [2, 4, 8]
    assert result["apart"] < 1e-5


@nightly
def test_outer_rules_follow_their_references(results):
    within(TOLERANCE, results["outer"])


@nightly
def test_hypergradients_follow_their_formulas(results):
    for name, found in results["hyper"].items():
        assert found["apart"] < 5e-6, name
        assert found["effect"] > 1e-2, name


def test_global_rates_of_the_specified_moves():
    """Of a transcription of the authors' code."""
    moves = np.array([(0.1, -0.2, 0.05), (0.08, -0.1, 0.06), (-0.05, 0.1, 0.02), (0.3, 0.4, -0.1), (3, 1, 0)])
    total, rates = 0.0, [1.0]
    for last, move in itertools.pairwise(moves):
        total = fedhyper.global_rate(total, last, move)
        rates.append(1 + total)
    np.testing.assert_allclose(rates, [1, 1.031, 1.0182, 1.0412, 2.3412], atol=5e-5)


@nightly
def test_local_updates_follow_their_formulas(results):
    check_local(results["local"])


@pytest.mark.slow
def test_local_updates_follow_their_formulas_around_keras():
    check_local(*run("mirrored.py", "local", "keras"))

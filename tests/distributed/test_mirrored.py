"""`MirroredStrategy` with `fit`, on two CPU devices in a process of its own."""

import pytest

from tests.contract.backends import BACKEND
from tests.distributed import problem
from tests.distributed.processes import run

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")

PAIRS = [f"{optimizer}:{schedule}" for optimizer in problem.OPTIMIZERS for schedule in problem.SCHEDULES]
QUICK = ["SGD:REXDecay", "Prodigy:WarmupStableDecay"]
TOLERANCE = 2e-6


def within(tolerance, apart):
    assert max(apart.values()) <= tolerance, apart


def test_two_replicas_end_where_one_does():
    within(TOLERANCE, *run("mirrored.py", "optimizers", *QUICK))


@pytest.mark.slow
def test_two_replicas_end_where_one_does_with_all_others():
    within(TOLERANCE, *run("mirrored.py", "optimizers", *(set(PAIRS) - set(QUICK))))


def test_callbacks_see_the_whole_batch_and_decide_once():
    within(1e-5, *run("mirrored.py", "callbacks", "HypergradientLearningRate", "VolSched"))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_all_other_callbacks_too(part):
    within(1e-5, *run("mirrored.py", "callbacks", *problem.CALLBACKS[part::2]))


@pytest.mark.slow
def test_optimizers_with_kernels_do_without():
    within(TOLERANCE, *run("mirrored.py", "fused", environments=[{"KERAS_LRSCHED_FUSED": "auto"}]))


@pytest.mark.parametrize("names", [["Lion"], pytest.param(problem.RESUMED, marks=pytest.mark.slow)])
def test_a_run_that_was_interrupted_ends_the_same(tmp_path, names):
    (results,) = run("mirrored.py", "resumed", tmp_path, *names)
    problem.check_resumed(results)


def test_what_cannot_work_says_so():
    (errors,) = run("mirrored.py", "refusals", environments=[{"KERAS_LRSCHED_FUSED": "auto"}])
    for name in ("GradientNoiseScale", "PrecisionSchedule", "ScheduleHyperparameter"):
        assert f"ValueError: {name} works with one replica." in errors[name]
    assert "GradientNormRecorder needs one gradient for all replicas" in errors["LocalUpdates"]
    assert "Received: gradient_accumulation_steps=2, 2 replicas" in errors["accumulation"]
    assert "RuntimeError: AdamW has no compiled update here: Variables that lie on several replicas" in errors["fused"]


@pytest.mark.parametrize("inner", ["ours", pytest.param("keras", marks=pytest.mark.slow)])
def test_local_updates_follow_their_formulas(inner):
    (result,) = run("mirrored.py", "local", inner)
    assert result["averages"] == result["due"] == [2, 4, 8]
    assert result["apart"] < 1e-5

"""`MultiWorkerMirroredStrategy` with two processes: `fit`, and a loop with `strategy.run`."""

import re

import pytest

from tests.contract.backends import BACKEND
from tests.distributed import problem
from tests.distributed.processes import HERE, run, run_tasks
from tests.nightly import nightly

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")

PAIRS = [f"{optimizer}:{schedule}" for optimizer in problem.OPTIMIZERS for schedule in problem.SCHEDULES]
QUICK = ["SGD:REXDecay", "Prodigy:WarmupStableDecay"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of two workers that ran everything here but the slow tests."""
    tasks = {
        "optimizers": ["optimizers", *QUICK],
        "local": ["local"],
        "fit": ["fit", "SGD:REXDecay"],
        "resumed": ["resumed", tmp_path_factory.mktemp("resumed"), "VolSched"],
    }
    return run_tasks("multi_worker.py", tasks, workers=2)


def within(tolerance, workers):
    for apart in workers:
        assert max(apart.values()) <= tolerance, apart


@nightly
def test_two_workers_end_where_one_does(results):
    within(2e-6, results["optimizers"])


@pytest.mark.slow
def test_two_workers_end_where_one_does_with_all_others():
    within(2e-6, run("multi_worker.py", "optimizers", *sorted({*PAIRS} - {*QUICK}), workers=2))


@nightly
def test_local_updates_follow_their_formulas(results):
    within(1e-5, results["local"])


@nightly
def test_fit_ends_where_one_worker_does(results):
    within(2e-6, results["fit"])


@pytest.mark.slow
def test_fit_ends_where_one_worker_does_with_others():
    others = "SGD:WarmupStableDecay", "Lion:REXDecay", "Lion:WarmupStableDecay", "Lamb:REXDecay", "Lamb:WarmupStableDecay"
    within(2e-6, run("multi_worker.py", "fit", *others, workers=2))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_callbacks_of_fit_see_the_whole_batch_and_decide_alike(part):
    first, second = run("multi_worker.py", "callbacks", *problem.CALLBACKS[part::2], workers=2)
    assert first == second
    assert max(first["apart"].values()) < 1e-5, first["apart"]


@nightly
def test_a_run_that_was_interrupted_ends_the_same(results):
    for worker in results["resumed"]:
        problem.check_resumed(worker)


@pytest.mark.slow
def test_a_run_that_was_interrupted_ends_the_same_with_others(tmp_path):
    for worker in run("multi_worker.py", "resumed", tmp_path, *problem.RESUMED, workers=2):
        problem.check_resumed(worker)


@pytest.mark.slow
def test_a_file_that_one_worker_does_not_find_is_refused(tmp_path):
    for error in run("multi_worker.py", "other_files", tmp_path, workers=2):
        assert "All workers must find the same file. " in error
        assert error.endswith("by worker step 9, no file")


@pytest.mark.slow
def test_the_page(tmp_path):
    page = (HERE.parents[1] / "docs" / "guides" / "distributed.md").read_text(encoding="utf-8")
    section = page.partition("## Several machines with TensorFlow")[2].partition("\n## ")[0]
    fit, loop = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    checked = 'assert history.history["accuracy"][-1] > 0.95\n'
    (tmp_path / "page.py").write_text(f"import os\nos.chdir({str(tmp_path)!r})\n{fit}{checked}{loop}", encoding="utf-8")
    first, second = run(tmp_path / "page.py", workers=2)
    assert first == second < 0.5

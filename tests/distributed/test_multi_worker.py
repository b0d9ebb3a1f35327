"""`MultiWorkerMirroredStrategy` with two processes and a loop with `strategy.run`."""

import re

import pytest

from tests.contract.backends import BACKEND
from tests.distributed import problem
from tests.distributed.processes import HERE, run

pytestmark = pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")

PAIRS = [f"{optimizer}:{schedule}" for optimizer in problem.OPTIMIZERS for schedule in problem.SCHEDULES]
QUICK = ["SGD:REXDecay", "Prodigy:WarmupStableDecay"]


def trained(*names):
    for apart in run("multi_worker.py", "optimizers", *names, workers=2):
        assert max(apart.values()) <= 2e-6, apart


def test_two_workers_end_where_one_does():
    trained(*QUICK)


@pytest.mark.slow
def test_two_workers_end_where_one_does_with_all_others():
    trained(*sorted({*PAIRS} - {*QUICK}))


def test_local_updates_follow_their_formulas():
    for result in run("multi_worker.py", "local", workers=2):
        assert result["apart"] < 1e-5


@pytest.mark.slow
def test_the_loop_of_the_page(tmp_path):
    page = (HERE.parents[1] / "docs" / "how_to" / "distributed.md").read_text(encoding="utf-8")
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "TF_CONFIG" in block]
    (tmp_path / "loop.py").write_text(block, encoding="utf-8")
    first, second = run(tmp_path / "loop.py", workers=2)
    assert first == second < 0.5

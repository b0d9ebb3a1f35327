"""`DistributedDataParallel` of PyTorch: two processes."""

import pytest

from tests.contract.backends import BACKEND
from tests.distributed import problem
from tests.distributed.processes import run

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="DistributedDataParallel")


QUICK = ("SGD", "AdamW", "Lion", "Lamb", "ScheduleFreeAdamW", "Muon")
LEFT_OUT = ("LocalUpdates", "MoMo", "MoMoAdam", "PolyakMomentum")
"""The first is refused; the others need the loss, which the loop of Keras' guide does not give to an optimizer."""
others = sorted({*problem.optimizer_cases()} - {*QUICK, *LEFT_OUT})


@pytest.mark.parametrize("names", [QUICK, pytest.param(others, marks=pytest.mark.slow)])
def test_two_processes_end_where_one_does(names):
    for apart in run("ddp.py", *names, workers=2):
        assert apart.pop("Apollo", 0) < 5e-5  # whose scales of channels are quotients of small numbers
        assert max(apart.values()) < 5e-6, apart

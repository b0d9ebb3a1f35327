"""`DistributedDataParallel` of PyTorch: two processes."""

import pytest

from tests.contract.backends import BACKEND
from tests.distributed.processes import run

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="DistributedDataParallel")


@pytest.mark.parametrize(
    "names",
    [
        ["SGD", "AdamW", "Lion", "Lamb", "ScheduleFreeAdamW", "Muon"],
        pytest.param(
            ["AdamMini", "Adafactor", "DAdaptAdam", "GaLore", "Lars", "Prodigy", "RectifiedAdam"], marks=pytest.mark.slow
        ),
    ],
)
def test_two_processes_end_where_one_does(names):
    for apart in run("ddp.py", *names, workers=2):
        assert max(apart.values()) < 5e-6, apart

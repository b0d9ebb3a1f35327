"""`torch.optim` of PyTorch 2.13."""

import pytest

from keras_lrsched.optimizers import Adafactor, AdamW, Muon, RectifiedAdam

from .problem import deviation
from .runs import ours, torch_run

torch = pytest.importorskip("torch", reason="needs the environment of `make test-peers`")
EXACT = 1e-6
BFLOAT16 = 2e-2  # in which PyTorch orthogonalizes


def peer(name, variables=("kernel", "bias"), **options):
    return torch_run(lambda weights: getattr(torch.optim, name)(weights.values(), **options), variables)


def test_adamw():
    assert deviation(ours(AdamW(0.02, weight_decay=0.1, epsilon=1e-8)), peer("AdamW", lr=0.02, weight_decay=0.1)) < EXACT


@pytest.mark.parametrize(("placement", "decoupled"), [("outside", True), ("gradient", False)])
def test_radam(placement, decoupled):
    mine = ours(RectifiedAdam(0.02, weight_decay=0.1, decay_placement=placement))
    assert deviation(mine, peer("RAdam", lr=0.02, weight_decay=0.1, decoupled_weight_decay=decoupled)) < EXACT


def test_adafactor():
    """Without weight decay, which PyTorch multiplies by lr rather than by the relative step."""
    assert deviation(ours(Adafactor(0.05)), peer("Adafactor", lr=0.05, eps=(1e-30, 1e-3))) < EXACT


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon(adjust, nesterov):
    options = {"weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov}
    optimizer = Muon.original(0.02, adjust_lr=adjust, ns_dtype="bfloat16", **options)
    mine = ours(optimizer, transposed=True, variables=("kernel",))
    theirs = peer("Muon", ("kernel",), lr=0.02, adjust_lr_fn=adjust, **options)
    assert deviation(mine, theirs) < BFLOAT16

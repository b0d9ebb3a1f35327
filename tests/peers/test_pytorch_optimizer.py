"""MADGRAD, CAME and SM3 of their authors, and of the collection pytorch_optimizer 4.1."""

import importlib

import pytest

from keras_lrsched.optimizers import CAME, MADGRAD, SM3

from .problem import deviation
from .runs import ours, torch_run

pytest.importorskip("torch", reason="needs the environment of `make test-peers`")
EXACT = 1e-6
COLLECTION = "pytorch_optimizer"

PEERS = {
    "madgrad": (lambda: MADGRAD(0.02, weight_decay=0.1), "madgrad", "MADGRAD", {"lr": 0.02, "weight_decay": 0.1}),
    "madgrad_decoupled": (
        lambda: MADGRAD(0.02, weight_decay=0.1, decoupled_weight_decay=True),
        "madgrad",
        "MADGRAD",
        {"lr": 0.02, "weight_decay": 0.1, "decouple_decay": True},
    ),
    "madgrad_collection": (
        lambda: MADGRAD(0.02, momentum=0.0, weight_decay=0.1),
        COLLECTION,
        "MADGRAD",
        {"lr": 0.02, "momentum": 0.0, "weight_decay": 0.1, "weight_decouple": False},
    ),
    "came": (lambda: CAME(0.02, weight_decay=0.1), "came_pytorch", "CAME", {"lr": 0.02, "weight_decay": 0.1}),
    "came_collection": (
        lambda: CAME(0.02, weight_decay=0.1, beta_3=0.99),
        COLLECTION,
        "CAME",
        {"lr": 0.02, "betas": (0.9, 0.999, 0.99), "weight_decay": 0.1, "weight_decouple": True},
    ),
    "sm3_collection": (lambda: SM3(0.1), COLLECTION, "SM3", {"lr": 0.1, "momentum": 0.9}),
    "sm3_collection_no_momentum": (lambda: SM3(0.1, momentum=0.0), COLLECTION, "SM3", {"lr": 0.1}),
}


MATRICES = ("came_collection",)
"""The collection's CAME multiplies the momentum of vectors itself by the learning rate."""


@pytest.mark.parametrize("name", PEERS)
def test_peer(name):
    mine, package, peer, options = PEERS[name]
    pytest.importorskip(package, reason="needs the environment of `make test-peers`")
    make = getattr(importlib.import_module(package), peer)
    variables = ("kernel",) if name in MATRICES else ("kernel", "bias")
    theirs = torch_run(lambda weights: make([*weights.values()], **options), variables)
    assert deviation(ours(mine(), variables=variables), theirs) < EXACT

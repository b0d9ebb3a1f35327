"""The authors' packages of Adam-mini, AdaLomo, GaLore, APOLLO and Fira."""

import numpy as np
import pytest

from keras_lrsched.optimizers import AdaLomo, AdamMini, Apollo, ApolloMini, Fira, GaLore
from keras_lrsched.optimizers._low_rank import random_directions, seed_for

from .problem import ZERO, deviation
from .runs import ours, torch_run
from .stubs import official

torch = pytest.importorskip("torch", reason="needs the environment of `make test-peers`")
EXACT = 1e-6
FLOAT32 = 1e-5  # in which AdaLomo computes, and GaLore its singular vectors
GAP = 10
BEFORE_ZERO = ZERO - 1


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("mlp.weight", {}),  # a unit each
        ("norm.weight", {"kernel": []}),  # a variable
        ("wq.weight", {"kernel": 2}),  # two heads
    ],
)
def test_adam_mini(name, blocks, monkeypatch):
    """The bias has Adam's second moment on both sides, which is `"entry"` here."""
    package = official("adam_mini", monkeypatch)
    blocks = {"bias": "entry", **blocks}
    mine = ours(AdamMini(0.02, weight_decay=0.1, exclude_from_weight_decay=["bias"], blocks=blocks), transposed=True)

    def make(weights):
        named = [(name, weights["kernel"]), ("bias", weights["bias"])]
        optimizer = package.Adam_mini(named, lr=0.02, weight_decay=0.1, verbose=False)
        optimizer.head_numel = 12
        if "norm" in name:  # their rule leaves out what is called so
            optimizer.param_groups[0]["weight_decay"] = 0.1
        return optimizer

    assert deviation(mine, torch_run(make)) < EXACT


def test_adalomo(monkeypatch):
    """Its hook is called by hand, with the gradients of a whole backward pass."""
    package = official("lomo_optim", monkeypatch)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)

    def make(weights):
        model = torch.nn.Module()
        for name, weight in weights.items():
            model.register_parameter(name, weight)
        return package.AdaLomo(model, lr=0.02, weight_decay=0.1, loss_scale=None)

    def step(optimizer, t, loss):
        optimizer.step_num = t
        optimizer.grad_func(None)

    assert deviation(ours(AdaLomo(0.02, weight_decay=0.1)), torch_run(make, step=step)) < FLOAT32


def low_rank(package, name, monkeypatch, **settings):
    """A function that makes the optimizer: `settings` are for the kernel, and the bias is updated by Adam."""
    make = official(package, monkeypatch).AdamW

    def made(weights):
        groups = [{"params": [weights["kernel"]], "update_proj_gap": GAP, "proj_type": "std", **settings}]
        options = {"lr": 0.05, "weight_decay": 0.1, "no_deprecation_warning": True}
        return make([*groups, {"params": [weights["bias"]]}], **options)

    return made


@pytest.fixture
def signed(monkeypatch):
    """Gives singular vectors the sign that they have here, where the peers take any."""
    svd = torch.linalg.svd

    def with_signs(matrix, full_matrices=False):
        u, s, vh = svd(matrix, full_matrices=full_matrices)
        vectors = vh.T if matrix.shape[0] >= matrix.shape[1] else u
        signs = torch.sign(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)))
        return u * signs, s, vh * signs.T

    monkeypatch.setattr(torch.linalg, "svd", with_signs)


def test_galore(monkeypatch, signed):
    theirs = torch_run(low_rank("galore_torch.adamw", "AdamW", monkeypatch, rank=2, scale=0.25))
    mine = ours(GaLore(0.05, rank=2, update_proj_gap=GAP, weight_decay=0.1))
    assert deviation(mine, theirs) < FLOAT32


def test_fira(monkeypatch, signed):
    """Up to a gradient of zero, after which its limit to growth is 1e-8, and here there is none."""
    theirs = torch_run(low_rank("fira.fira_adamw", "AdamW", monkeypatch, rank=2, alpha=0.5), steps=BEFORE_ZERO)
    mine = ours(Fira(0.05, rank=2, alpha=0.5, update_proj_gap=GAP, weight_decay=0.1), steps=BEFORE_ZERO)
    assert deviation(mine, theirs) < FLOAT32


APOLLO = {
    "apollo": (Apollo, {"rank": 2, "scale": 1.0, "scale_type": "channel"}),
    "apollo_tensor": (Apollo, {"rank": 2, "scale": 4.0, "scale_type": "tensor"}),
    "apollo_mini": (ApolloMini, {"rank": 1, "scale": 128.0, "scale_type": "tensor"}),
}


@pytest.mark.parametrize("name", APOLLO)
def test_apollo(name, monkeypatch):
    """With our random numbers, and up to a gradient of zero, as for Fira."""
    method, settings = APOLLO[name]
    peer = low_rank("apollo_torch.apollo", "AdamW", monkeypatch, proj="random", **settings)
    projector = official("apollo_torch.random_projector", monkeypatch).GradientProjector
    count = iter(range(1000))

    def directions(self, gradient, rank, type, seed):
        p = random_directions(min(gradient.shape), rank, seed_for(0, 0, next(count)), "float64")
        return p.T if type == "right" else p

    monkeypatch.setattr(projector, "get_orthogonal_matrix", directions)
    theirs = torch_run(peer, steps=BEFORE_ZERO)
    mine = ours(method(0.05, update_proj_gap=GAP, weight_decay=0.1, **settings), steps=BEFORE_ZERO)
    assert next(count) == np.ceil(BEFORE_ZERO / GAP)
    assert deviation(mine, theirs) < EXACT

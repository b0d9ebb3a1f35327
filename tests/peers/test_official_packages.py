"""The packages that authors of the methods have put on PyPI."""

import pytest

from keras_lrsched.optimizers import (
    AdaBound,
    AdamAtan2,
    AdaMod,
    DAdaptAdam,
    DAdaptLion,
    DAdaptSGD,
    MoMo,
    MoMoAdam,
    Muon,
    Prodigy,
    ScheduleFreeAdamW,
    ScheduleFreeRAdam,
    ScheduleFreeSGD,
    SGDSaI,
)

from .problem import deviation
from .runs import ours, torch_run

torch = pytest.importorskip("torch", reason="needs the environment of `make test-peers`")
EXACT = 1e-6
GROWTH = 1e-5  # where the state is d, in float32 here, which grows
BFLOAT16 = 2e-2


def official(package, name, **options):
    """A function that makes the optimizer from parameters by name."""
    module = pytest.importorskip(package, reason="needs the environment of `make test-peers`")
    return lambda weights: getattr(module, name)([*weights.values()], **options)


DISTANCE = {"d0": 1e-3, "weight_decay": 0.1}
SHORT = {"beta_1": 0.8, "beta_2": 0.99}
PAIRS = {
    "prodigy": (lambda: Prodigy(**DISTANCE), ("prodigyopt", "Prodigy", DISTANCE), GROWTH),
    "prodigy_options": (
        lambda: Prodigy(
            0.5, d_coef=2.0, safeguard_warmup=True, bias_correction=True, decoupled_weight_decay=False, **DISTANCE, **SHORT
        ),
        (
            "prodigyopt",
            "Prodigy",
            {
                "lr": 0.5,
                "betas": (0.8, 0.99),
                "d_coef": 2.0,
                "safeguard_warmup": True,
                "use_bias_correction": True,
                "decouple": False,
                **DISTANCE,
            },
        ),
        GROWTH,
    ),
    "dadapt_sgd": (
        lambda: DAdaptSGD(momentum=0.9, **DISTANCE),
        ("dadaptation", "DAdaptSGD", {"momentum": 0.9, **DISTANCE}),
        GROWTH,
    ),
    "dadapt_adam": (lambda: DAdaptAdam(**DISTANCE), ("dadaptation", "DAdaptAdam", DISTANCE), GROWTH),
    "dadapt_adam_decoupled": (
        lambda: DAdaptAdam(decoupled_weight_decay=True, bias_correction=True, growth_rate=1.05, **DISTANCE),
        ("dadaptation", "DAdaptAdam", {"decouple": True, "use_bias_correction": True, "growth_rate": 1.05, **DISTANCE}),
        GROWTH,
    ),
    "dadapt_lion": (lambda: DAdaptLion(0.1, **DISTANCE), ("dadaptation", "DAdaptLion", {"lr": 0.1, **DISTANCE}), GROWTH),
    "adabound": (lambda: AdaBound(0.01, gamma=0.1), ("adabound", "AdaBound", {"lr": 0.01, "gamma": 0.1}), EXACT),
    "amsbound": (
        lambda: AdaBound(0.01, gamma=0.1, amsbound=True, beta_2=0.9),
        ("adabound", "AdaBound", {"lr": 0.01, "gamma": 0.1, "amsbound": True, "betas": (0.9, 0.9)}),
        EXACT,
    ),
    "adamod": (
        lambda: AdaMod(0.05, beta_3=0.9, weight_decay=0.1),
        ("adamod", "AdaMod", {"lr": 0.05, "beta3": 0.9, "weight_decay": 0.1}),
        EXACT,
    ),
    "adam_atan2": (
        lambda: AdamAtan2(0.02, weight_decay=0.1),
        ("adam_atan2_pytorch", "AdamAtan2", {"lr": 0.02, "weight_decay": 0.1}),
        EXACT,
    ),
    "sgd_sai": (lambda: SGDSaI(0.005), ("sgd_sai", "SGD_sai", {"lr": 0.005}), EXACT),
}


@pytest.mark.parametrize("name", PAIRS)
def test_package(name):
    mine, (package, peer, options), tolerance = PAIRS[name]
    assert deviation(ours(mine()), torch_run(official(package, peer, **options))) < tolerance


MOMO = {
    "momo": (lambda: MoMo(0.3, weight_decay=0.1), "Momo", {"lr": 0.3, "weight_decay": 0.1}),
    "momo_bound": (
        lambda: MoMo(0.3, lb=-10.0, use_fstar=True, bias_correction=True),
        "Momo",
        {"lr": 0.3, "lb": -10.0, "use_fstar": True, "bias_correction": True},
    ),
    "momo_adam": (lambda: MoMoAdam(0.1, weight_decay=0.1), "MomoAdam", {"lr": 0.1, "weight_decay": 0.1}),
    "momo_adam_bound": (
        lambda: MoMoAdam(0.1, lb=-10.0, use_fstar=True, divide=False, weight_decay=0.1),
        "MomoAdam",
        {"lr": 0.1, "lb": -10.0, "use_fstar": True, "divide": False, "weight_decay": 0.1},
    ),
}


@pytest.mark.parametrize("name", MOMO)
def test_momo(name):
    mine, peer, options = MOMO[name]

    def step(optimizer, t, loss):
        optimizer.step(loss=torch.tensor(loss, dtype=torch.float64))

    assert deviation(ours(mine()), torch_run(official("momo", peer, **options), step=step)) < EXACT


SCHEDULE_FREE = {
    "sgd": (
        lambda: ScheduleFreeSGD(0.1, weight_decay=0.1, warmup_steps=10, r=1.0),
        "SGDScheduleFree",
        {"lr": 0.1, "weight_decay": 0.1, "warmup_steps": 10, "r": 1.0},
    ),
    "adamw": (
        lambda: ScheduleFreeAdamW(0.05, weight_decay=0.1, warmup_steps=10),
        "AdamWScheduleFree",
        {"lr": 0.05, "weight_decay": 0.1, "warmup_steps": 10},
    ),
    "radam": (
        lambda: ScheduleFreeRAdam(0.05, weight_decay=0.1),
        "RAdamScheduleFree",
        {"lr": 0.05, "weight_decay": 0.1},
    ),
    "radam_loud": (
        lambda: ScheduleFreeRAdam(0.05, silent_sgd_phase=False),
        "RAdamScheduleFree",
        {"lr": 0.05, "silent_sgd_phase": False},
    ),
}


@pytest.mark.parametrize("evaluated", [False, True], ids=["y", "x"])
@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_schedule_free(name, evaluated):
    """Once as it trains, once with the averaged weights looked at after each update."""
    mine, peer, options = SCHEDULE_FREE[name]
    package = pytest.importorskip("schedulefree", reason="needs the environment of `make test-peers`")
    mine, theirs = mine(), []

    def make(weights):
        theirs.append(getattr(package, peer)([*weights.values()], **options))
        return theirs[0]

    def step(optimizer, t, loss):
        optimizer.train()
        optimizer.step()
        if evaluated:
            optimizer.eval()

    def before(t):
        mine.use_training_weights()

    def after(t):
        if evaluated:
            mine.use_average()

    assert deviation(ours(mine, before=before, after=after), torch_run(make, step=step)) < EXACT


def test_muon():
    """Our orthogonalization in bfloat16, as theirs is."""
    mine = ours(Muon.original(0.02, weight_decay=0.1, ns_dtype="bfloat16"), transposed=True, variables=("kernel",))
    theirs = torch_run(official("muon", "SingleDeviceMuon", lr=0.02, weight_decay=0.1), ("kernel",))
    assert deviation(mine, theirs) < BFLOAT16

"""Methods whose updates depend on the weights and the loss, against official runs down two quadratics.

f(x) = 0.5 sum h (x - c)^2. The runs are of float64, by the authors' code in PyTorch: `schedulefree`, `dadaptation`,
`prodigyopt`, `momo-opt` and `parameterfree`; `p` is the weight in training, x and z the other sequences of Schedule-Free, d
the estimated distance, lb the estimated lower bound.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_lrsched.optimizers import (
    COCOB,
    DAdaptAdam,
    DAdaptLion,
    DAdaptSGD,
    MoMo,
    MoMoAdam,
    Prodigy,
    ScheduleFreeAdamW,
    ScheduleFreeRAdam,
    ScheduleFreeSGD,
)
from keras_lrsched.optimizers._schedule_free import ScheduleFree
from tests.contract import optimizer_cases
from tests.nightly import some

RUNS = json.loads((Path(optimizer_cases.__file__).parent / "descents.json").read_text())
PROBLEMS = {
    "P1": {"h": [1.0], "c": [0.0], "start": [1.0]},
    "P3": {"h": [1.0, 10.0, 0.1], "c": [0.5, -0.25, 2.0], "start": [1.0, -1.0, 0.5]},
}
FEW_STEPS, GROWTH = 2e-6, 1e-4

DECAY = {"weight_decay": 0.01}
WARMUP = {"learning_rate": 0.1, "warmup_steps": 3, **DECAY}
GROWING = {"d0": 0.01, "growth_rate": 1.02, "decoupled_weight_decay": True, "bias_correction": True, **DECAY}
CORRECTED = {"d0": 1e-3, "bias_correction": True, "safeguard_warmup": True, **DECAY}
RUNNING = {  # name of the run, without the problem: class, arguments, relative error
    "SGDScheduleFreeReference lr=0.1 mom=.9": (ScheduleFreeSGD, {"learning_rate": 0.1}, FEW_STEPS),
    "SGDScheduleFree(non-ref) lr=0.1 wd=0.01 warmup=3": (ScheduleFreeSGD, WARMUP, FEW_STEPS),
    "AdamWScheduleFree defaults lr=0.0025": (ScheduleFreeAdamW, {}, FEW_STEPS),
    "AdamWScheduleFree lr=0.1 wd=0.01 warmup=3 r=0": (ScheduleFreeAdamW, WARMUP, FEW_STEPS),
    "AdamWScheduleFree lr=0.1 r=1 wlp=0": (
        ScheduleFreeAdamW,
        {"learning_rate": 0.1, "r": 1, "weight_lr_power": 0},
        FEW_STEPS,
    ),
    "AdamWScheduleFree lr=0.1 inner_momentum=.9": (
        ScheduleFreeAdamW,
        {"learning_rate": 0.1, "inner_momentum": 0.9},
        FEW_STEPS,
    ),
    "RAdamScheduleFree lr=0.1 wd=0.01": (ScheduleFreeRAdam, {"learning_rate": 0.1, **DECAY}, FEW_STEPS),
    "DAdaptSGD d0=1e-6": (DAdaptSGD, {}, FEW_STEPS),
    "DAdaptSGD d0=0.1 momentum .9 wd=.01": (DAdaptSGD, {"d0": 0.1, "momentum": 0.9, **DECAY}, FEW_STEPS),
    "DAdaptAdam d0=1e-6": (DAdaptAdam, {}, GROWTH),
    "DAdaptAdam d0=0.01 growth 1.02 decouple wd .01 bc": (DAdaptAdam, GROWING, FEW_STEPS),
    "DAdaptLion d0=1e-6": (DAdaptLion, {}, FEW_STEPS),
    "DAdaptLion d0=0.01": (DAdaptLion, {"d0": 0.01}, FEW_STEPS),
    "Prodigy defaults": (Prodigy, {}, GROWTH),
    "Prodigy d0=1e-3 bc safeguard wd=.01": (Prodigy, CORRECTED, FEW_STEPS),
    "Prodigy d0=1e-3 d_coef=2 growth=1.02": (Prodigy, {"d0": 1e-3, "d_coef": 2, "growth_rate": 1.02}, FEW_STEPS),
    "Prodigy d0=1e-3 beta3=.9 betas(0,.99)": (Prodigy, {"d0": 1e-3, "beta_3": 0.9, "beta_1": 0, "beta_2": 0.99}, GROWTH),
    "Prodigy d0=1e-3 slice_p=2": (Prodigy, {"d0": 1e-3, "slice_p": 2}, GROWTH),
    "Prodigy d0=1e-3 lr=0.5": (Prodigy, {"d0": 1e-3, "learning_rate": 0.5}, GROWTH),
    "Prodigy d0=1e-3 lr=0.5 safeguard": (
        Prodigy,
        {"d0": 1e-3, "learning_rate": 0.5, "safeguard_warmup": True},
        GROWTH,
    ),
    "Momo lr=1": (MoMo, {}, FEW_STEPS),
    "Momo lr=0.3 beta .9 bias_correction wd=.1 lb=.05": (
        MoMo,
        {"learning_rate": 0.3, "bias_correction": True, "weight_decay": 0.1, "lb": 0.05},
        FEW_STEPS,
    ),
    "Momo lr=1 use_fstar lb=-1": (MoMo, {"use_fstar": True, "lb": -1}, FEW_STEPS),
    "Momo lr=1 use_fstar lb=0": (MoMo, {"use_fstar": True, "lb": 0}, FEW_STEPS),
    "MomoAdam lr=1": (MoMoAdam, {"learning_rate": 1}, FEW_STEPS),
    "MomoAdam lr=1e-2": (MoMoAdam, {"learning_rate": 1e-2}, FEW_STEPS),
    "MomoAdam lr=1 wd=.1 divide": (MoMoAdam, {"learning_rate": 1, "weight_decay": 0.1}, FEW_STEPS),
    "MomoAdam lr=1 wd=.1 no divide": (MoMoAdam, {"learning_rate": 1, "weight_decay": 0.1, "divide": False}, FEW_STEPS),
    "MomoAdam lr=1 use_fstar lb=-1": (MoMoAdam, {"learning_rate": 1, "use_fstar": True, "lb": -1}, FEW_STEPS),
    "COCOB alpha=100": (COCOB, {}, FEW_STEPS),
}


def quadratic(problem):
    """A weight and a function that gives the loss and the gradient at it."""
    h, c, start = (ops.convert_to_tensor(PROBLEMS[problem][name], "float32") for name in ("h", "c", "start"))
    x = keras.Variable(start, name="x")
    return x, lambda: (0.5 * ops.sum(h * ops.square(x - c)), h * (x - c))


def number(variable):
    return np.array(ops.convert_to_numpy(variable), "float64")


@pytest.mark.parametrize("run", some([*RUNS], len(RUNS) // 2))
def test_descent(run):
    problem, name = run.split(" ", 1)
    method, options, rtol = RUNNING[name]
    x, loss_and_gradient = quadratic(problem)
    optimizer = method(**options)
    for t, expected in enumerate(RUNS[run], 1):
        loss, gradient = loss_and_gradient()
        if hasattr(optimizer, "set_loss"):
            optimizer.set_loss(loss)
        optimizer.apply([gradient], [x])
        close = {"rtol": rtol, "atol": 0.1 * rtol, "err_msg": f"update {t}"}
        np.testing.assert_allclose(number(x), expected["p"], **close)
        if "d" in expected:
            np.testing.assert_allclose(number(optimizer.d), expected["d"], rtol=rtol)
        if "lb" in expected:
            np.testing.assert_allclose(number(optimizer.lower_bound), expected["lb"], rtol=rtol, atol=rtol)
        if isinstance(optimizer, ScheduleFree):
            y = number(x)
            optimizer.use_average()
            np.testing.assert_allclose(number(x), expected["x"], **close)
            optimizer.use_training_weights()
            np.testing.assert_allclose(number(x), y, rtol=3e-7)
            np.testing.assert_allclose(y + number(optimizer._states[0]["gap"]), expected["z"], **close)


def test_each_setting_has_a_run():
    assert {run.split(" ", 1)[1] for run in RUNS} == set(RUNNING)

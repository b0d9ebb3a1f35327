"""Sophia."""

from keras_lrsched.optimizers import Sophia
from tests.contract.optimizer_problem import gradients

from . import Case, Trajectory


def tell_hessian(optimizer, t, run):
    if t % 2:
        optimizer.update_hessian(gradients(t + 10))


CASES = [
    Case(
        Sophia,
        (Trajectory("sophiag_official", {"learning_rate": 1e-3}, before_update=tell_hessian),),
        options={"learning_rate": 0.01},
        quadratic_rate=0.05,
        digits_rate=3e-3,
        state_bytes=8,
        bad=(
            *({name: bad} for name in ("beta_1", "beta_2") for bad in (-0.1, 1, float("nan"), None, True)),
            {"rho": 0},
            {"rho": None},
            {"batch_size": 0},
            {"update_period": 1.5},
            {"estimator": "gnb"},
        ),
    ),
]

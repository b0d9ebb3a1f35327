"""Sophia, OASIS."""

from keras_lrsched.optimizers import OASIS, Sophia
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
    Case(
        OASIS,
        (),  # its reference run goes down a quadratic: test_oasis.py
        options={"initial_step": 0.01},
        quadratic_rate=1.0,
        digits_rate=1.0,
        state_bytes=12,
        differs={
            "test_fit": "needs last gradients of the same batch; test_oasis.py has a fit",
            "test_learning_rate_multipliers": "the way of one variable changes the step size, which all share",
        },
        bad=(
            {"initial_step": 0},
            {"beta_2": 1},
            {"alpha": 0},
            {"initial_hessian": 0},
        ),
    ),
]

"""SOAP, Shampoo, PSGDKron."""

import numpy as np
from keras import ops

from keras_lrsched.optimizers import SOAP, PSGDKron, Shampoo

from . import Case, Trajectory

RATES = {"learning_rate": 0.01, "weight_decay": 0.01}
NVIDIA = {**RATES, "form": "nvidia", "beta_1": 0.9, "precondition_frequency": 1, "epsilon": 1e-2}
KERNEL = {"variables": ("kernel",)}
STARTS = "the first update only sets the bases: test_soap.py has the tests from the second one on"
MATRIX_BYTES = 4 * (64 * 64 + 32 * 32) / (64 * 32)

META = {"learning_rate": 0.01, "beta_2": 0.999, "epsilon": 1e-4, "weight_decay": 0.1}


def with_noise_of_the_reference(optimizer, t, run):
    """The random numbers of the official run, which are those of each update of the factors."""
    every = 1 if "V_each_step" in run["meta"] else 2
    each = run["meta"]["V_each_step" if every == 1 else "V_each_update"]
    stacks = {len(np.shape(each[0][name])): np.array([v[name] for v in each], "float32") for name in ("W", "b")}

    def noise(shape, ctx, dtype):
        place = ops.minimum(ctx.iterations // every, len(each) - 1)
        return ops.cast(ops.take(stacks[len(shape)], place, axis=0), dtype)

    optimizer.noise = noise


KRON = {"learning_rate": 0.01, "update_probability": 1.0, "noise_in_step": True}

CASES = [
    Case(
        SOAP,
        (
            Trajectory("soap_official", {**RATES, "precondition_frequency": 2}),
            Trajectory(
                "soap_official_nobc_norm",
                {**RATES, "beta_1": 0.9, "precondition_frequency": 1, "correct_bias": False, "normalize_grads": True},
            ),
            Trajectory("soap_official_onesided", {**RATES, "precondition_frequency": 1, "max_precond_dim": 3}),
            Trajectory("soap_nvidia_eps", NVIDIA, **KERNEL),
            Trajectory("kl_soap_nvidia_eps", {**NVIDIA, "correction": "kl", "initial_eigenvalue": 0}, **KERNEL),
            Trajectory(
                "rekls_nvidia_eps", {**NVIDIA, "correction": "kl", "initial_eigenvalue": 0, "basis": "eigh"}, **KERNEL
            ),
        ),
        options={"learning_rate": 0.01, "epsilon": 1e-3},  # in directions without a gradient, rounding decides below
        digits_rate=1e-2,
        state_bytes=8 + 2 * MATRIX_BYTES,
        bad=(
            {"beta_1": 1},
            {"beta_2": None},
            {"shampoo_beta": 1},
            {"epsilon": -1},
            {"precondition_frequency": 0},
            {"max_precond_dim": 0},
            {"form": "paper"},
            {"correction": "skl"},
            {"basis": "svd"},
            {"initial_eigenvalue": -1},
            {"exclude_from_preconditioning": "bias"},
            {"input_axes": ["kernel"]},
        ),
        differs={
            "test_variables_without_a_gradient_stay": STARTS,
            "test_nonfinite_gradients_propagate": STARTS,
        },
    ),
    Case(
        Shampoo,
        (
            Trajectory("shampoo_meta_nograft", META),
            Trajectory(
                "shampoo_meta_adam_graft",
                {
                    **META,
                    "epsilon": 1e-6,
                    "grafting": "adam",
                    "start_preconditioning_step": 3,
                    "precondition_frequency": 2,
                },
                rtol=2e-5,
            ),
            Trajectory(
                "shampoo_meta_adagrad_sum",
                {
                    **META,
                    "beta_1": 0.0,
                    "beta_2": 1.0,
                    "grafting": "adagrad",
                    "decoupled_weight_decay": False,
                },
                rtol=2e-5,  # a vector in float32 whose small eigenvalues are near epsilon; test_shampoo.py has it in float64
            ),
            Trajectory("shampoo_meta_half", {**META, "weight_decay": None, "exponent": 0.5, "grafting": "sgd"}, **KERNEL),
            Trajectory("kl_shampoo_meta", {**META, "weight_decay": None, "correction": "kl"}, **KERNEL),
        ),
        options={"learning_rate": 0.01, "grafting": "adam", "epsilon": 1e-8, "beta_2": 0.999, "precondition_frequency": 3},
        digits_rate=1e-2,
        state_bytes=8 + 2 * MATRIX_BYTES,
        bad=(
            {"beta_1": 1},
            {"beta_2": 1.1},
            {"epsilon": 0},
            {"grafting": "lion"},
            {"grafting_beta_2": 1},
            {"grafting_epsilon": -1},
            {"precondition_frequency": 0},
            {"start_preconditioning_step": 0},
            {"max_preconditioner_dim": 0},
            {"exponent": 0},
            {"beta_3": 2},
            {"correction": "skl"},
            {"exclude_from_preconditioning": "bias"},
            {"input_axes": ["kernel"]},
        ),
    ),
    Case(
        PSGDKron,
        (
            Trajectory(
                "kron_official",
                {**KRON, "weight_decay": 0.1, "exclude_from_weight_decay": ["bias"]},
                before_update=with_noise_of_the_reference,
            ),
            Trajectory(
                "kron_official_onediag",
                {**KRON, "update_probability": 0.5, "momentum_into_preconditioner": False, "diagonal": "one"},
                before_update=with_noise_of_the_reference,
            ),
        ),
        options={"learning_rate": 0.01},
        digits_rate=1e-2,
        state_bytes=4 + MATRIX_BYTES,
        bad=(
            {"beta_1": 1},
            {"preconditioner_learning_rate": 0},
            {"initial_scale": 0},
            {"update_probability": 0},
            {"max_size_triangular": 0},
            {"diagonal": "two"},
            {"seed": -1},
            {"exclude_from_preconditioning": "bias"},
            {"input_axes": ["kernel"]},
        ),
    ),
]

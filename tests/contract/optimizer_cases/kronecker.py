"""SOAP."""

from keras_lrsched.optimizers import SOAP

from . import Case, Trajectory

RATES = {"learning_rate": 0.01, "weight_decay": 0.01}
NVIDIA = {**RATES, "form": "nvidia", "beta_1": 0.9, "precondition_frequency": 1, "epsilon": 1e-2}
KERNEL = {"variables": ("kernel",)}
STARTS = "the first update only sets the bases: test_soap.py has the tests from the second one on"
MATRIX_BYTES = 4 * (64 * 64 + 32 * 32) / (64 * 32)

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
        options={"learning_rate": 0.01},
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
]

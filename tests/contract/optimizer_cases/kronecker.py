"""SOAP, Shampoo."""

from keras_lrsched.optimizers import SOAP, Shampoo

from . import Case, Trajectory

RATES = {"learning_rate": 0.01, "weight_decay": 0.01}
NVIDIA = {**RATES, "form": "nvidia", "beta_1": 0.9, "precondition_frequency": 1, "epsilon": 1e-2}
KERNEL = {"variables": ("kernel",)}
STARTS = "the first update only sets the bases: test_soap.py has the tests from the second one on"
MATRIX_BYTES = 4 * (64 * 64 + 32 * 32) / (64 * 32)

META = {"learning_rate": 0.01, "beta_2": 0.999, "epsilon": 1e-4, "weight_decay": 0.1}

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
]

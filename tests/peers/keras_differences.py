"""Keras' own tests that fail when the classes here have the names of Keras' classes, and the reasons."""

PRIVATE = "calls methods that Keras' class has for itself; the classes here implement `step`, not `update_step`"
MESSAGES = "expects the wording of Keras' message; the value is refused here, too"
DENSE = "expects scattered updates for sparse gradients, which are dense here unless `lazy_embeddings=True`"
KERNEL = "expects `optimizer.assign`; the compiled update assigns to variables by itself"
NOT_INSTALLED = "needs a package or a file that is not installed with Keras; it fails with Keras' classes, too"

DIFFERENCES = {
    "optimizers/adafactor_test.py::AdafactorTest": {
        "test_correctness_with_golden": "Keras limits the learning rate to 1 / sqrt(t) without `relative_step`, too",
        "test_weight_decay": "the decay is multiplied by the whole step size; in Keras by the learning rate alone",
    },
    "optimizers/adamw_test.py::AdamWTest": {
        "test_correctness_with_golden": "epsilon is 2, and is added after the correction of the bias, as in the paper",
        "test_weight_decay_is_none": "None is taken, for no decay",
    },
    "optimizers/lamb_test.py::LambTest": {
        "test_weight_decay": "the decay lies inside the trust ratio, as in the paper",
    },
    "optimizers/lion_test.py::LionTest": {"test_invalid_beta_1": MESSAGES},
    "optimizers/loss_scale_optimizer_test.py::LossScaleOptimizerTest": {
        "test_serialization": "counts the entries of the configuration; there are two more arguments",
    },
    "optimizers/muon_test.py::MuonTest": {
        "test_Newton_Schulz": PRIVATE,
        "test_adamw_single_step": PRIVATE,
        "test_adamw_weight_decay": PRIVATE,
        "test_lr_adjust_2d": PRIVATE,
        "test_lr_adjust_none": PRIVATE,
        "test_muon_single_step": PRIVATE,
        "test_muon_weight_decay": PRIVATE,
        "test_should_use_adamw": PRIVATE,
    },
    "optimizers/optimizer_sparse_test.py::OptimizerSparseTest": {
        "test_sparse_gradients_adafactor": DENSE,
        "test_sparse_gradients_loss_scale_optimizer_sgd": DENSE,
        "test_sparse_gradients_sgd": DENSE,
    },
    "optimizers/sgd_test.py::SGDTest": {
        "test_invalid_momentum": MESSAGES,
    },
    "saving/saving_lib_test.py::SavingBattleTest": {
        "test_legacy_load_skips_missing_nested_containers": NOT_INSTALLED,
    },
    "trainers/trainer_test.py::TestTrainer": {
        "test_fit_with_data_adapter_grain_dataloader": NOT_INSTALLED,
        "test_fit_with_data_adapter_grain_dataset": NOT_INSTALLED,
        "test_fit_with_data_adapter_grain_dataset_with_len": NOT_INSTALLED,
    },
}
"""File and class -> test -> reason, on all backends."""

ON_ONE_BACKEND: dict[str, dict] = {
    "tensorflow": {},
    "jax": {
        "optimizers/optimizer_sparse_test.py::OptimizerSparseTest": {
            "test_sparse_gradients_adamw": KERNEL,
            "test_sparse_gradients_lion": KERNEL,
            "test_sparse_gradients_sgd_momentum": KERNEL,
            "test_sparse_gradients_sgd_momentum_nesterov": KERNEL,
        },
    },
    "torch": {},
}
"""Backend -> the same, for what fails there only."""


def differences(backend):
    """Test, such as `optimizers/sgd_test.py::SGDTest::test_config`, -> reason."""
    return {
        f"{place}::{test}": reason
        for table in (DIFFERENCES, ON_ONE_BACKEND[backend])
        for place, tests in table.items()
        for test, reason in tests.items()
    }

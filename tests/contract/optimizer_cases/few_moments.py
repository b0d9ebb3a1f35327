"""Adafactor, AdaLomo, Adam-mini, SGD-SaI, CAME, SM3, MADGRAD."""

from keras_lrsched.optimizers import CAME, MADGRAD, SM3, Adafactor, AdaLomo, AdamMini, SGDSaI

from . import Case, Trajectory

MINI = {"learning_rate": 1e-3, "beta_2": 0.95, "weight_decay": 0.1, "exclude_from_weight_decay": ["bias"]}
PAPER = {"learning_rate": 1e-2}
BETAS = tuple({name: bad} for name in ("beta_1", "beta_2") for bad in (-0.1, 1, "0.9", None, True))
FACTORED = (
    {"beta_2_decay": 0},
    {"beta_2_decay": None},
    {"epsilon_1": 0},
    {"epsilon_2": -1e-3},
    {"clip_threshold": 0},
)

CASES = [
    Case(
        Adafactor,
        (
            Trajectory("adafactor_hf_relstep", PAPER),
            Trajectory("adafactor_hf_lr", {**PAPER, "relative_step": False, "scale_parameter": False}),
            Trajectory("adafactor_hf_beta1_wd", {**PAPER, "relative_step": False, "beta_1": 0.9, "weight_decay": 0.1}),
            Trajectory("adafactor_hf_warmup", {**PAPER, "warmup_init": True}),
            Trajectory("adafactor_torch", PAPER),
            Trajectory("adafactor_keras", PAPER),
            Trajectory("adafactor_keras_norel_lr.5", {"learning_rate": 0.6}),
            Trajectory("adafactor_optax", PAPER),
        ),
        options=PAPER,
        digits_rate=3e-2,
        state_bytes=(64 + 32) * 4 / (64 * 32),
        bad=(*FACTORED, {"warmup_init": True, "relative_step": False}, {"beta_1": 1.0}),
    ),
    Case(
        AdaLomo,
        (
            Trajectory("adalomo_official", {"learning_rate": 1e-2}),
            Trajectory("adalomo_official_wd", {"learning_rate": 1e-2, "weight_decay": 0.1}),
        ),
        options={"learning_rate": 0.01},
        digits_rate=3e-2,
        state_bytes=(64 + 32) * 4 / (64 * 32),
        bad=FACTORED,
    ),
    Case(
        AdamMini,
        (
            Trajectory("adam_mini_mlp_row", MINI, transposed=True),
            Trajectory("adam_mini_mlp_row", {**MINI, "blocks": {"kernel": [1]}}, transposed=True),
            Trajectory("adam_mini_other_block", {**MINI, "blocks": {"^kernel$": []}}, transposed=True),
            Trajectory("adam_mini_wq_head", {**MINI, "blocks": {"kernel": 2}}, transposed=True),
        ),
        options={"learning_rate": 0.01},
        state_bytes=4 + 32 * 4 / (64 * 32),
        bad=(
            *BETAS,
            {"epsilon": -1e-8},
            {"blocks": ["kernel"]},
            {"blocks": "kernel"},
        ),
    ),
    Case(
        SGDSaI,
        (Trajectory("sgd_sai_official", {}),),
        options={"learning_rate": 0.01},
        state_bytes=4 + 4 / (64 * 32),
        bad=({"momentum": 1}, {"momentum": -0.1}, {"momentum": None}, {"epsilon": -1e-8}, {"epsilon": None}),
    ),
    Case(
        CAME,
        (Trajectory("came_official", {**PAPER, "weight_decay": 0.1}),),
        options={"learning_rate": 1e-3},
        digits_rate=3e-3,
        quadratic_rate=0.1,
        state_bytes=4 + 2 * (64 + 32) * 4 / (64 * 32),
        bad=(
            *BETAS,
            {"beta_3": 1},
            {"epsilon_1": 0},
            {"epsilon_2": None},
            {"clip_threshold": 0},
        ),
    ),
    Case(
        SM3,
        (
            Trajectory("sm3_po_momentum", {}),
            Trajectory("sm3_po", {"momentum": 0.0}),
        ),
        options={"learning_rate": 0.1},
        quadratic_rate=1.0,
        digits_rate=0.1,
        state_bytes=4 + (64 + 32) * 4 / (64 * 32),
        bad=({"momentum": 1}, {"momentum": None}, {"epsilon": 0}),
    ),
    Case(
        MADGRAD,
        (
            Trajectory("madgrad_official", {"weight_decay": 0.1}),
            Trajectory("madgrad_official_decoupled", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
            Trajectory("madgrad_official_nomomentum", {"weight_decay": 0.1, "momentum": 0.0}),
        ),
        options={"learning_rate": 0.01},
        digits_rate=1e-2,
        state_bytes=12,
        bad=({"momentum": 1}, {"momentum": None}, {"epsilon": 0}, {"epsilon": "small"}),
    ),
]

"""Lion, LAMB, LARS, AdamW, Adam-atan2, SGD."""

from keras_lrsched.optimizers import SGD, AdamAtan2, AdamW, Lamb, Lars, Lion

from . import Case, Trajectory

LAMB = {"learning_rate": 1e-2, "weight_decay": 0.1, "epsilon": 1e-6}
LARS = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-2, "always_adapt": False}
BETAS = tuple({name: bad} for name in ("beta_1", "beta_2") for bad in (-0.1, 1, 1.5, float("nan"), "0.9", None, True))
EPSILON = ({"epsilon": -1e-8}, {"epsilon": "small"}, {"epsilon": None})

CASES = [
    Case(
        Lion,
        (
            Trajectory("lion_official", {"learning_rate": 1e-3, "weight_decay": 0.1}),
            Trajectory("lion_keras", {"learning_rate": 1e-3, "weight_decay": 0.1}),
            Trajectory("lion_optax", {"learning_rate": 1e-3, "weight_decay": 0.1}),
        ),
        options={"learning_rate": 0.01},
        quadratic_rate=0.05,
        digits_rate=3e-3,
        state_bytes=4,
        bad=BETAS,
    ),
    Case(
        AdamW,
        (
            Trajectory("adamw_torch", {"learning_rate": 1e-3, "weight_decay": 0.1, "epsilon": 1e-8}),
            Trajectory("nadamw_algoperf", {"learning_rate": 1e-2, "weight_decay": 0.1, "epsilon": 1e-8, "nesterov": True}),
        ),
        options={"learning_rate": 0.01},
        state_bytes=8,
        bad=(*BETAS, *EPSILON),
    ),
    Case(
        AdamAtan2,
        (Trajectory("adam_atan2_lucidrains", {"learning_rate": 1e-3, "weight_decay": 0.1}),),
        options={"learning_rate": 0.01},
        state_bytes=8,
        bad=(*BETAS, {"a": 0}, {"b": -1}),
    ),
    Case(
        Lamb,
        (
            Trajectory("lamb_tfa", LAMB),
            Trajectory("lamb_optax", LAMB),
            Trajectory(
                "lamb_tfa_excl",
                {**LAMB, "exclude_from_weight_decay": ["bias"], "exclude_from_layer_adaptation": ["bias"]},
            ),
            Trajectory("lamb_tfa_excl_wdonly", {**LAMB, "exclude_from_weight_decay": ["bias"]}),
            Trajectory("lamb_timm_wd", {**LAMB, "max_grad_norm": 1.0, "always_adapt": False}),
            Trajectory("lamb_timm_noclip", {**LAMB, "always_adapt": False}),
            Trajectory("lamb_timm_nobc", {**LAMB, "bias_correction": False}),
            Trajectory("lamb_timm_trustclip", {**LAMB, "trust_clip": True}),
            Trajectory("lamb_timm_wd0", {"learning_rate": 1e-2, "epsilon": 1e-6, "always_adapt": False}),
            Trajectory("lamb_timm_wd0_always", {"learning_rate": 1e-2, "epsilon": 1e-6}),
            Trajectory("lamb_keras", {**LAMB, "epsilon": 1e-7, "decay_placement": "outside"}),
            Trajectory("lamb_keras_wd0", {"learning_rate": 1e-2, "epsilon": 1e-6}),
        ),
        options={"learning_rate": 0.01},
        state_bytes=8,
        bad=(
            *BETAS,
            *EPSILON,
            {"decay_placement": "around"},
            {"max_grad_norm": 0},
            {"exclude_from_layer_adaptation": "bias"},
            {"exclude_from_layer_adaptation": ["("]},
        ),
    ),
    Case(
        Lars,
        (
            Trajectory("lars_timm", LARS),
            Trajectory("lars_timm", {**LARS, "learning_rate_in_momentum": True}),  # as long as the rate is constant
            Trajectory("lars_timm_nesterov", {**LARS, "nesterov": True}),
            Trajectory("lars_timm_nesterov", {**LARS, "nesterov": True, "learning_rate_in_momentum": True}),
            Trajectory("larc_timm_clip", {**LARS, "trust_clip": True}),
        ),
        options={"learning_rate": 1.0, "trust_coefficient": 0.02},
        digits_rate=0.5,
        state_bytes=4,
        bad=(*EPSILON, {"momentum": 1.0}, {"trust_coefficient": 0}, {"exclude_from_layer_adaptation": [3]}),
    ),
    Case(
        SGD,
        # there the decay is not multiplied by the learning rate
        (
            Trajectory("sgdw_tfa", {"learning_rate": 0.1, "weight_decay": 0.1, "momentum": 0.9}),
            Trajectory(
                "sgdw_tfa",
                {"learning_rate": 0.1, "weight_decay": 0.01, "momentum": 0.9, "independent_weight_decay": True},
            ),
        ),
        options={"learning_rate": 0.01, "momentum": 0.9},
        quadratic_rate=0.05,
        digits_rate=0.05,
        state_bytes=4,
        bad=({"momentum": 1}, {"momentum": -0.1}),
    ),
]

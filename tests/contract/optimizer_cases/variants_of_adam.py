"""AdEMAMix, its simplified form, ADOPT, MARS, Adan, AdaBelief, NovoGrad, Yogi, NAdamW, LaProp, StableSPAM."""

from keras_lrsched.optimizers import (
    ADOPT,
    MARS,
    AdaBelief,
    Adan,
    AdEMAMix,
    LaProp,
    NAdamW,
    NovoGrad,
    SimplifiedAdEMAMix,
    StableSPAM,
    Yogi,
)

from . import Case, Trajectory

RATE = {"learning_rate": 0.01}
DECAY = {**RATE, "weight_decay": 0.1}
BETAS = tuple({name: bad} for name in ("beta_1", "beta_2") for bad in (1, "0.9"))
EPSILON = ({"epsilon": -1e-8}, {"epsilon": None})
MARS_RUN = {**DECAY, "adam_lr_ratio": 0.3}

CASES = [
    Case(
        AdEMAMix,
        (
            Trajectory("ademamix_official", DECAY),
            Trajectory(
                "ademamix_official_warmup",
                {**DECAY, "beta_3": 0.999, "alpha": 5.0, "beta_3_warmup": 4, "alpha_warmup": 4},
            ),
            Trajectory("ademamix_official_b1zero", {**RATE, "beta_1": 0.0, "beta_3": 0.99, "alpha": 3.0}),
            Trajectory("ademamix_optax", DECAY),
        ),
        options=RATE,
        state_bytes=12,
        bad=(*BETAS, *EPSILON, {"beta_3": 0.0}, {"beta_3": 1.0}, {"alpha": -1}, {"alpha_warmup": 0}, {"beta_3_warmup": 2.5}),
    ),
    Case(
        SimplifiedAdEMAMix,
        (Trajectory("simplified_ademamix_optax", {"weight_decay": 0.1, "alpha": 2.0}),),
        options={"learning_rate": 1e-3, "beta_1": 0.9},
        quadratic_rate=0.01,
        digits_rate=1e-3,
        state_bytes=8,
        bad=(*BETAS, *EPSILON, {"alpha": None}, {"beta_1_warmup": 0}, {"min_beta_1": 1}),
    ),
    Case(
        ADOPT,
        (
            Trajectory("adopt_official", DECAY),
            Trajectory("adopt_official_l2", {**DECAY, "decoupled_weight_decay": False}),
            Trajectory("adopt_official_noclip", {**RATE, "clip_exponent": None}),  # steps of 100 lr
            Trajectory("adopt_optax", RATE),
        ),
        options=RATE,
        state_bytes=8,
        differs={"test_variables_without_a_gradient_stay": "the first update moves nothing"},
        bad=(*BETAS, {"epsilon": 0}, {"epsilon": None}, {"clip_exponent": 0}),
    ),
    Case(
        MARS,
        (
            Trajectory("mars_official_adamw", MARS_RUN),
            Trajectory("mars_official_lion", {**MARS_RUN, "mars_type": "lion"}),
            Trajectory("mars_official_shampoo_fp64NS", {**MARS_RUN, "mars_type": "shampoo"}, transposed=True),
        ),
        options={**RATE, "adam_weight_decay": None},
        state_bytes=12,
        differs={"test_weight_decay_and_its_exclusion": "AdamW has a weight decay of its own; test_mars.py has the test"},
        bad=(
            *BETAS,
            *EPSILON,
            {"gamma": -1},
            {"mars_type": "sgd"},
            {"adam_lr_ratio": 0},
            {"adam_beta_1": 1},
            {"adam_beta_2": None},
            {"adam_weight_decay": -0.1},
        ),
    ),
    Case(
        Adan,
        (
            Trajectory("adan_official", {**RATE, "weight_decay": 0.02}),
            Trajectory("adan_official_clip_noprox", {**RATE, "weight_decay": 0.02, "global_clipnorm": 0.5, "no_prox": True}),
        ),
        options=RATE,
        state_bytes=16,
        bad=(*BETAS, *EPSILON, {"beta_3": 1}),
    ),
    Case(
        AdaBelief,
        (
            Trajectory("adabelief_official", {**DECAY, "rectify": False}),
            Trajectory("adabelief_official_rectify", {**DECAY, "beta_2": 0.99}),
            Trajectory("adabelief_optax", {**RATE, "rectify": False}),
        ),
        options={"learning_rate": 0.02},
        digits_rate=5e-2,
        state_bytes=8,
        bad=(*BETAS, {"epsilon": 0}, {"epsilon": None}, {"beta_2": 0.6}, {"sma_threshold": 3.9}),
    ),
    Case(
        NovoGrad,
        (
            Trajectory("novograd_optax", {**RATE, "weight_decay": 0.01}),
            Trajectory("novograd_po", {**RATE, "weight_decay": 0.01, "beta_1": 0.95, "beta_2": 0.98, "epsilon": 1e-8}),
        ),
        options=RATE,
        digits_rate=3e-2,
        state_bytes=4 + 4 / (64 * 32),
        bad=(*BETAS, {"epsilon": 0}, {"epsilon": None}),
    ),
    Case(
        Yogi,
        (Trajectory("yogi_optax", {**RATE, "initial_momentum": 1e-6}),),
        options=RATE,
        state_bytes=8,
        bad=(*BETAS, *EPSILON, {"initial_accumulator_value": -1}, {"initial_momentum": None}),
    ),
    Case(
        NAdamW,
        (Trajectory("nadamw_algoperf", DECAY), Trajectory("nadamw_optax", {**DECAY, "correct_ahead": True})),
        options=RATE,
        state_bytes=8,
        bad=(*BETAS, *EPSILON),
    ),
    Case(
        LaProp,
        (
            Trajectory("laprop_official", DECAY),  # where the weight decay is not multiplied by the learning rate
            Trajectory("laprop_official_amsgrad", {**RATE, "beta_2": 0.9, "amsgrad": True}),
        ),
        options=RATE,
        state_bytes=8,
        bad=(*BETAS, {"epsilon": 0}, {"epsilon": None}),
    ),
    Case(
        StableSPAM,
        (
            Trajectory("stablespam_official", {**DECAY, "reset_interval": None}),
            Trajectory("stablespam_official_decay", {**RATE, "total_steps": 8, "reset_interval": None}),
            Trajectory("stablespam_official_reset", {**RATE, "reset_interval": 3, "official_reset": True}),
        ),
        options=RATE,
        digits_rate=3e-2,
        state_bytes=8 + 3 * 4 / (64 * 32),
        bad=(
            *BETAS,
            *EPSILON,
            {"gamma_1": 1},
            {"gamma_2": None},
            {"theta": -1},
            {"total_steps": 0},
            {"eta_min": 1.5},
            {"reset_interval": 0},
        ),
    ),
]

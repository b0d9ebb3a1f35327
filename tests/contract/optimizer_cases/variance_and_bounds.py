"""RAdam, AdaBound, AdaMod, AdaMomentum."""

from keras_lrsched.optimizers import AdaBound, AdaMod, AdaMomentum, RectifiedAdam

from . import Case, Trajectory

RADAM = {"learning_rate": 1e-3, "weight_decay": 0.1}
BETAS = tuple({name: bad} for name in ("beta_1", "beta_2") for bad in (-0.1, 1, "0.9", None, True))
EPSILON = ({"epsilon": -1e-8}, {"epsilon": "small"}, {"epsilon": None})

CASES = [
    Case(
        RectifiedAdam,
        (
            Trajectory("radam_official", {**RADAM, "below_threshold": "nothing"}),
            Trajectory("radam_official_sgdfallback", RADAM),
            Trajectory("radam_torch", RADAM),
            Trajectory("radam_torch_l2", {**RADAM, "decay_placement": "gradient"}),
            Trajectory("radam_tfa", {**RADAM, "epsilon": 1e-7}),
            Trajectory("radam_optax", {"learning_rate": 1e-3}),
        ),
        options={"learning_rate": 0.01},
        digits_rate=5e-2,
        state_bytes=8,
        bad=(
            *BETAS,
            *EPSILON,
            {"beta_2": 0.6},  # the average is never longer than 4 gradients
            {"beta_2": 0.66, "sma_threshold": 5.0},
            {"sma_threshold": 3.9},
            {"sma_threshold": float("nan")},
            {"below_threshold": "sgd"},
            {"decay_placement": "inside"},
        ),
    ),
    Case(
        AdaBound,
        (
            Trajectory("adabound_official", {}),
            Trajectory("adabound_g1", {"final_learning_rate": 0.01, "gamma": 0.5}),
            Trajectory("amsbound_official_b2_0.9", {"amsbound": True, "beta_2": 0.9}),
        ),
        options={"learning_rate": 0.01, "base_learning_rate": 0.01},
        state_bytes=8,
        bad=(
            *BETAS,
            *EPSILON,
            {"final_learning_rate": 0},
            {"base_learning_rate": -1.0},
            {"gamma": 0},
        ),
    ),
    Case(
        AdaMod,
        (Trajectory("adamod_official", {"learning_rate": 1e-3, "weight_decay": 0.1}),),
        options={"learning_rate": 0.01, "beta_3": 0.9},
        state_bytes=12,
        bad=(*BETAS, *EPSILON, {"beta_3": 1.0}),
    ),
    Case(
        AdaMomentum,
        (Trajectory("adamomentum_official", {"learning_rate": 1e-3, "weight_decay": 0.1}),),
        options={"learning_rate": 0.01},
        digits_rate=3e-3,
        state_bytes=8,
        bad=(*BETAS, {"epsilon": 0}, {"epsilon": "small"}),
    ),
]

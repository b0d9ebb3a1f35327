"""Prodigy, D-Adaptation, COCOB, MoMo, DoG, DoWG, Polyak steps."""

from keras_lrsched.optimizers import (
    COCOB,
    DAdaptAdam,
    DAdaptLion,
    DAdaptSGD,
    DoG,
    DoWG,
    MoMo,
    MoMoAdam,
    PolyakMomentum,
    Prodigy,
)

from . import Case, Trajectory

BAD_BETAS = (-0.1, 1, 1.5, float("nan"), "0.9", True)
BETA_1 = tuple({"beta_1": bad} for bad in (*BAD_BETAS, None))
BETA_2 = tuple({"beta_2": bad} for bad in (*BAD_BETAS, None))
EPSILON = ({"epsilon": -1e-8}, {"epsilon": "small"}, {"epsilon": None})
DISTANCE = ({"d0": 0}, {"d0": -1e-6}, {"d0": None}, {"growth_rate": 0.9}, {"growth_rate": float("nan")})
GROWTH = 1e-5  # relative, where d grows and rounding with it
SHARED = {"test_weight_decay_and_its_exclusion": "the decay of one variable changes d, which all share"}
DISTANCE_OF_ALL = {
    **SHARED,
    "test_learning_rate_multipliers": "the way of one variable changes the step size, which all share",
}


def tell_loss(optimizer, t, run):
    """The reference runs with a fixed list of gradients have a fixed loss."""
    optimizer.set_loss(0.5)


def tell_losses(optimizer, t, run):
    optimizer.set_loss(run["meta"]["losses"][t - 1])


CASES = [
    Case(
        Prodigy,
        (
            Trajectory("prodigy_official", {}),
            Trajectory(
                "prodigy_official_options",
                {
                    "learning_rate": 0.5,
                    "d0": 1e-2,
                    "d_coef": 20,
                    "growth_rate": 1.5,
                    "bias_correction": True,
                    "safeguard_warmup": True,
                    "weight_decay": 0.1,
                    "beta_1": 0.8,
                    "beta_2": 0.99,
                    "beta_3": 0.9,
                },
                rtol=GROWTH,
            ),
            Trajectory(
                "prodigy_official_coupled_slices",
                {"d0": 1e-2, "weight_decay": 0.1, "decoupled_weight_decay": False, "slice_p": 3, "d_coef": 10},
                rtol=GROWTH,
            ),
        ),
        options={"d0": 1e-2, "growth_rate": 1.02},
        quadratic_rate=1.0,
        digits_rate=1.0,
        state_bytes=16,
        bad=(*BETA_1, *BETA_2, *({"beta_3": bad} for bad in BAD_BETAS), *EPSILON, *DISTANCE, {"d_coef": 0}, {"slice_p": 0}),
    ),
    Case(
        DAdaptSGD,
        (
            Trajectory("dadapt_sgd_official", {"d0": 1e-2, "weight_decay": 0.1}, rtol=GROWTH),
            Trajectory("dadapt_sgd_official_momentum", {"d0": 1e-2, "momentum": 0.9, "growth_rate": 1.5}, rtol=GROWTH),
        ),
        options={"d0": 1e-2, "growth_rate": 1.1},
        quadratic_rate=1.0,
        digits_rate=1.0,
        state_bytes=4,
        differs=SHARED,
        bad=(*({"momentum": bad} for bad in BAD_BETAS), *DISTANCE),
    ),
    Case(
        DAdaptAdam,
        (
            Trajectory("dadapt_adam_official", {"d0": 1e-3, "weight_decay": 0.1}, rtol=GROWTH),
            Trajectory(
                "dadapt_adam_official_decoupled",
                {
                    "d0": 1e-2,
                    "weight_decay": 0.1,
                    "decoupled_weight_decay": True,
                    "bias_correction": True,
                    "beta_1": 0.8,
                    "beta_2": 0.9,
                },
                rtol=GROWTH,
            ),
        ),
        options={"d0": 1e-2, "growth_rate": 1.02},
        quadratic_rate=1.0,
        digits_rate=1.0,
        state_bytes=12,
        differs=SHARED,
        bad=(*BETA_1, *BETA_2, {"beta_2": 0.0}, *EPSILON, {"epsilon": 0.0}, *DISTANCE),
    ),
    Case(
        DAdaptLion,
        (Trajectory("dadapt_lion_official", {"d0": 1e-2, "weight_decay": 0.1}),),
        options={"d0": 1e-2, "growth_rate": 1.02},
        quadratic_rate=1.0,
        digits_rate=0.03,
        state_bytes=8,
        bad=(*BETA_1, *BETA_2, {"beta_2": 0.0}, *DISTANCE),
        differs={"test_fit": "its d grows beyond all bounds on the digits, as in the official code"},
    ),
    Case(
        COCOB,
        (
            Trajectory("cocob_official", {}),
            Trajectory("cocob_official_decay", {"alpha": 10, "weight_decay": 0.1}),
        ),
        quadratic_rate=1.0,
        digits_rate=1.0,
        state_bytes=16,
        bad=({"alpha": 0}, {"alpha": -1}, {"epsilon": 0.0}, *EPSILON),
    ),
    Case(
        MoMo,
        (
            Trajectory("momo_official", {"weight_decay": 0.1}, before_update=tell_loss),
            Trajectory(
                "momo_official_fstar",
                {"weight_decay": 0.1, "use_fstar": True, "lb": -1, "bias_correction": True},
                before_update=tell_loss,
            ),
        ),
        options={"learning_rate": 1e-3},
        digits_rate=1.0,
        state_bytes=4,
        loss=50.0,
        bad=(*({"beta": bad} for bad in BAD_BETAS), {"lb": None}, {"lb": float("nan")}),
    ),
    Case(
        MoMoAdam,
        (
            Trajectory("momo_adam_official", {"learning_rate": 1.0, "weight_decay": 0.1}, before_update=tell_loss),
            Trajectory(
                "momo_adam_official_fstar",
                {"learning_rate": 0.1, "weight_decay": 0.1, "divide": False, "use_fstar": True, "lb": -1},
                before_update=tell_loss,
            ),
        ),
        options={"learning_rate": 1e-3},
        state_bytes=8,
        loss=50.0,
        bad=(*BETA_1, *BETA_2, *EPSILON, {"epsilon": 0.0}, {"lb": "low"}),
    ),
    Case(
        DoG,
        (
            Trajectory("dog_official", {"reps_rel": 1e-3}),
            Trajectory("ldog_official", {"reps_rel": 1e-3, "weight_decay": 0.1, "layerwise": True}),
            Trajectory("dog_optax", {"reps_rel": 1e-3}),
        ),
        options={"reps_rel": 1e-2},
        quadratic_rate=1.0,
        digits_rate=1.0,
        state_bytes=4,
        differs=DISTANCE_OF_ALL,
        bad=({"reps_rel": 0}, {"epsilon": 0}, {"epsilon": None}),
    ),
    Case(
        DoWG,
        (Trajectory("dowg_optax", {"init_estim_sq_dist": 0.01}),),
        options={"init_estim_sq_dist": 1e-3},
        quadratic_rate=1.0,
        digits_rate=1.0,
        state_bytes=4,
        differs=DISTANCE_OF_ALL,
        bad=({"init_estim_sq_dist": 0}, {"epsilon": 0}, {"epsilon": None}),
    ),
    Case(
        PolyakMomentum,
        (
            Trajectory("alr_smag", {"weight_decay": 0.1}, before_update=tell_losses),
            Trajectory(
                "alr_mag_nomomentum",
                {"learning_rate": 0.5, "momentum": 0.0, "lb": 0.2, "c": 0.5},
                before_update=tell_losses,
            ),
            Trajectory("alr_shb_own", {"method": "shb"}, before_update=tell_losses),
        ),
        options={"learning_rate": 1e-3},
        digits_rate=0.1,
        state_bytes=4,
        differs={
            "test_reference_trajectory_compiled": "the loss changes, which is given outside; test_step_sizes.py has a fit"
        },
        loss=50.0,
        bad=(*({"momentum": bad} for bad in BAD_BETAS), {"lb": None}, {"c": 0}, {"method": "mag"}),
    ),
]

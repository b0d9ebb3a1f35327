"""Schedule-Free SGD, AdamW, RAdam."""

from keras_lrsched.optimizers import ScheduleFreeAdamW, ScheduleFreeRAdam, ScheduleFreeSGD

from . import Case, Trajectory

BAD_BETAS = (-0.1, 1, 1.5, float("nan"), "0.9", True, None)
BETAS = (*({"beta_1": bad} for bad in (*BAD_BETAS, 0.0)), *({"beta_2": bad} for bad in BAD_BETAS))
EPSILON = ({"epsilon": -1e-8}, {"epsilon": "small"}, {"epsilon": None})
AVERAGE = ({"r": -1}, {"weight_lr_power": -2}, {"weight_lr_power": None})
WARMUP = ({"warmup_steps": -1}, {"warmup_steps": 0.5}, {"warmup_steps": None})
PLUS = {"plus": True, "beta_2": 0.95, "inner_momentum": 0.9}


def tell_loss(optimizer, t, run):
    optimizer.set_loss(run["meta"]["losses"][t - 1])


def tell_loss_and_correct_twice(optimizer, t, run):
    """The authors' code stores the corrected norm, and corrects it again."""
    optimizer._stores_corrected_norm = True
    tell_loss(optimizer, t, run)


CASES = [
    Case(
        ScheduleFreeSGD,
        (Trajectory("schedule_free_sgd_official", {"learning_rate": 0.1, "weight_decay": 0.1, "warmup_steps": 3, "r": 1}),),
        options={"learning_rate": 0.01},
        digits_rate=1.0,
        state_bytes=4,
        bad=(*({"momentum": bad} for bad in (*BAD_BETAS, 0.0)), *AVERAGE, *WARMUP),
    ),
    Case(
        ScheduleFreeAdamW,
        (
            Trajectory(
                "schedule_free_adamw_official",
                {"learning_rate": 0.1, "weight_decay": 0.1, "warmup_steps": 3, "beta_1": 0.8, "beta_2": 0.99},
            ),
            Trajectory(
                "adamc_schedulefree_plus",
                {**PLUS, "learning_rate": 1.0, "weight_decay": 20, "average_warmup": 2},
                before_update=tell_loss,
            ),
            Trajectory(
                "adamc_schedulefree_plus_anneal",
                {**PLUS, "learning_rate": 0.5, "polyak_beta": 0.9, "beta_1_anneal_steps": 4, "r": 2},
                before_update=tell_loss_and_correct_twice,
            ),
        ),
        options={"learning_rate": 0.01},
        state_bytes=8,
        bad=(
            *BETAS,
            *EPSILON,
            *AVERAGE,
            *WARMUP,
            *({"inner_momentum": bad} for bad in BAD_BETAS),
            {"polyak_beta": 1},
            {"polyak_beta": 0.9},  # without `plus`
            {"average_warmup": -1},
            {"average_warmup": 2},
            {"beta_1_anneal_steps": 0},
            {"beta_1_anneal_steps": 4},
            {"beta_1_max": 1},
        ),
    ),
    Case(
        ScheduleFreeRAdam,
        (
            Trajectory("schedule_free_radam_official", {"learning_rate": 0.1, "weight_decay": 0.1}),
            Trajectory(
                "schedule_free_radam_official_loud",
                {"learning_rate": 0.1, "weight_decay": 0.1, "silent_sgd_phase": False},
            ),
        ),
        options={"learning_rate": 0.01, "silent_sgd_phase": False},
        digits_rate=0.1,
        state_bytes=8,
        bad=(*BETAS, {"beta_2": 0.6}, *EPSILON, *AVERAGE),
    ),
]

"""Schedule-Free SGD, AdamW, RAdam."""

from keras_lrsched.optimizers import ScheduleFreeAdamW, ScheduleFreeRAdam, ScheduleFreeSGD

from . import Case, Trajectory

BAD_BETAS = (-0.1, 1, 1.5, float("nan"), "0.9", True, None)
BETAS = (*({"beta_1": bad} for bad in (*BAD_BETAS, 0.0)), *({"beta_2": bad} for bad in BAD_BETAS))
EPSILON = ({"epsilon": -1e-8}, {"epsilon": "small"}, {"epsilon": None})
AVERAGE = ({"r": -1}, {"weight_lr_power": -2}, {"weight_lr_power": None})
WARMUP = ({"warmup_steps": -1}, {"warmup_steps": 0.5}, {"warmup_steps": None})

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
        ),
        options={"learning_rate": 0.01},
        state_bytes=8,
        bad=(*BETAS, *EPSILON, *AVERAGE, *WARMUP, *({"inner_momentum": bad} for bad in BAD_BETAS)),
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

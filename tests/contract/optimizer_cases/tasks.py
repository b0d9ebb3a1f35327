"""Continual learning: CLASSP, TAG, elastic weight consolidation."""

from keras_lrsched.optimizers import CLASSP, TAG, ElasticWeightConsolidation

from . import Case, Trajectory
from .wrappers import NESTED, Wrapped, adamw


def start_task(optimizer, t, run):
    if t in (3, 5):
        optimizer.start_task()


CASES = [
    Case(
        CLASSP,
        (Trajectory("classp_own", {"learning_rate": 0.02, "threshold": 0.02, "power": 2.0}),),
        options={"learning_rate": 0.05, "threshold": 0.0, "power": 2.0},
        quadratic_rate=1.0,
        digits_rate=0.05,
        state_bytes=4,
        bad=({"threshold": -0.1}, {"epsilon": 0}, {"power": 0}),
    ),
    Case(
        TAG,
        (
            Trajectory("tag_rms_own", {"learning_rate": 0.01, "tasks": 3}, rtol=1e-5, before_update=start_task),
            Trajectory(
                "tag_adam_own",
                {"learning_rate": 0.01, "tasks": 3, "b": 1.0, "beta_2": 0.999, "method": "adam"},
                before_update=start_task,
            ),
        ),
        options={"learning_rate": 0.01, "tasks": 2, "method": "adam"},
        state_bytes=16,
        bad=({"tasks": 1}, {"tasks": 0}, {"b": -1}, {"beta_1": 1}, {"beta_2": None}, {"epsilon": -1}, {"method": "adagrad"}),
    ),
    Wrapped(
        ElasticWeightConsolidation,
        (Trajectory("adamw_torch", {"optimizer": adamw(1e-3)}),),  # before the first task ends
        options={"learning_rate": 0.01},
        state_bytes=16,
        differs=NESTED,
        bad=({"strength": -1}, {"fisher": "full"}),
    ),
]

"""Lookahead, learning rates by layer, local updates, Grokfast."""

from keras_lrsched._core import registry
from keras_lrsched.optimizers import (
    GradientGrouping,
    Grokfast,
    LayerwiseLearningRate,
    LocalUpdates,
    Lookahead,
    Mechanic,
    NoiseAdaptive,
    ScheduleFreeWrapper,
    get,
)

from . import Case, Trajectory


class Wrapped(Case):
    """A wrapper around AdamW, as its name makes it: options that it has no argument for are the inner optimizer's."""

    def build(self, **options):
        (name,) = (row.name for row in registry.entries("optimizers") if row.target is self.optimizer)
        return get(name, **{**self.options, **options})


NESTED = {
    "test_config": "the config of the inner optimizer lies in its own",
    "test_found_by_its_registered_name": "names of inner optimizers are counted on; test_wrapper.py has the test",
    "test_nonfinite_gradients_are_skipped": "the inner optimizer has the counter; test_wrapper.py has the test",
    "test_lazy_embeddings": "the inner optimizer has the argument; test_wrapper.py has the test",
}

ACCUMULATE = (
    "test_accumulated_gradients_count_as_one_update",
    "test_saved_model_goes_on_training",
    "test_sparse_gradients_are_like_dense_ones",
    "test_the_end_of_the_data_is_no_update",
)


def keras_own(name, **config):
    return {"class_name": name, "config": config}


def warm_up(optimizer, t, run):
    optimizer.learning_rate = 0.1 * min(t / 3, 1)


def adamw(learning_rate):
    config = {"learning_rate": learning_rate, "weight_decay": 0.1, "epsilon": 1e-8}
    return {"class_name": "keras_lrsched>AdamW", "config": config}


def adamw_without_decay(learning_rate):
    return {
        "class_name": "keras_lrsched>AdamW",
        "config": {"learning_rate": learning_rate, "weight_decay": None, "epsilon": 1e-8},
    }


def muon(learning_rate):
    config = {"learning_rate": learning_rate, "weight_decay": 0.01, "adjust_lr": "original"}
    return {"class_name": "keras_lrsched>Muon", "config": config}


CASES = [
    Wrapped(
        Lookahead,
        (Trajectory("lookahead_tfa_sgd", {"optimizer": keras_own("SGD", learning_rate=0.1), "sync_period": 2}),),
        options={"learning_rate": 0.01},
        state_bytes=12,
        differs={**NESTED, "test_fit": "refuses an average of weights; test_lookahead.py has a fit"}
        | {"test_moving_average_of_weights": "refuses an average of weights"},
        bad=(
            {"sync_period": 0},
            {"sync_period": 2.5},
            {"slow_step_size": 0},
            {"slow_step_size": 1.5},
            {"slow_step_size": None},
        ),
    ),
    Wrapped(
        LayerwiseLearningRate,
        (
            Trajectory("adamw_torch", {"optimizer": adamw(5e-4), "multipliers": {"": 2.0}}),
            Trajectory(
                "adamw_torch",
                {
                    "optimizer": keras_own("AdamW", learning_rate=5e-4, weight_decay=0.1, epsilon=1e-8),
                    "multipliers": {"": 2},
                },
            ),
            Trajectory(
                "lion_keras",
                {"optimizer": keras_own("Lion", learning_rate=2e-3, weight_decay=0.1), "multipliers": {"": 0.5}},
            ),
        ),
        options={"learning_rate": 0.01},
        state_bytes=8,
        differs=NESTED,
        bad=({"multipliers": ["bias"]}, {"weight_decay_multipliers": [0.5]}),
    ),
    Wrapped(
        LocalUpdates,
        (Trajectory("adamw_torch", {"optimizer": adamw(1e-3), "period": 2}),),  # one replica
        options={"learning_rate": 0.01},
        state_bytes=8,
        differs={**NESTED, "test_fit": "refuses an average of weights; tests/distributed has a fit"}
        | {"test_moving_average_of_weights": "refuses an average of weights"},
        bad=({"period": 0}, {"period": 2.5}, {"period": None}),
    ),
    Wrapped(
        Grokfast,
        (
            Trajectory("grokfast_ema_adam", {"optimizer": adamw_without_decay(0.01)}),
            Trajectory("grokfast_ma_sgd", {"optimizer": keras_own("SGD", learning_rate=0.01), "window": 3, "lamb": 5.0}),
        ),
        options={"learning_rate": 0.01},
        state_bytes=12,
        differs={**NESTED, **dict.fromkeys(ACCUMULATE, "refuses accumulation")}
        | {"test_clipping": "clips filtered gradients; test_grokfast.py has the test"},
        bad=(
            {"alpha": 1},
            {"alpha": None},
            {"lamb": -1},
            {"window": 0},
            {"window": 2.5},
            {"gradient_accumulation_steps": 2},
        ),
    ),
    Wrapped(
        ScheduleFreeWrapper,
        (
            Trajectory(
                "schedule_free_sgd_official",
                {"optimizer": keras_own("SGD", learning_rate=0.1), "weight_decay_at_y": 0.1, "r": 1},
                before_update=warm_up,
            ),
        ),
        options={"learning_rate": 0.01},
        state_bytes=12,
        differs={**NESTED, "test_fit": "refuses an average of weights; test_schedule_free.py has a fit"}
        | {"test_moving_average_of_weights": "refuses an average of weights"}
        | {"test_nonfinite_gradients_raise": "refuses it, since the model would be left with z"},
        bad=({"beta_1": 0.0}, {"beta_1": 1}, {"weight_decay_at_y": -0.1}, {"r": -1}, {"weight_lr_power": None}),
    ),
    Wrapped(
        Mechanic,
        (
            Trajectory("mechanic_optax_sgd", {"optimizer": keras_own("SGD", learning_rate=1.0), "s_init": 1e-3}),
            Trajectory("mechanic_optax_adam", {"optimizer": adamw_without_decay(1.0), "s_init": 1e-3}),
        ),
        options={"learning_rate": 1.0, "s_init": 0.03},
        quadratic_rate=1.0,
        digits_rate=1.0,
        state_bytes=12 + 4 * 6 * 4 / (64 * 32),
        differs={**NESTED, **dict.fromkeys(ACCUMULATE, "refuses accumulation; test_mechanic.py has the test")}
        | {
            "test_clipping": "takes gradients before they are clipped",
            "test_fit": "refuses an average of weights; test_mechanic.py has a fit",
            "test_moving_average_of_weights": "refuses an average of weights",
            "test_weight_decay_and_its_exclusion": "the decay of one variable changes the scale of all",
            "test_learning_rate_multipliers": "the steps of one variable change the scale of all",
        },
        bad=(
            {"s_decay": -1},
            {"s_init": 0},
            {"num_betas": 0},
            {"epsilon": 0},
            {"gradient_accumulation_steps": 2},
            {"use_ema": True},
        ),
    ),
    Wrapped(
        GradientGrouping,
        (Trajectory("adamw_torch", {"optimizer": adamw(1e-3)}),),  # before the first clustering
        options={"learning_rate": 0.01, "every": 3, "beta_3": 0.5, "exclude_from_grouping": []},
        state_bytes=16,
        differs={**NESTED, "test_weight_decay_and_its_exclusion": "the factors of all variables have one median"}
        | {"test_learning_rate_multipliers": "the factors of all variables have one median"}
        | {"test_fit": "refuses an average of weights", "test_moving_average_of_weights": "refuses an average of weights"},
        bad=({"clusters": 1}, {"every": 0}, {"beta": 1}, {"beta_3": None}, {"exclude_from_grouping": "bias"}),
    ),
    Wrapped(
        NoiseAdaptive,
        (Trajectory("muon_keras", {"optimizer": muon(0.02)}, variables=("kernel",), transposed=True),),  # one layer has lr
        options={"learning_rate": 0.01, "adam_lr_ratio": 1.0, "adam_weight_decay": None},
        digits_rate=3e-2,
        state_bytes=8 + 8 / (64 * 32),
        differs={**NESTED, "test_weight_decay_and_its_exclusion": "AdamW has a weight decay of its own, as in Muon"},
        bad=({"alpha": 0}, {"alpha": None}, {"beta_2": 1}, {"beta_2": -0.1}),
    ),
]

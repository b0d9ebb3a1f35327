"""ConditionalGradient and ProximalAdagrad of TensorFlow Addons."""

from keras_lrsched.optimizers import ConditionalGradient, ProximalAdagrad

from . import Case, Trajectory

BALL = "its learning rate is the share of w that remains, and w stays in a ball"

CASES = [
    Case(
        ConditionalGradient,
        (Trajectory("conditional_gradient_own", {"learning_rate": 0.9, "lambda_": 0.5}),),
        state_bytes=0,
        differs={
            "test_minimum_of_a_quadratic": BALL,
            "test_fit": BALL,
            "test_learning_rate_multipliers": BALL,
            "test_schedules_are_numbers_that_change": BALL,
        },
        bad=(
            {"learning_rate": 1.5},
            {"learning_rate_multipliers": {"bias": 0.5}},
            {"lambda_": 0},
            {"epsilon": 0},
            {"ord": "spectral"},
        ),
    ),
    Case(
        ProximalAdagrad,
        (
            Trajectory(
                "proximal_adagrad_tensorflow",
                {"learning_rate": 0.1, "l1_regularization_strength": 0.02, "l2_regularization_strength": 0.1},
            ),
            Trajectory(
                "proximal_adagrad_tensorflow_l2",
                {"learning_rate": 0.1, "l2_regularization_strength": 0.3, "initial_accumulator_value": 0.01},
            ),
        ),
        options={"learning_rate": 0.1},
        quadratic_rate=1.0,
        digits_rate=0.1,
        state_bytes=4,
        bad=({"initial_accumulator_value": 0}, {"l1_regularization_strength": -1}, {"l2_regularization_strength": None}),
    ),
]

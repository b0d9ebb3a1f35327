"""Transfer: hyperparameters that were found on a small model, used on one that is wider, deeper, or trained for longer.

    plan = transfer.apply(model, base_model, optimizer=AdamW(0.01), depth=(2, 8))
    model.compile(plan.optimizer, loss)

changes the initial values of `model` in place and returns the optimizer with a learning rate and weight decay for each
variable. `coordinate_check` measures whether a model changes equally fast at each width.
"""

from keras_lrsched.transfer._apply import apply, check
from keras_lrsched.transfer._plan import Plan, VariablePlan
from keras_lrsched.transfer.coordinates import CoordinateCheck, coordinate_check
from keras_lrsched.transfer.parameterizations import (
    Exponents,
    Residual,
    exponents,
    unit_scaled_residuals,
    width_multipliers,
)

__all__ = [
    "CoordinateCheck",
    "Exponents",
    "Plan",
    "Residual",
    "VariablePlan",
    "apply",
    "check",
    "coordinate_check",
    "exponents",
    "unit_scaled_residuals",
    "width_multipliers",
]

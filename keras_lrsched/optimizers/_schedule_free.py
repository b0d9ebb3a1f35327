"""Base of the Schedule-Free optimizers: three sequences of weights, of which the model has one."""

import warnings
from collections.abc import Sequence
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import keras_private, training_loop, validation
from keras_lrsched._core.types import LearningRate, Tensor, Variable, WeightDecay
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._options import Options
from keras_lrsched.optimizers._update_context import OptimizerState, UpdateContext, exact_value
from keras_lrsched.optimizers.optimizer import Optimizer


class AveragedWeights(keras.optimizers.Optimizer):
    """An optimizer whose model has y in training and the average x at other times: x = y + (1 - 1 / beta) (z - y).

    The state `gap` of each variable is z - y; `averaged`, a vector of flags, has 1 for those of which the model has x.
    """

    beta: float
    """The share of x in y; a subclass sets it."""

    _states: list[dict[str, Any]]
    _callbacks_checked = False  # in this `fit`

    def beta_of(self, index: int) -> Any:
        """Return the share of x in the y of a variable, by its place."""
        return self.beta

    def averaged_flags(self) -> Variable:
        """Return the variable with the flags."""
        raise NotImplementedError

    def formula_state(self, index: int) -> dict[str, Any]:
        """Return the state of a variable in the formula, where a copy in float32 is its `master`."""
        return self._states[index]

    @property
    def is_averaged(self) -> bool:
        """Whether the model has the average x of all variables; of those in the last update it else has y."""
        return self.built and bool(self._averaged().all())

    def use_average(self) -> None:
        """Assign x to the model, for evaluation, prediction and files, unless it has x already."""
        self._switch(to_average=True)

    def use_training_weights(self) -> None:
        """Assign y to the model, before training goes on, unless it has y already."""
        self._switch(to_average=False)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        super().finalize_variable_values(var_list)
        checked, self._callbacks_checked = self._callbacks_checked, False
        if self.built and not keras_private.has_value(self.averaged_flags()):
            return  # an error has ended `fit`, and is on its way
        restoring = None if checked else self._restoring_callback()  # TensorFlow has run a step that it had compiled before
        if restoring:
            warnings.warn(
                f"{restoring} restores the weights of an earlier epoch, of which {type(self).__name__} has no average: the "
                "model has weights of the training. Add the callback ScheduleFreeEvaluation.",
                stacklevel=2,
            )
        elif not self.use_ema:
            self.use_average()

    def check_callbacks(self) -> None:
        """Raise an error, once in a `fit`, for a callback that restores weights without a regard to averages."""
        if self._callbacks_checked:
            return
        self._callbacks_checked = True
        restoring = self._restoring_callback()
        if restoring:
            raise ValueError(
                f"{restoring} restores the weights of an earlier epoch, of which {type(self).__name__} has no average. "
                f"Add the callback ScheduleFreeEvaluation. Received: {restoring}(restore_best_weights=True)"
            )

    def _restoring_callback(self) -> str | None:
        """The name of such a callback in the running `fit`; or `None`."""
        callbacks = training_loop.callbacks_of_fit()
        if any(getattr(each, "keeps_schedule_free_average", False) for each in callbacks):
            return None
        return next((type(each).__name__ for each in callbacks if getattr(each, "restore_best_weights", False)), None)

    def _averaged(self) -> Any:
        """Flags of the variables of which the model has x."""
        return ops.convert_to_numpy(self.averaged_flags()).astype(bool)

    def _switch(self, to_average: bool) -> None:
        if not self.built or (self._averaged() == to_average).all():
            return
        for index, (variable, has_average) in enumerate(zip(keras_private.trained_by(self), self._averaged(), strict=True)):
            if "gap" in self._states[index] and has_average != to_average:
                state = OptimizerState(self.formula_state(index))
                factor = (1 - 1 / self.beta_of(index)) * (1 if to_average else -1)
                value = exact_value(variable, state) + factor * wide(self._states[index]["gap"])
                if "master" in state:
                    self.formula_state(index)["master"].assign(value)
                variable.assign(ops.cast(value, variable.dtype))
        self.averaged_flags().assign(np.full(len(self._states), to_average, "int32"))


class ScheduleFree(AveragedWeights, Optimizer):
    """An optimizer with base weights z, their average x, which is the result, and y between them, where gradients are taken.

        k = min(t / warmup_steps, 1) lr
        p = t^r (largest k so far)^weight_lr_power
        c = p / (sum of all p)
        z = z - k u
        x = (1 - c) x + c z
        y = (1 - beta) z + beta x

    The model has y in training and x at other times. The state is z - y alone: with it,

        y = y + c (z - y) - k (1 - beta (1 - c)) u
        z - y = (1 - c) ((z - y) - beta k u)
        x = y + (1 - 1 / beta) (z - y)

    so that it starts from 0, weights that are set from outside move all three, and no digits are lost in a difference. A
    variable that takes no part in an update stays what it is, x after an evaluation. As y and z - y lead to x, a y in
    bfloat16 that stands still, since updates are too small for it, takes x the wrong way: use `master_weights=True`.

    A callback that restores weights of an earlier epoch (`EarlyStopping`) restores y, and x of that epoch is lost. So it is
    refused in the first update, unless `ScheduleFreeEvaluation` is there, with which it restores x.
    """

    state_names: tuple[str, ...] = ("gap",)

    refused_rules = dict.fromkeys(
        ("cautious", "cautious_weight_decay", "update_clipping", "norm_control"),
        "its steps are of three sequences of weights at once",
    )

    def __init__(
        self,
        learning_rate: LearningRate,
        weight_decay: WeightDecay,
        r: float,
        weight_lr_power: float,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.r = validation.non_negative_float("r", r)
        self.weight_lr_power = validation.non_negative_float("weight_lr_power", weight_lr_power)

    def averaged_flags(self) -> Variable:
        return self._scalars["averaged"]

    def make_scalars(self) -> dict[str, Any]:
        numbers = {name: self.add_scalar(name) for name in ("largest_rate", "weight_sum")}
        # Of each variable, since one that is frozen or has no gradient keeps x while others go back to y.
        count = len(keras_private.trained_by(self))
        return {**numbers, "averaged": self.add_scalar("averaged", 0, dtype="int32", shape=(count,))}

    def direction(self, y: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        """u of one variable."""
        raise NotImplementedError

    def factor(self, t: Tensor) -> Any:
        """Factor of the learning rate in update t."""
        return 1.0

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """The weight c of this update in the average, and of which variables the model has x."""
        self.check_callbacks()
        scalars, t = contexts[0].scalars, ops.cast(contexts[0].t, "float32")
        rate = self.factor(t) * ops.cast(contexts[0].common_learning_rate, "float32")
        scalars.largest_rate = ops.maximum(scalars.largest_rate, rate)
        weight = t**self.r * scalars.largest_rate**self.weight_lr_power
        scalars.weight_sum = scalars.weight_sum + weight
        c = weight / ops.where(scalars.weight_sum > 0, scalars.weight_sum, 1.0)
        averaged = scalars.averaged
        scalars.averaged = ops.multiply(averaged, ops.cast(self.resting(contexts), "int32"))
        return c, ops.cast(averaged, "float32")

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        c, averaged = map(ctx.cast, ctx.shared)
        y = w - averaged[ctx.index] * (1 - 1 / self.beta) * state.gap  # after an evaluation that did not go back
        step = self.factor(ctx.t) * ctx.learning_rate * self.direction(y, g, state, ctx)
        gap = state.gap
        state.gap = (1 - c) * (gap - self.beta * step)
        return y + c * gap - (1 - self.beta * (1 - c)) * step


SCHEDULE_FREE = (AveragedWeights, *keras_private.existing(keras.optimizers, "ScheduleFreeAdamW"))
"""Ours and Keras' own, for `isinstance`."""

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

    _states: list[dict[str, Any]]
    _callbacks_checked = False  # in this `fit`

    def beta_of(self, index: int) -> Any:
        """Return the share of x in the y of a variable, by its place."""
        raise NotImplementedError

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

    so that it starts from 0, weights that are set from outside move all three, and no digits are lost in a difference. Where
    beta is another one in each update, the first two lines are for the z - y and y that it has with the same x and z. A
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

    def beta_at(self, t: Tensor) -> Any:
        """The share of x in y in update t: a number, or a tensor from a schedule."""
        raise NotImplementedError

    def beta_of(self, index: int) -> Any:
        return float(ops.convert_to_numpy(self._scalars["share"])[index])

    def make_scalars(self) -> dict[str, Any]:
        numbers = {name: self.add_scalar(name) for name in ("largest_rate", "weight_sum")}
        # Of each variable, since one that is frozen or has no gradient keeps x while others go back to y, and its beta.
        count = (len(keras_private.trained_by(self)),)
        averaged = self.add_scalar("averaged", 0, dtype="int32", shape=count)
        return {
            **super().make_scalars(),
            **numbers,
            "averaged": averaged,
            "share": self.add_scalar("share", 1.0, shape=count),
        }

    def direction(self, y: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        """u of one variable."""
        raise NotImplementedError

    def factor(self, t: Tensor) -> Any:
        """Factor of the learning rate in update t."""
        return 1.0

    def common_factor(self, contexts: Sequence[UpdateContext], t: Tensor) -> Any:
        """The same, from all variables."""
        return self.factor(t)

    def weight(self, t: Tensor, largest_rate: Tensor) -> Tensor:
        """p of update t."""
        return t**self.r * largest_rate**self.weight_lr_power

    def before_update(self, contexts: Sequence[UpdateContext]) -> Any:
        """The factor of the learning rate and the weight c; for each variable, whether the model has x, the old beta and the
        new one."""
        self.check_callbacks()
        scalars, t = contexts[0].scalars, ops.cast(contexts[0].t, "float32")
        factor = self.common_factor(contexts, t)
        rate = factor * ops.cast(contexts[0].common_learning_rate, "float32")
        scalars.largest_rate = ops.maximum(scalars.largest_rate, rate)
        c = self._add_weight(scalars, t)
        averaged, share, rests = scalars.averaged, scalars.share, ops.convert_to_tensor(self.resting(contexts))
        scalars.averaged = ops.multiply(averaged, ops.cast(rests, "int32"))
        scalars.share = ops.where(rests > 0, share, ops.cast(self.beta_at(t), "float32"))
        return factor, c, ops.cast(averaged, "float32"), share, scalars.share

    def _add_weight(self, scalars: OptimizerState, t: Tensor) -> Tensor:
        """c, the share of z in the average."""
        weight = self.weight(t, scalars.largest_rate)
        scalars.weight_sum = scalars.weight_sum + weight
        return weight / ops.where(scalars.weight_sum > 0, scalars.weight_sum, 1.0)

    def step(self, w: Tensor, g: Tensor, state: OptimizerState, ctx: UpdateContext) -> Tensor:
        factor, c, averaged, old_share, share = map(ctx.cast, ctx.shared)
        old_beta, beta = old_share[ctx.index], share[ctx.index]
        y = w - averaged[ctx.index] * (1 - 1 / old_beta) * state.gap  # after an evaluation that did not go back
        step = factor * ctx.learning_rate * self.direction(y, g, state, ctx)
        gap = beta / old_beta * state.gap
        y = y + (state.gap - gap)  # 0 unless beta has changed
        state.gap = (1 - c) * (gap - beta * step)
        return y + c * gap - (1 - beta * (1 - c)) * step


SCHEDULE_FREE = (AveragedWeights, *keras_private.existing(keras.optimizers, "ScheduleFreeAdamW"))
"""Ours and Keras' own, for `isinstance`."""

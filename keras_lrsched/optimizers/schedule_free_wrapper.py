"""Schedule-Free around any optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._d_adaptation import DistanceEstimate
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._schedule_free import SCHEDULE_FREE, AveragedWeights
from keras_lrsched.optimizers.wrapper import OptimizerLike, Pairs, Wrapper


@register(
    "schedule_free_wrapper",
    title="averaged weights in place of a schedule, around AdamW",
    paper="arXiv:2405.15682",
    code=("facebookresearch/schedule_free",),
    checked="trajectory",
    against="the authors' `SGDScheduleFree`, of which it is the form for any optimizer; their wrapper was read",
    deviations="beta_1 may have a schedule",
    kind="wrapper",
    options={"epsilon": 1e-8},
)
class ScheduleFreeWrapper(AveragedWeights, Wrapper):
    """An average of weights in the place of a schedule that depends on the number of updates, around any optimizer.

        z = the inner optimizer's update of z - lr weight_decay_at_y y, with the gradient at y
        x = (1 - c) x + c z              with c from t^r (largest lr so far)^weight_lr_power, over the sum of these
        y = (1 - beta_1) z + beta_1 x

    The model has y in training; the result is x, which it has after `fit`. See `ScheduleFreeAdamW` for how to have it in
    `evaluate` and files. An inner weight decay is that of z. The inner optimizer may have a momentum of its own; it needs
    none. `Prodigy` and D-Adaptation inside count with their estimate d times lr, and `corrected_weight_decay` of the inner
    optimizer is that of AdamC. A `beta_1` that changes leaves x and z as they are, and moves y alone.

    The state is z - y, as in the other Schedule-Free optimizers: one float32 number for each parameter beside the inner
    state. Weights that are set from outside move x, y and z. A variable without a gradient, or that is left out of an
    update, stays what it is. Shapes do not matter: each entry is treated by itself.

    Args:
        optimizer: The inner optimizer, of Keras or of this package; also its name or config as for `keras.optimizers.get`.
        beta_1: How much of y is x, between 0 and 1, both excluded; also a `LearningRateSchedule` with such values.
            Defaults to `0.9`.
        weight_decay_at_y: Weight decay that is computed at y, times the learning rate. Defaults to `0.0`.
        r: Power of t in the weights of the average, at least 0. Defaults to `0.0`.
        weight_lr_power: Power of the largest learning rate so far in them, at least 0. Defaults to `2.0`.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range. If the inner optimizer averages weights itself: with `use_ema`, or a
            Schedule-Free one. If it has `nonfinite="raise"`. If it is a `LossScaleOptimizer`, which belongs around this one;
            `compile` puts it there.

    Reference:
        Defazio et al., The Road Less Scheduled, arXiv:2405.15682; `ScheduleFreeWrapper` of the authors' code,
        facebookresearch/schedule_free. Around SGD, trajectories agree with the authors' Schedule-Free SGD.

    Example:

    >>> w = keras.Variable([1.0])
    >>> optimizer = ScheduleFreeWrapper(keras.optimizers.SGD(0.5), beta_1=0.5)
    >>> for _ in range(2):
    ...     optimizer.apply([w + 0.0], [w])
    >>> optimizer.use_average()
    >>> w.numpy()  # x, the mean of 0.5 and 0.25
    array([0.375], dtype=float32)
    """

    state_names = ("gap",)

    moves_weights = True

    def __init__(
        self,
        optimizer: OptimizerLike,
        beta_1: float | LearningRateSchedule = 0.9,
        weight_decay_at_y: float = 0.0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        name: str | None = None,
    ) -> None:
        super().__init__(optimizer, name)
        is_schedule = isinstance(beta_1, keras.optimizers.schedules.LearningRateSchedule)
        self.beta_1 = beta_1 if is_schedule else validation.inner_fraction("beta_1", beta_1)
        self.weight_decay_at_y = validation.non_negative_float("weight_decay_at_y", weight_decay_at_y)
        self.r = validation.non_negative_float("r", r)
        self.weight_lr_power = validation.non_negative_float("weight_lr_power", weight_lr_power)
        inner = self.inner_optimizer
        if inner.use_ema or isinstance(inner, SCHEDULE_FREE):
            raise ValueError(
                f"ScheduleFreeWrapper needs an inner optimizer that averages no weights. Received: optimizer={optimizer!r}"
            )
        if getattr(inner, "nonfinite", None) == "raise":
            raise ValueError(
                "An inner optimizer that raises would leave z in the model: use nonfinite='skip', and look at its "
                "`skipped_updates`. Received: an inner nonfinite='raise'"
            )

    # State

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built or not variables:
            return
        super().build(variables)
        count = len(variables)
        self._scalars = {name: self._add_scalar(name) for name in ("largest_rate", "weight_sum")}
        self._scalars["averaged"] = self._add_scalar("averaged", (count,), dtype="int32")
        if not isinstance(self.beta_1, float):  # one for each variable, since some may have no part in an update
            first = keras.initializers.Constant(np.full(count, float(self.beta_1(0)), "float32"))
            self._scalars["betas"] = self._add_scalar("betas", (count,), initializer=first)

    def _add_scalar(self, name: str, shape: tuple[int, ...] = (), dtype: str = "float32", initializer: Any = "zeros") -> Any:
        return self.add_variable(shape, initializer, dtype, aggregation="only_first_replica", name=name)

    def averaged_flags(self) -> Variable:
        return self._scalars["averaged"]

    def formula_state(self, index: int) -> dict[str, Any]:
        return self._inner_state(index)

    def beta_of(self, index: int) -> Any:
        return self.beta_1 if isinstance(self.beta_1, float) else ops.convert_to_tensor(self._scalars["betas"])[index]

    # The update

    def before_update(self, pairs: Pairs) -> Any:
        """Give z to the inner optimizer; return the number of micro-batches so far, the learning rate, and the weights."""
        self.check_callbacks()
        done = ops.copy(ops.convert_to_tensor(keras_private.iterations(self)))
        rate = ops.cast(keras_private.current_learning_rate(self.inner_optimizer), "float32")
        averaged, weights = ops.cast(self._scalars["averaged"], "float32"), []
        for variable, index in pairs:
            value, gap = self.value_of(variable, index), wide(self._states[index]["gap"])
            beta = ops.cast(self.beta_of(index), gap.dtype)
            y = value - ops.cast(averaged[index], gap.dtype) * (1 - 1 / beta) * gap
            weights.append((value, y))
            self._assign_exact(variable, index, y + gap - ops.cast(rate * self.weight_decay_at_y, gap.dtype) * y)
        return done, rate, weights

    def after_update(self, pairs: Pairs, before: Any) -> None:
        done_before, rate, weights = before
        done, steps = ops.convert_to_tensor(keras_private.iterations(self)), self.gradient_accumulation_steps or 1
        is_due = ops.logical_and(ops.not_equal(done, done_before), ops.equal(done % steps, 0))
        c = self._weight_in_average(is_due, rate, done // steps)
        new_beta = None if isinstance(self.beta_1, float) else ops.cast(self.beta_1(done // steps), "float32")
        taken: dict[int, Tensor] = {}
        for (variable, index), (value, y) in zip(pairs, weights, strict=True):
            z, gap_variable = self.value_of(variable, index), self._states[index]["gap"]
            gap = wide(gap_variable)
            beta = ops.cast(self.beta_of(index), gap.dtype)
            next_beta = beta if new_beta is None else ops.cast(new_beta, gap.dtype)
            step = y + gap - z
            new_gap = next_beta * (1 - ops.cast(c, gap.dtype)) * (gap / beta - step)  # next_beta (z - x)
            taken[index] = ops.logical_and(is_due, self.takes_part(index, y + gap, z))
            self._assign_exact(variable, index, ops.where(taken[index], y + (gap - new_gap) - step, value))
            self.assign(gap_variable, ops.where(taken[index], new_gap, gap))  # last: PyTorch's `gap` shares its memory
        self._note(taken, new_beta)

    def _weight_in_average(self, is_due: Tensor, rate: Tensor, t: Tensor) -> Tensor:
        """c of update t, and its sums."""
        estimate = self._distance()
        rate = rate if estimate is None else rate * ops.cast(estimate, "float32")
        largest, total = (ops.convert_to_tensor(self._scalars[name]) for name in ("largest_rate", "weight_sum"))
        new_largest = ops.maximum(largest, rate)
        weight = ops.cast(t, "float32") ** self.r * new_largest**self.weight_lr_power
        new_total = total + weight
        self.assign(self._scalars["largest_rate"], ops.where(is_due, new_largest, largest))
        self.assign(self._scalars["weight_sum"], ops.where(is_due, new_total, total))
        return weight / ops.where(new_total > 0, new_total, 1.0)

    def _distance(self) -> Any:
        """The estimate d of an inner optimizer that has one, after its update."""
        inner = self.inner_optimizer
        while isinstance(inner, Wrapper):
            inner = inner.inner_optimizer
        return inner._scalars["d"] if isinstance(inner, DistanceEstimate) else None

    def _note(self, taken: Mapping[int, Tensor], new_beta: Tensor | None) -> None:
        """Keep for each variable in the update that the model has y, and its share of x."""
        flags = [taken.get(index, ops.convert_to_tensor(False)) for index in range(len(self._states))]
        mask = ops.stack(flags)
        self.assign(self._scalars["averaged"], ops.where(mask, 0, ops.convert_to_tensor(self._scalars["averaged"])))
        if new_beta is not None:
            betas = self._scalars["betas"]
            self.assign(betas, ops.where(mask, new_beta, ops.convert_to_tensor(betas)))

    def _assign_exact(self, variable: Variable, index: int, value: Tensor) -> None:
        """Assign a value to a variable and its copy in float32, without its constraint, which is that of z."""
        master = self._inner_state(index).get("master")
        if master is not None:
            self.assign(master, value)
        self.assign(variable, ops.cast(value, variable.dtype))

    # Saving and loading

    def get_config(self) -> dict[str, Any]:
        beta_1 = self.beta_1 if isinstance(self.beta_1, float) else keras.saving.serialize_keras_object(self.beta_1)
        names = ("weight_decay_at_y", "r", "weight_lr_power")
        return {**super().get_config(), "beta_1": beta_1, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        beta_1 = config["beta_1"]
        if isinstance(beta_1, dict):
            beta_1 = keras.saving.deserialize_keras_object(beta_1, custom_objects=custom_objects)
        return super().from_config({**config, "beta_1": beta_1}, custom_objects)

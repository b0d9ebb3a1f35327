"""Local updates: workers train apart and average their weights now and then."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import backends, keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._schedule_free import SCHEDULE_FREE
from keras_lrsched.optimizers.wrapper import OptimizerLike, Pairs, Wrapper


@register(
    "local_updates",
    title="replicas that each run AdamW, averaged at times",
    paper="arXiv:2310.14423",
    code=("hmxgr128/QSR",),
    checked="read",
    against="the authors' code; two replicas with AdamW agree with the formulas in NumPy",
    kind="wrapper",
    options={"epsilon": 1e-8},
)
class LocalUpdates(Wrapper):
    """Updates that each replica makes from its own part of the batch, and an average of the weights every H of them.

        w_k = the inner optimizer's update of w_k with the gradient of replica k
        w_k = (w_1 + ... + w_K) / K,  H = period(t)     when t reaches the update that was due; the next is t + H

    Between two averages the replicas of `tf.distribute` send each other no gradients. With a `SynchronizationPeriod` this is
    the quadratic synchronization rule: the lower the learning rate, the longer they train apart. The inner optimizer's
    momentum is never averaged: each replica has its own, as in the official code of that rule.

    It works in `fit` under `MirroredStrategy`, and with `strategy.run` in a loop of your own, also under
    `MultiWorkerMirroredStrategy`; there, divide the loss by the number of replicas, as Keras does. On one replica it is the
    inner optimizer. When `fit` ends, it averages; after a loop of your own, call `average()`. Until then `evaluate` uses the
    weights of each replica for its own part of the data, and a file gets those of the first.

    Args:
        optimizer: The inner optimizer, of Keras or of this package; also its name or config as for `keras.optimizers.get`.
        period: H, in updates: a positive integer, or a `SynchronizationPeriod` or other schedule, which is read after each
            average. Defaults to `4`.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range. If the inner optimizer averages weights itself (`use_ema`, or a
            Schedule-Free one). When it is built: if there are several replicas and the inner optimizer leaves updates out,
            which one of them alone might (`nonfinite`); if there are several processes or a `keras.distribution` on JAX, or
            several processes on PyTorch, where nothing would be averaged.

    Reference:
        Gu et al., A Quadratic Synchronization Rule for Distributed Deep Learning, arXiv:2310.14423, whose official code,
        hmxgr128/QSR, was read, not run. Two replicas with AdamW agree with the formulas above in NumPy.

    Example:

    >>> from keras_lrsched.optimizers import AdamW
    >>> from keras_lrsched.schedules import LinearDecay, SynchronizationPeriod
    >>> rate = LinearDecay(0.01, decay_steps=100)
    >>> optimizer = LocalUpdates(AdamW(rate), SynchronizationPeriod(rate, alpha=0.02))
    >>> optimizer.period.averages()
    [4, 8, 12, 17, 22, 28, 35, 44, 56, 76, 100]
    """

    def __init__(self, optimizer: OptimizerLike, period: int | LearningRateSchedule = 4, name: str | None = None) -> None:
        super().__init__(optimizer, name)
        is_schedule = isinstance(period, keras.optimizers.schedules.LearningRateSchedule)
        self.period = period if is_schedule else validation.positive_int("period", period)
        inner = self.inner_optimizer
        if inner.use_ema or isinstance(inner, SCHEDULE_FREE):
            raise ValueError(
                f"LocalUpdates needs an inner optimizer that averages no weights. Received: optimizer={optimizer!r}"
            )

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built or not variables:
            return
        backends.require_replicas(type(self).__name__)
        nonfinite = getattr(self.inner_optimizer, "nonfinite", "propagate")
        if nonfinite != "propagate" and backends.replicas() > 1:
            raise ValueError(f"One replica alone might leave an update out. Received: an inner nonfinite={nonfinite!r}")
        super().build(variables)
        self._due = self.add_variable((), dtype="int", aggregation="only_first_replica", name="due")
        for optimizer in self._inner_optimizers():
            backends.disable_all_reduce(optimizer)

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable] | None = None) -> None:
        super().apply(backends.multiply_by_replicas(grads), trainable_variables)

    def before_update(self, pairs: Pairs) -> Any:
        return ops.copy(ops.convert_to_tensor(keras_private.iterations(self)))

    def after_update(self, pairs: Pairs, before: Any) -> None:
        if backends.replicas() == 1:
            return
        done, micro_steps = ops.convert_to_tensor(keras_private.iterations(self)), self.gradient_accumulation_steps or 1
        due = ops.where(ops.equal(before, 0), self._period_at(done, 0), ops.cast(self._due, done.dtype))
        is_due = ops.logical_and(ops.not_equal(done, before), done >= due * micro_steps)
        self._average(is_due, due)

    def average(self) -> None:
        """Average the weights, from outside of `strategy.run`, whether it is due or not."""
        backends.run_on_replicas(self.inner_optimizer, lambda: self._average(ops.convert_to_tensor(True), 0))

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        super().finalize_variable_values(var_list)
        if self.built:
            self.average()

    def get_config(self) -> dict[str, Any]:
        period = self.period
        period = period if isinstance(period, int) else keras.saving.serialize_keras_object(period)
        return {**super().get_config(), "period": period}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        period = config["period"]
        if isinstance(period, dict):
            period = keras.saving.deserialize_keras_object(period, custom_objects=custom_objects)
        return super().from_config({**config, "period": period}, custom_objects)

    def _average(self, is_due: Tensor, due: Tensor) -> None:
        done = ops.convert_to_tensor(keras_private.iterations(self))
        updates = done // (self.gradient_accumulation_steps or 1)
        self.assign(self._due, ops.where(is_due, updates + self._period_at(done, updates), ops.cast(due, done.dtype)))
        values, places = [], []
        for index, variable in enumerate(keras_private.trained_by(self)):
            master = self._inner_state(index).get("master")
            values.append(wide(variable) if master is None else wide(master))
            places.append(([variable] if master is None else [variable, master], variable.constraint))
        backends.assign_mean_of_replicas(is_due, values, places)

    def _period_at(self, like: Tensor, updates: int) -> Tensor:
        period = self.period if isinstance(self.period, int) else ops.round(self.period(updates))
        return ops.cast(period, like.dtype)

    def _inner_optimizers(self) -> Iterator[keras.optimizers.Optimizer]:
        optimizer: keras.optimizers.Optimizer = self
        while isinstance(optimizer, Wrapper):
            optimizer = optimizer.inner_optimizer
            yield optimizer

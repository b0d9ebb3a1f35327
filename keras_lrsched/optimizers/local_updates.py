"""Local updates: workers train apart and average their weights now and then."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import backends, keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.types import Tensor, Variable
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._schedule_free import SCHEDULE_FREE
from keras_lrsched.optimizers.sgd import SGD
from keras_lrsched.optimizers.wrapper import OptimizerLike, Pairs, Wrapper

OUTER = {
    "nesterov": (0.7, 0.9),
    "slowmo": (1.0, 0.5),
    "scaffold": (1.0, None),
    "fedhyper": (1.0, None),
    "fedhyper_client": (1.0, None),
}
"""The rules for what follows an average, with their learning rates and momenta, where they have one."""

STATE = {
    "nesterov": ("begin", "buffer"),
    "slowmo": ("begin", "buffer"),
    "scaffold": ("begin", "own", "common"),
    "fedhyper": ("begin", "last"),
    "fedhyper_client": ("begin", "last", "move"),
}
"""State of each rule for each parameter: where a round began, and what it goes by."""


@register(
    "local_updates",
    title="replicas that each run AdamW, averaged at times",
    paper="arXiv:2310.14423",
    code=("hmxgr128/QSR", "facebookresearch/fairscale", "ATP-1010/FedHyper"),
    checked="read",
    against="the authors' code; two replicas agree with the formulas in NumPy, with AdamW and with the outer rules",
    deviations="SCAFFOLD is from memory; with a schedule it divides by the sum of the learning rates of a round",
    kind="wrapper",
    options={"epsilon": 1e-8},
)
class LocalUpdates(Wrapper):
    """Updates that each replica makes from its own part of the batch, and an average of the weights every H of them.

        w_k = the inner optimizer's update of w_k with the gradient of replica k
        w_k = (w_1 + ... + w_K) / K,  H = period(t)     when t reaches the update that was due; the next is t + H

    With `outer`, x are the weights that all replicas began the round with, D = x - (w_1 + ... + w_K) / K, and all go on from

        "nesterov":  b = mu b + D;  x = x - outer_lr (D + mu b)                        as in DiLoCo, 0.7 and mu 0.9
        "slowmo":    b = mu b + D / lr;  x = x - outer_lr lr b                         1.0 and mu 0.5
        "scaffold":  x = x - outer_lr D;  c_k = c_k - c + (x - w_k) / (sum of lr);  c = mean of all c_k       1.0
        "fedhyper":  a = clip(a + <D', D>, -0.8, 4);  x = x - outer_lr (1 + a) D;  D' = D                     1.0
        "fedhyper_client":  x = x - outer_lr D;  D' = D                                                       1.0

    where SCAFFOLD adds c - c_k to each gradient, around plain SGD. With `"fedhyper_client"` each replica multiplies the
    learning rate of its inner optimizer by b, which is 1 in the first two updates of a round. After each move d but the
    first, with d' the one before, or -D' at first, b = clip(b min(1.1, 1 + 0.1 <d, -D'> / K + <d, d'>), 0.1, 10). Inner
    products have the units of squared weights. The learning rate of SlowMo is that of the last inner update. An outer rule
    takes its step only when an average is due; `average()`, and the end of `fit`, give the mean.

    Between two averages the replicas of `tf.distribute` send each other no gradients. With a `SynchronizationPeriod` this is
    the quadratic synchronization rule: the lower the learning rate, the longer they train apart. The inner optimizer's
    momentum is never averaged: each replica has its own, as in the official code of that rule.

    It works in `fit` under `MirroredStrategy`, and with `strategy.run` in a loop of your own, also under
    `MultiWorkerMirroredStrategy`; there, divide the loss by the number of replicas, as Keras does. On one replica it is the
    inner optimizer, and an outer rule is refused. When `fit` ends, it averages; after a loop of your own, call `average()`.
    Until then `evaluate` uses the weights of each replica for its own part of the data, and a file gets those of the first.

    Args:
        optimizer: The inner optimizer, of Keras or of this package; also its name or config as for `keras.optimizers.get`.
        period: H, in updates: a positive integer, or a `SynchronizationPeriod` or other schedule, which is read after each
            average. Defaults to `4`.
        name: As in Keras.
        outer: The rule for what follows an average: `"nesterov"`, `"slowmo"`, `"scaffold"`, `"fedhyper"` or
            `"fedhyper_client"`. It takes two or three float32 numbers for each parameter on each replica. Defaults to
            `None`, for the average itself.
        outer_learning_rate: Its learning rate, above 0. Defaults to `None`, as above.
        outer_momentum: mu, at least 0 and below 1. Defaults to `None`, as above.

    Raises:
        ValueError: If an argument is out of its range. If the inner optimizer averages weights itself (`use_ema`, or a
            Schedule-Free one). If it is not SGD without momentum, for SCAFFOLD. When it is built: if `outer` is given on one
            replica; if there are several replicas and the inner optimizer leaves updates out,
            which one of them alone might (`nonfinite`); if there are several processes or a `keras.distribution` on JAX, or
            several processes on PyTorch, where nothing would be averaged.

    Reference:
        Gu et al., A Quadratic Synchronization Rule for Distributed Deep Learning, arXiv:2310.14423, whose official code,
        hmxgr128/QSR, was read, not run. Two replicas with AdamW agree with the formulas above in NumPy. DiLoCo: Douillard et
        al., arXiv:2311.08105. SlowMo: Wang et al., arXiv:1910.00643; the code in fairscale was read. SCAFFOLD: Karimireddy
        et al., arXiv:1910.06378, from memory. FedHyper: Wang et al., arXiv:2310.03156; the authors' code was read: its
        FedHyper-G and FedHyper-CL, where b begins anew in each epoch of a round, too. Two replicas agree with scripts of all
        of them.

    Example:

    >>> from keras_lrsched.optimizers import AdamW
    >>> from keras_lrsched.schedules import LinearDecay, SynchronizationPeriod
    >>> rate = LinearDecay(0.01, decay_steps=100)
    >>> optimizer = LocalUpdates(AdamW(rate), SynchronizationPeriod(rate, alpha=0.02))
    >>> optimizer.period.averages()
    [4, 8, 12, 17, 22, 28, 35, 44, 56, 76, 100]
    """

    moves_weights = True

    def __init__(
        self,
        optimizer: OptimizerLike,
        period: int | LearningRateSchedule = 4,
        name: str | None = None,
        outer: Literal["nesterov", "slowmo", "scaffold", "fedhyper", "fedhyper_client"] | None = None,
        outer_learning_rate: float | None = None,
        outer_momentum: float | None = None,
    ) -> None:
        super().__init__(optimizer, name)
        is_schedule = isinstance(period, keras.optimizers.schedules.LearningRateSchedule)
        self.period = period if is_schedule else validation.positive_int("period", period)
        inner = self.inner_optimizer
        if inner.use_ema or isinstance(inner, SCHEDULE_FREE):
            raise ValueError(
                f"LocalUpdates needs an inner optimizer that averages no weights. Received: optimizer={optimizer!r}"
            )
        self._set_outer(outer, outer_learning_rate, outer_momentum)

    def _set_outer(self, outer: Any, learning_rate: float | None, momentum: float | None) -> None:
        self.outer = validation.one_of("outer", outer, (None, *OUTER))
        self.outer_learning_rate, self.outer_momentum = learning_rate, momentum
        for name, value in (("outer_learning_rate", learning_rate), ("outer_momentum", momentum)):
            if value is not None and (outer is None or (OUTER[outer][1] is None and name == "outer_momentum")):
                raise ValueError(f"`{name}` is for another `outer`. Received: {name}={value!r}, outer={outer!r}")
        if learning_rate is not None:
            validation.positive_float("outer_learning_rate", learning_rate)
        if momentum is not None:
            validation.beta("outer_momentum", momentum)
        if outer is None:
            return
        self.state_names = STATE[outer]
        rate, beta = OUTER[outer]
        self._outer_rate = rate if learning_rate is None else float(learning_rate)
        self._outer_momentum = beta if momentum is None else float(momentum)
        *_, innermost = self._inner_optimizers()
        is_plain = isinstance(innermost, (keras.optimizers.SGD, SGD)) and not innermost.momentum
        if outer == "scaffold" and not is_plain:
            raise ValueError(
                "`outer='scaffold'` takes the way of a round for a sum of gradients, which needs SGD without momentum. "
                f"Received: optimizer={innermost!r}"
            )

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built or not variables:
            return
        backends.require_replicas(type(self).__name__)
        if self.outer and backends.replicas() == 1:
            raise ValueError(f"An outer optimizer needs several replicas. Received: outer={self.outer!r} on one replica")
        nonfinite = getattr(self.inner_optimizer, "nonfinite", "propagate")
        if nonfinite != "propagate" and backends.replicas() > 1:
            raise ValueError(f"One replica alone might leave an update out. Received: an inner nonfinite={nonfinite!r}")
        super().build(variables)
        self._due = self.add_variable((), dtype="int", aggregation="only_first_replica", name="due")
        if self.outer:
            self._rates = self._add_number("rates")
        if self.outer == "fedhyper":
            self._hypergradient = self._add_number("hypergradient")
        if self.outer == "fedhyper_client":
            self._moves, self._factor = self._add_number("moves"), self._add_number("factor", "ones")
        for optimizer in self._inner_optimizers():
            backends.disable_all_reduce(optimizer)

    def _add_number(self, name: str, initializer: str = "zeros") -> Variable:
        return self.add_variable((), initializer, "float32", aggregation="only_first_replica", name=name)

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable] | None = None) -> None:
        grads = backends.multiply_by_replicas(grads)
        if self.outer == "scaffold" and self.built:
            known = keras_private.trained_by(self) if trainable_variables is None else list(trainable_variables)
            grads = [self._with_variate(g, v) for g, v in zip(grads, known, strict=True)]
        super().apply(grads, trainable_variables)

    def before_update(self, pairs: Pairs) -> Any:
        done = ops.copy(ops.convert_to_tensor(keras_private.iterations(self)))
        if self.outer:
            self._before_outer(done)
        old = {}  # each replica has its own: replicas are traced by threads of their own, at the same time
        if self.outer == "fedhyper_client":
            old = {index: ops.copy(self.value_of(variable, index)) for index, variable, _ in self._with_state()}
        return done, old

    def after_update(self, pairs: Pairs, before: Any) -> None:
        if backends.replicas() == 1:
            return
        done_before, old = before
        done, micro_steps = ops.convert_to_tensor(keras_private.iterations(self)), self.gradient_accumulation_steps or 1
        due = ops.where(ops.equal(done_before, 0), self._period_at(done, 0), ops.cast(self._due, done.dtype))
        is_due = ops.logical_and(ops.not_equal(done, done_before), done >= due * micro_steps)
        if self.outer == "scaffold":
            self._move_variates(is_due)
        if self.outer == "fedhyper_client":
            self._scale_moves(old, ops.logical_and(ops.not_equal(done, done_before), ops.equal(done % micro_steps, 0)))
        self._average(is_due, due)
        if self.outer:
            self._outer_step(is_due)

    # The outer rules

    def _with_variate(self, g: Tensor, variable: Variable) -> Tensor:
        """g + c - c_k."""
        state = self._states[keras_private.variable_index(self, variable)]
        if g is None or not state:
            return g
        g = backends.dense(g, variable)
        return g + ops.cast(wide(state["common"]) - wide(state["own"]), g.dtype)

    def _before_outer(self, done: Tensor) -> None:
        """Keep the first weights, and add up the learning rates of the round."""
        rate = ops.cast(keras_private.current_learning_rate(self.inner_optimizer), "float32")
        self._rate = rate
        self.assign(self._rates, ops.convert_to_tensor(self._rates) + rate / (self.gradient_accumulation_steps or 1))
        for index, variable in enumerate(keras_private.trained_by(self)):
            if state := self._states[index]:
                first, w = ops.equal(done, 0), self.value_of(variable, index)
                self.assign(state["begin"], ops.where(first, w, wide(state["begin"])))

    def _move_variates(self, is_due: Tensor) -> None:
        """c_k, and c, which is the mean of all."""
        values, places = [], []
        for index, variable in enumerate(keras_private.trained_by(self)):
            if state := self._states[index]:
                own, common, w = wide(state["own"]), wide(state["common"]), self.value_of(variable, index)
                moved = own - common + (wide(state["begin"]) - w) / ops.cast(self._rates, w.dtype)
                own = ops.where(is_due, moved, own)
                self.assign(state["own"], own)
                values.append(own)
                places.append(([state["common"]], None))
        backends.assign_mean_of_replicas(is_due, values, places)

    def _scale_moves(self, old_values: Mapping[int, Tensor], has_moved: Tensor) -> None:
        """Moves d with the learning rate times b, and the next b, from the third update of a round on another one than 1."""
        factor, count = ops.convert_to_tensor(self._factor), ops.convert_to_tensor(self._moves)
        is_later, sums = ops.logical_and(has_moved, count > 0), [0.0, 0.0]
        for index, variable, state in self._with_state():
            old = old_values[index]
            d, move = ops.cast(factor, old.dtype) * (self.value_of(variable, index) - old), wide(state["move"])
            self.set_value(variable, index, old + d)
            others = wide(state["last"]), move
            sums = [so_far + ops.cast(ops.sum(d * each), "float32") for so_far, each in zip(sums, others, strict=True)]
            self.assign(state["move"], ops.where(is_later, d, move))
        growth = ops.minimum(1.1, 1 + 0.1 * sums[0] / backends.replicas() + sums[1])
        self.assign(self._factor, ops.where(is_later, ops.clip(factor * growth, 0.1, 10.0), factor))
        self.assign(self._moves, count + ops.cast(has_moved, "float32"))

    def _outer_step(self, is_due: Tensor) -> None:
        """Go on from the outer step, in the place of the mean, which the model has by now."""
        both = [(wide(state["begin"]), self.value_of(variable, index)) for index, variable, state in self._with_state()]
        distances = [begin - mean for begin, mean in both]
        rate = self._outer_rate * (self._global_factor(distances, is_due) if self.outer == "fedhyper" else 1.0)
        for (index, variable, state), (begin, mean), distance in zip(self._with_state(), both, distances, strict=True):
            step = self._outer_direction(state, distance, is_due)
            new = ops.where(is_due, begin - ops.cast(rate, begin.dtype) * step, mean)
            self.set_value(variable, index, new)
            self.assign(state["begin"], ops.where(is_due, new, begin))
        numbers = [(self._rates, 0.0)]
        if self.outer == "fedhyper_client":
            numbers += [(self._moves, 0.0), (self._factor, 1.0)]
        for number, first in numbers:
            self.assign(number, ops.where(is_due, first, ops.convert_to_tensor(number)))

    def _with_state(self) -> list[tuple[int, Variable, dict[str, Any]]]:
        variables = enumerate(keras_private.trained_by(self))
        return [(index, variable, self._states[index]) for index, variable in variables if self._states[index]]

    def _outer_direction(self, state: dict[str, Any], distance: Tensor, is_due: Tensor) -> Tensor:
        """Return the step at an outer learning rate of 1; keep D, and what follows from it."""
        if self.outer in ("nesterov", "slowmo"):
            old, mu = wide(state["buffer"]), self._outer_momentum
            scale = ops.cast(self._rate, distance.dtype) if self.outer == "slowmo" else 1.0
            buffer = mu * old + distance / scale
            self.assign(state["buffer"], ops.where(is_due, buffer, old))
            return scale * buffer if self.outer == "slowmo" else distance + mu * buffer
        for name in ("last", "move"):  # the way of the whole round
            if name in state:
                self.assign(state[name], ops.where(is_due, -distance, wide(state[name])))
        return distance

    def _global_factor(self, distances: Sequence[Tensor], is_due: Tensor) -> Tensor:
        """1 + a, where a grows while rounds go the same way."""
        pairs = zip(distances, self._with_state(), strict=True)
        product = sum(ops.cast(ops.sum(-d * wide(state["last"])), "float32") for d, (*_, state) in pairs)
        old = ops.convert_to_tensor(self._hypergradient)
        new = ops.where(is_due, ops.clip(old + product, -0.8, 4.0), old)
        self.assign(self._hypergradient, new)
        return 1 + new

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
        names = ("outer", "outer_learning_rate", "outer_momentum")
        return {**super().get_config(), "period": period, **{name: getattr(self, name) for name in names}}

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

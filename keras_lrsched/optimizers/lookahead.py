"""Lookahead: every few updates, back to somewhere on the way."""

from typing import Any

from keras import ops

from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched.optimizers._low_precision import wide
from keras_lrsched.optimizers._schedule_free import SCHEDULE_FREE
from keras_lrsched.optimizers.wrapper import OptimizerLike, Pairs, Wrapper


@register(
    "lookahead",
    title="slow weights that follow those of AdamW",
    paper="arXiv:1907.08610",
    code=("tensorflow/addons",),
    checked="trajectory",
    against="TensorFlow Addons",
    kind="wrapper",
    options={"epsilon": 1e-8},
)
class Lookahead(Wrapper):
    """k steps forward, one step back: slow weights that follow the fast ones of any other optimizer.

        w    = the inner optimizer's update of w
        slow = slow + slow_step_size (w - slow)     each sync_period updates
        w    = slow                                 at the same time

    At first, slow = w. The state is w - slow alone, how far the inner optimizer has come since the last step back, so that
    weights that are set from outside, loaded or restored, move both, and what takes no part in an update stays what it is.
    Between two of these steps the model has the fast weights w, also for `evaluate` and in files. The
    inner optimizer keeps its momentum. It has the learning rate, which is seen and set through this one, the counter of
    updates, clipping, weight decay and gradient accumulation, of which only whole updates count here. State: one float32
    number for each parameter beside the inner state.

    Args:
        optimizer: The inner optimizer, of Keras or of this package; also its name or config as for `keras.optimizers.get`.
        sync_period: Updates from one step back to the next. Defaults to `6`.
        slow_step_size: How much of the way the slow weights go, above 0 and at most 1. Defaults to `0.5`.
        name: As in Keras.

    Raises:
        ValueError: If an argument is out of its range. If the inner optimizer averages weights itself, which the step back
            would disturb: with `use_ema` (the callback `WeightAveraging` does not), or a Schedule-Free one. If it is a
            `LossScaleOptimizer`, which belongs around this one; `compile` puts it there.

    Reference:
        Zhang et al., Lookahead Optimizer: k steps forward, 1 step back, arXiv:1907.08610. Trajectories agree with
        TensorFlow Addons' `Lookahead`.

    Example:

    >>> w = keras.Variable([0.0])
    >>> optimizer = Lookahead(keras.optimizers.SGD(1.0), sync_period=2)
    >>> for _ in range(3):
    ...     optimizer.apply([keras.ops.array([-4.0])], [w])
    ...     print(w.numpy())  # 4, 8 and back to 4, 8
    [4.]
    [4.]
    [8.]
    """

    state_names = ("gap",)

    moves_weights = True

    def __init__(
        self, optimizer: OptimizerLike, sync_period: int = 6, slow_step_size: float = 0.5, name: str | None = None
    ) -> None:
        super().__init__(optimizer, name)
        self.sync_period = validation.positive_int("sync_period", sync_period)
        self.slow_step_size = validation.positive_fraction("slow_step_size", slow_step_size)
        inner = self.inner_optimizer
        if inner.use_ema or isinstance(inner, SCHEDULE_FREE):
            raise ValueError(
                f"Lookahead needs an inner optimizer that averages no weights. Received: optimizer={optimizer!r}"
            )

    def before_update(self, pairs: Pairs) -> Any:
        """The number of micro-batches so far, and the weights."""
        done = ops.copy(ops.convert_to_tensor(keras_private.iterations(self)))
        return done, [self.value_of(variable, index) for variable, index in pairs]

    def after_update(self, pairs: Pairs, before: Any) -> None:
        done_before, weights = before
        done = ops.convert_to_tensor(keras_private.iterations(self))
        period = self.sync_period * (self.gradient_accumulation_steps or 1)
        is_due = ops.logical_and(ops.not_equal(done, done_before), ops.equal(done % period, 0))
        for (variable, index), w in zip(pairs, weights, strict=True):
            fast, gap_variable = self.value_of(variable, index), self._states[index]["gap"]
            gap, steps_back = wide(gap_variable) + (fast - w), ops.logical_and(is_due, self.takes_part(index, w, fast))
            self.assign(gap_variable, ops.where(steps_back, 0.0, gap))
            self.set_value(variable, index, ops.where(steps_back, fast - (1 - self.slow_step_size) * gap, fast))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sync_period": self.sync_period, "slow_step_size": self.slow_step_size}

"""Any numeric setting of a model from a schedule: weight decay, momentum, beta, dropout rate, label smoothing."""

import contextlib
import functools
import json
import sys
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import keras_private, training_loop
from keras_lrsched._core.registry import register
from keras_lrsched._core.training_loop import inner_optimizer, optimizer_value, step_hooks
from keras_lrsched.callbacks import _settings
from keras_lrsched.callbacks._settings import Setting
from keras_lrsched.schedules._arrays import float_dtype
from keras_lrsched.schedules.per_update import refuse_per_update
from keras_lrsched.schedules.schedule import as_schedule, compute


@register(
    title="Schedule of any numeric setting",
    kind="controller",
)
class ScheduleHyperparameter(keras.callbacks.Callback):
    """Schedule of a numeric setting of the optimizer, of a layer or of the loss, applied at every update.

    With t = `optimizer.iterations` before the update, update t + 1 uses schedule(t), also in a run that is resumed. Under
    gradient accumulation t counts updates, not batches. In a model with several optimizers, a setting of one of them, such
    as `"a_optimizer.beta_1"`, follows the updates of that one; for a setting of a layer or of the loss, name `optimizer`.
    The value changes from one training step to the next: an optimizer that makes several updates in a step has one for them.

    The value is part of the compiled step. While Keras traces `train_step`, the setting is replaced by the schedule's
    formula at the optimizer's counter: nothing is done between two updates, no variable is added to what is saved, and
    `steps_per_execution` and `jit_compile` work. Two cases differ:

    - Code that runs step by step (`run_eagerly`, PyTorch) gets a Python float before each step.
    - A setting that is a scalar variable, such as the learning rate, is replaced by one that holds the formula.

    Outside of the training step the setting is a plain number, the one that the last update used: it is brought up to date
    before each evaluation, at the end of each epoch and of `fit`. So `get_config`, `model.save` and evaluation see it.
    A further `fit` of the model with an equal target and schedule uses the same compiled step. An evaluation is traced anew
    if a setting of the loss or of a layer other than dropout has changed.

    On TensorFlow the step waits for its batch, so that Keras' optimizers count right with data of unknown length, too.

    In a condition such as `if self.rate > 0`, which Python decides once for all steps, the setting counts as 0.5: a
    schedule may pass through 0, which then means the number 0 and not "off".

    Place it before callbacks that save the model. A `fit` that ends in an exception leaves the schedule in place;
    `on_train_end()` takes it away.

    Args:
        target: Path of the setting, from the model on: `"optimizer.weight_decay"`, `"optimizer.beta_2"`,
            `"optimizer.learning_rate"`, `"layers.dropout_1.rate"`, `"layers.encoder.layers.dropout.rate"`,
            `"layers.dense.kernel_regularizer.l2"`, `"loss.label_smoothing"`. Items of a list go by name or by number. An
            optimizer around another one, such as `LossScaleOptimizer` or `Lookahead`, is passed over.
        schedule: A `LearningRateSchedule`, or a number for a constant.
        optimizer: Path of the optimizer whose updates count, such as `"generator_optimizer"`. Defaults to `None`: the one in
            `target`, or else the model's only one.

    Raises:
        ValueError: At construction, if an argument is not of its kind. When `fit` begins, if there is no such setting or
            none that may change: a momentum or dropout rate that was constructed as 0, a learning rate that has a schedule
            already, a loss given by name. If it is not clear which of several optimizers counts; on JAX, if it is another
            than `model.optimizer`, which alone is part of a training step there. Also for more than one replica of
            `tf.distribute`, for `jit_compile` on PyTorch and for Flax NNX. After the first update, if the compiled step
            turns out not to read the setting; after the first epoch, if it makes no update with the optimizer.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    >>> model.compile(keras.optimizers.SGD(1.0, weight_decay=0.5), loss=lambda y, y_pred: 0.0 * y_pred)
    >>> decay = ScheduleHyperparameter("optimizer.weight_decay", LinearDecay(0.5, decay_steps=2))
    >>> history = model.fit(np.ones((3, 1)), np.ones((3, 1)), batch_size=1, verbose=0, callbacks=[decay])
    >>> float(model.get_weights()[0].item())  # (1 - 0.5) * (1 - 0.25) * (1 - 0)
    0.375
    """

    def __init__(self, target: str, schedule: LearningRateSchedule | float, optimizer: str | None = None) -> None:
        super().__init__()
        if not isinstance(target, str) or not all(target.split(".")):
            raise ValueError(f'`target` must be a path like "optimizer.weight_decay". Received: target={target!r}')
        if optimizer is not None and (not isinstance(optimizer, str) or not all(optimizer.split("."))):
            raise ValueError(f'`optimizer` must be a path like "generator_optimizer". Received: optimizer={optimizer!r}')
        self.target = target
        self.schedule = as_schedule("schedule", schedule)
        refuse_per_update("ScheduleHyperparameter", "schedule", self.schedule)
        self.optimizer = optimizer
        self._is_active = False

    def value(self, step: Any) -> Any:
        """The value that update `step + 1` uses, in NumPy float64; `step` may be an array."""
        return compute(self.schedule, np.asarray(step), np)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        step_hooks.remove_left_hooks(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._refuse_what_cannot_work()
        self._setting = Setting(self.model, self.target)
        self.counter = self._find_counter()
        self._stand_in = _settings.StandIn()
        self._trainer = self.model  # on JAX, each look at `self.model` takes all state out of the compiled step
        if training_loop.epoch_iterator() is not None:
            training_loop.build(self.model)
        step_hooks.add_hook(self.model, self)
        step_hooks.make_step(self.model)
        self._is_active = True
        self._updates_before = self._updates()

    @property
    def step_key(self) -> tuple | None:
        """The settings that the compiled step depends on, see `training_loop`; `None` for a user's own schedules."""
        try:
            config = keras.saving.serialize_keras_object(self.schedule)
            text = json.dumps(config, sort_keys=True)
        except (NotImplementedError, TypeError, ValueError):
            return None
        return (type(self), self.target, self.optimizer, text) if _is_known(config) else None

    def leave_step(self) -> None:
        """Remove the schedule from the training step."""
        step_hooks.remove_hook(self._trainer, self)
        self._is_active = False
        del self._setting, self._stand_in, self._trainer, self.counter  # so that the callback can be copied

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._stand_in.is_idle and self._updates() > self._updates_before:  # an update may take several batches
            self._refuse_what_is_not_read()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._is_active:
            self._update()
            self.model.make_test_function()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._refuse_what_is_not_read()
        self._refuse_an_idle_counter()
        self._update()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._is_active:
            self._update()
            self.leave_step()

    def state(self) -> dict[str, Any]:
        """Nothing: the value follows from the optimizer's counter."""
        return {}

    def restore_state(self, state: dict[str, Any]) -> None:
        pass

    @contextlib.contextmanager
    def in_step(self, args: tuple) -> Iterator[None]:
        """While a step is run or traced, the setting is the schedule's value at the counter of updates."""
        step = _settings.updates(self._trainer, self.counter, args)
        known = _known(step)
        value = self.schedule(step) if known is None else float(self.value(known))
        if known is not None and not isinstance(self._setting.value, keras.Variable):
            # A number where Python may ask `if momentum != 0`: the smallest float is true, and 0 in float32 arithmetic.
            self._setting.exchange(value or sys.float_info.min)
        else:
            self._stand_in.hold(ops.cast(value, float_dtype()))
            self._setting.exchange(self._stand_in)
        try:
            yield
        finally:
            self._setting.exchange(self._setting.value)

    def _find_counter(self) -> Any:
        """The optimizer whose updates count."""
        if self.optimizer is None:
            counter = self._setting.optimizer or self._only_optimizer()
        else:
            names = self.optimizer.split(".")
            counter = inner_optimizer(functools.reduce(lambda it, name: getattr(it, name, None), names, self.model))
            if not isinstance(counter, keras.optimizers.Optimizer):
                raise ValueError(f"The model has no such optimizer. Received: optimizer={self.optimizer!r}")
        if not _settings.is_in_state(self.model, counter):
            raise ValueError(
                "On JAX, a training step has the counter of `model.optimizer` only. "
                f"Received: target={self.target!r}, optimizer={self.optimizer!r}"
            )
        return counter

    def _only_optimizer(self) -> Any:
        others = training_loop.other_optimizers(self.model)
        if others:
            raise ValueError(
                f"The model has several optimizers: name the one whose updates `{self.target}` follows, such as "
                f"`optimizer={others[0]!r}`. Received: model.optimizer and {', '.join(others)}"
            )
        return inner_optimizer(self.model.optimizer)

    def _update(self) -> None:
        """Set the setting to what the last update used, for all that is not a training step."""
        step = int(ops.convert_to_numpy(self.counter.iterations)) - 1
        if step < 0:
            return
        before, number = self._setting.value, float(self.value(step))
        self._setting.write(number)
        compiled_in = not isinstance(before, keras.Variable) and not isinstance(self._setting.owner, _NOT_EVALUATED)
        if compiled_in and before != number:
            self.model.test_function = self.model.predict_function = None

    def _updates(self) -> int:
        batches = int(optimizer_value(self._trainer, keras_private.iterations(self.counter)))
        return batches // (self.counter.gradient_accumulation_steps or 1)

    def _refuse_what_is_not_read(self) -> None:
        if self._stand_in.is_idle:
            self.leave_step()
            raise ValueError(f"The training step never reads `{self.target}`: a schedule has no effect on it.")

    def _refuse_an_idle_counter(self) -> None:
        may_skip = self.counter is not self.model.optimizer or getattr(self.counter, "nonfinite", "propagate") != "propagate"
        if not int(ops.convert_to_numpy(keras_private.iterations(self.counter))) and not may_skip:
            self.leave_step()
            raise ValueError(
                f"`{self.target}` follows the updates of `model.optimizer`, but the training step makes none with it: name "
                f"the optimizer that it uses. Received: optimizer={self.optimizer!r}"
            )

    def _refuse_what_cannot_work(self) -> None:
        strategy = getattr(self.model, "distribute_strategy", None)
        if strategy is not None and strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "ScheduleHyperparameter works with one replica. "
                f"Received: num_replicas_in_sync={strategy.num_replicas_in_sync}"
            )
        if keras.backend.backend() == "torch" and self.model.jit_compile:
            raise ValueError("On PyTorch, ScheduleHyperparameter needs jit_compile=False. Received: jit_compile=True")
        if getattr(keras.config, "is_nnx_enabled", bool)():
            raise ValueError("ScheduleHyperparameter cannot reach a step that is compiled by Flax NNX.")


_NOT_EVALUATED = (
    keras.optimizers.Optimizer,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


def _is_known(config: Any) -> bool:
    """Whether a serialized object, and all within it, is of Keras or of this package, whose configurations are complete."""
    parts = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    module = (config.get("module") or "") if isinstance(config, dict) and "class_name" in config else "keras"
    return module.partition(".")[0] in ("keras", "keras_lrsched") and all(map(_is_known, parts))


def _known(step: Any) -> int | None:
    """The step as an int if it is run now; None if it is only being traced."""
    try:
        return int(ops.convert_to_numpy(step))
    except (TypeError, NotImplementedError):
        return None

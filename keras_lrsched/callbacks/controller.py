"""The base of callbacks that set the learning rate, or another value, from what the training shows."""

import copy
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import backends, keras_private, training_loop
from keras_lrsched._core.backends import broadcast_from_first
from keras_lrsched._core.runs import Run
from keras_lrsched._core.training_loop import inner_optimizer, optimizer_value
from keras_lrsched.callbacks._batch_values import BatchValues, are_built
from keras_lrsched.callbacks._settings import callbacks_in
from keras_lrsched.callbacks.snapshot import Snapshot

_SAVED = ("step", "partial")
"""The state of every controller, in addition to that of its subclass."""


class Controller(keras.callbacks.Callback):
    """Base of callbacks that set a value from what the training shows. Derive from it to write one.

    A subclass overrides, as needed,

        begin()            when `fit` begins
        before_update()    before each optimizer step, number `step`, counted from 0
        after_update()     after each optimizer step, when `loss` and `values` are those of its batch

    and reads and sets `learning_rate`, or a value of `model` or `optimizer`. `saved` names its attributes that a resumed run
    needs; all of them are set in the constructor, to plain numbers, strings, NumPy arrays, or lists and dictionaries of
    such. `sets_learning_rate = False` is for one that sets something else. Of Keras' hooks it may override any, but calls
    `super()` in `on_train_begin`, `on_epoch_begin`, `on_epoch_end`, `on_train_batch_begin` and `on_train_batch_end`.

    What a subclass then has without further code:

    - The state belongs to one run of one model: a model, compiled with an optimizer. A further `fit` of that model with that
      optimizer continues the run, as in a loop of `fit(epochs=1)`. For any other model (the next fold), or for the same
      model compiled with another optimizer (the next stage), the initial state is restored when `fit` begins.
    - `TrainingState` saves and restores the state. One that is set by `restore_state` outside of `fit` is that of the next
      `fit`.
    - Everything counts optimizer steps: under `gradient_accumulation_steps`, `before_update` is called before the first and
      `after_update` after the last of the batches that make up a step, and values are means over these.
    - The values are those of the batch, where Keras' logs have means over the epoch.
    - Under `tf.distribute` in one process there is one callback for all replicas, which gets the values of the whole batch.
      In several processes each has its own, with the same values: on TensorFlow sums over all workers, on JAX those that
      the first process has read.
    - In a custom training loop, the methods of a `keras.callbacks.CallbackList` are called as `fit` calls them.

    Args:
        monitor: Names of values to read at every batch: `"loss"`, `"accuracy"`, ... Defaults to `("loss",)`.

    Attributes:
        step: The number of optimizer steps so far in this run, over all its `fit`s.
        values: The values of the last step's batch, by the names in `monitor`; of all processes that train together.

    Raises:
        ValueError: When `fit` begins, if the learning rate is a schedule, if `steps_per_execution` is above 1, if the
            optimizer is a `MultiOptimizer`, if `tf.distribute` runs more than one replica and `works_on_replicas` is
            `False`, or if Keras' `BackupAndRestore` is in the list, or `OrbaxCheckpoint` with an `initial_epoch`: they save
            no state of callbacks, `TrainingState` does. After the first batch, if there is no value of a name in `monitor`,
            or if the training step uses another optimizer than the one whose learning rate is set; after the first epoch,
            if it uses none.

    Example: a controller that halves the learning rate after a spike of the loss.

    >>> class HalveAfterSpike(Controller):
    ...     saved = ("mean", "spikes")
    ...
    ...     def __init__(self, factor: float = 2.0, momentum: float = 0.9) -> None:
    ...         super().__init__(monitor="loss")
    ...         self.factor, self.momentum = factor, momentum
    ...         self.mean, self.spikes = None, 0
    ...
    ...     def after_update(self) -> None:
    ...         if self.mean is None:
    ...             self.mean = self.loss
    ...         if self.loss > self.factor * self.mean:
    ...             self.learning_rate *= 0.5
    ...             self.spikes += 1
    ...         self.mean = self.momentum * self.mean + (1 - self.momentum) * self.loss
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile(keras.optimizers.SGD(0.01), loss="mse")
    >>> x, y = np.ones((6, 1)), np.array([1, 1, 1, 9, 1, 1])
    >>> halve = HalveAfterSpike()
    >>> history = model.fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=[halve])
    >>> halve.spikes, round(float(model.optimizer.learning_rate), 4)
    (1, 0.005)
    """

    saved: tuple[str, ...] = ()
    """The names of the attributes that a resumed run needs."""

    sets_learning_rate = True
    """`False` in a subclass that leaves the learning rate alone, which then may be a schedule."""

    counts_batches = False
    """`True` in a subclass whose `before_update` and `after_update` are called at every batch, though a step has several."""

    works_on_replicas = True
    """`False` in a subclass that needs what is not to be had on several replicas of `tf.distribute`."""

    def __init__(self, monitor: str | Sequence[str] = ("loss",)) -> None:
        super().__init__()
        self.monitor = (monitor,) if isinstance(monitor, str) else tuple(monitor)
        self.step = 0
        self.values: dict[str, float] = {}
        self.partial: list[dict] = []  # the values of the batches so far of a step that has several
        self._batch_values = BatchValues(*self.monitor)
        self._trainer: Any = None
        self._steps_before: int | None = None
        self._is_optimizer_checked = False
        self._run: Run | None = None
        self._initial: dict = {}  # what it had before its first run

    def begin(self) -> None:
        """When `fit` begins, before a saved state is restored."""

    def before_update(self) -> None:
        """Before the optimizer step number `step`, counted from 0.

        With data of unknown length, Keras also calls it where it then finds the data at an end: no `after_update`
        follows, and the next epoch calls it again for the same `step`. So it may set values, but not count or append.
        """

    def after_update(self) -> None:
        """After an optimizer step; `step` counts it, `values` are those of its batch."""

    @property
    def loss(self) -> float:
        """The value of the last step's batch that `monitor` names first, which is the loss unless another was chosen."""
        return self.values[self.monitor[0]]

    @property
    def optimizer(self) -> Any:
        """The optimizer that has the learning rate, inside of a `LossScaleOptimizer`."""
        return inner_optimizer(self.model.optimizer)

    @property
    def learning_rate(self) -> float:
        return float(np.asarray(ops.convert_to_numpy(self.optimizer.learning_rate)))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.learning_rate = value

    @property
    def accumulation_steps(self) -> int:
        """The number of batches in an optimizer step."""
        return getattr(inner_optimizer(self._trainer.optimizer), "gradient_accumulation_steps", None) or 1

    @property
    def processes(self) -> int:
        """The number of processes that train the model together, each on its own part of every batch."""
        return len(backends.all_gather(self._trainer, 0))

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        sample_weight: Any = None,
        steps: int | None = None,
        verbose: int | str = 0,
    ) -> dict[str, float]:
        """Evaluate the model, also within an epoch, whose metrics are restored afterwards.

        Args:
            x: As in `model.evaluate`, like all other arguments.
            y: Targets. Defaults to `None`.
            batch_size: Defaults to `None`.
            sample_weight: Defaults to `None`.
            steps: Defaults to `None`.
            verbose: Defaults to `0`.

        Returns:
            The values of loss and metrics by name, the same in all processes that train together.
        """
        given = {"y": y, "batch_size": batch_size, "sample_weight": sample_weight, "steps": steps}
        options = {name: value for name, value in given.items() if value is not None}
        model = self.model
        metrics = Snapshot(model, metrics=True, others=False).state()["metrics"] if are_built(model) else None
        logs = model.evaluate(x, **options, verbose=verbose, return_dict=True)
        if keras.backend.backend() == "torch":
            model.train()
        if metrics is None:
            model.reset_metrics()
        else:
            Snapshot.from_state(model, {"metrics": metrics}).restore()
        return broadcast_from_first(logs)

    def state(self) -> dict[str, Any]:
        """The state that a resumed run needs: plain values and NumPy arrays."""
        return copy.deepcopy({name: getattr(self, name) for name in (*_SAVED, *self.saved)})

    def restore_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        names = {*_SAVED, *self.saved}
        if set(state) != names:
            raise ValueError(f"The state of {type(self).__name__} must have {sorted(names)}. Received: {sorted(state)}")
        self._keep_initial_state()
        for name, value in copy.deepcopy(state).items():
            setattr(self, name, value)
        if training_loop.callback_list() is None:
            self._run = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._refuse_what_cannot_work()
        self._begin_run()
        self._trainer = self.model  # on JAX, each look at `self.model` takes all state out of the compiled step
        self._batch_values.start(self._trainer)
        self._steps_before, self._is_optimizer_checked = None, not self.sets_learning_rate
        self.begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._batch_values.rebase()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.monitor:
            self._batch_values.before_batch()
        if self._steps_before is None:
            self._steps_before = self._optimizer_steps()
        self._batches_before = self._batches_applied()
        if self._batches_before % self._batches_of_a_step == 0:
            self.before_update()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.monitor:
            self.partial.append(broadcast_from_first(self._read_values(logs)))
        self._check_optimizer()
        applied = self._batches_applied()
        if self._batches_of_a_step > 1 and applied == self._batches_before:
            self.partial = self.partial[:-1]  # left out by loss scaling
        elif applied % self._batches_of_a_step == 0:
            self.values, self.partial = _means(self.partial), []
            self.step += 1
            self.after_update()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._check_optimizer(epoch_ends=True)

    @property
    def _batches_of_a_step(self) -> int:
        return 1 if self.counts_batches else self.accumulation_steps

    def _batches_applied(self) -> int:
        """The number of batches that the optimizer was called with, if several make up a step."""
        return 0 if self._batches_of_a_step == 1 else self._optimizer_steps()

    def _optimizer_steps(self) -> int:
        optimizer = inner_optimizer(self._trainer.optimizer)
        return 0 if optimizer is None else int(optimizer_value(self._trainer, keras_private.iterations(optimizer)))

    def _check_optimizer(self, epoch_ends: bool = False) -> None:
        """Raise for a training step that does not use the learning rate that is set.

        At once if there is another optimizer that it may use; else at the end of the epoch, as it may accumulate gradients
        by itself.
        """
        if self._is_optimizer_checked or self._steps_before is None:
            return
        is_used = self._optimizer_steps() != self._steps_before
        self._is_optimizer_checked = is_used or epoch_ends or bool(training_loop.other_optimizers(self._trainer))
        optimizer = self._trainer.optimizer
        may_skip = hasattr(optimizer, "inner_optimizer") or getattr(optimizer, "nonfinite", "propagate") != "propagate"
        if self._is_optimizer_checked and not is_used and not may_skip:
            raise ValueError(
                f"{type(self).__name__} sets the learning rate of `model.optimizer`, which the training step does not use. "
                f"Received: model={type(self._trainer).__name__}, whose optimizer has made no step"
            )

    def _read_values(self, logs: dict[str, Any] | None) -> dict[str, float]:
        try:
            return self._batch_values.read(logs)
        except ValueError as error:
            raise ValueError(f"{error}. {type(self).__name__} watches what its argument `monitor` names.") from error

    def is_of_another_run(self, model: keras.Model) -> bool:
        """Whether the state is of another model than this one, or of another optimizer of it."""
        return self._run is not None and self._run != Run(model)

    def _begin_run(self) -> None:
        """Restore the initial state if the run is another than that of the `fit` before."""
        self._keep_initial_state()
        model = self.model
        if self.is_of_another_run(model):
            for name, value in copy.deepcopy(self._initial).items():
                setattr(self, name, value)
            self.values = {}
        self._run = Run(model)

    def _keep_initial_state(self) -> None:
        if not self._initial:
            self._initial = copy.deepcopy({name: getattr(self, name) for name in (*_SAVED, *self.saved)})

    def _refuse_what_cannot_work(self) -> None:
        name, model = type(self).__name__, self.model
        if model.steps_per_execution != 1:
            raise ValueError(f"{name} needs every optimizer step. Received: steps_per_execution={model.steps_per_execution}")
        if not self.works_on_replicas and backends.replicas_of(model) > 1:
            raise ValueError(f"{name} works with one replica. Received: num_replicas_in_sync={backends.replicas_of(model)}")
        if self.sets_learning_rate:
            _refuse_learning_rate(name, model)
        refuse_backups(name)


def _means(batches: list[dict[str, float]]) -> dict[str, float]:
    """The means of the values of some batches, by name."""
    if len(batches) < 2:
        return batches[0] if batches else {}
    return {name: sum(values[name] for values in batches) / len(batches) for name in batches[0]}


def refuse_backups(name: str) -> None:
    """Raise for Keras' callbacks from whose files a run continues without the state of other callbacks."""
    callbacks = training_loop.callback_list()
    for callback in [] if callbacks is None else callbacks.callbacks:
        saves, kinds = type(callback).__name__, {each.__name__ for each in type(callback).__mro__}
        if "BackupAndRestore" in kinds or ("OrbaxCheckpoint" in kinds and training_loop.initial_epoch() > 0):
            raise ValueError(
                f"A run that goes on from the files of {saves} has lost the state of {name}: use TrainingState of "
                f"keras_lrsched instead, which saves both. Received: {saves} beside {name}"
            )


def _refuse_learning_rate(name: str, model: keras.Model) -> None:
    optimizer = inner_optimizer(model.optimizer)
    if optimizer is None:
        raise ValueError(f"{name} sets the learning rate of `model.optimizer`. Received: model.optimizer=None")
    if isinstance(optimizer, keras_private.existing(keras.optimizers, "MultiOptimizer")):
        raise ValueError(f"{name} sets one learning rate; a MultiOptimizer has several. Received: {optimizer.name!r}")
    rate = keras_private.learning_rate_setting(optimizer)
    if not isinstance(rate, keras.Variable):
        raise ValueError(
            f"{name} sets the learning rate: construct {type(optimizer).__name__} with a float instead of a schedule. "
            f"Received: learning_rate={rate!r}"
        )
    if any(callback.target == "optimizer.learning_rate" for callback in callbacks_in(model)):
        raise ValueError(f"{name} sets the learning rate, and so does a ScheduleHyperparameter: leave one out.")

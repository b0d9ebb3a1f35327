"""What callbacks share that set the learning rate, or another value, from what they see of the training."""

import copy

import keras
import numpy as np
from keras import ops

from keras_lrsched.callbacks.batch_values import BatchValues, are_built
from keras_lrsched.callbacks.host_values import agreed, inner_optimizer
from keras_lrsched.callbacks.scheduled_step import callbacks_in
from keras_lrsched.callbacks.snapshot import Snapshot
from keras_lrsched.optimizers import native


class Controller(keras.callbacks.Callback):
    """Base of callbacks that set values while training watches.

    A subclass overrides `begin`, `before_update` and `after_update`, and names in `saved` the attributes that make up its
    state. All attributes that `saved` names are set in the constructor, to plain numbers, strings, NumPy arrays, or lists
    and dictionaries of such. Of Keras' hooks it may override any, but calls `super()` in `on_train_begin`,
    `on_epoch_begin`, `on_train_batch_begin` and `on_train_batch_end`.

    Under `tf.distribute` in one process there is one callback for all replicas, which sees the values of the whole batch. In
    several processes each has its own, and all decide alike: on TensorFlow the values are sums over all workers, on JAX they
    are those that the first process has read.

    Args:
        monitor: Names of values to read at every batch: `"loss"`, `"accuracy"`, ... Defaults to `("loss",)`.

    Attributes:
        step: The number of batches trained so far, over all `fit`s.
        values: The true values of the last batch, by the names in `monitor`.

    Raises:
        ValueError: When `fit` begins, if the learning rate is a schedule, if `steps_per_execution` is above 1, if the
            optimizer is a `MultiOptimizer`, or if `tf.distribute` runs more than one replica and the subclass says that it
            cannot work there.
    """

    saved: tuple[str, ...] = ()
    """The names of the attributes that a resumed run needs."""

    sets_learning_rate = True
    """`False` in a subclass that leaves the learning rate alone, which then may be a schedule."""

    works_on_replicas = True
    """`False` in a subclass that needs what is not to be had on several replicas of `tf.distribute`."""

    def __init__(self, monitor=("loss",)):
        super().__init__()
        self.monitor = (monitor,) if isinstance(monitor, str) else tuple(monitor)
        self.step = 0
        self.values: dict[str, float] = {}
        self._batch_values = BatchValues(*self.monitor)

    def begin(self):
        """When `fit` begins, before a saved state is restored."""

    def before_update(self):
        """Before the training step number `step`, counted from 0."""

    def after_update(self):
        """After a training step; `step` counts it, `values` are those of its batch."""

    @property
    def loss(self):
        """The loss of the last batch."""
        return self.values["loss"]

    @property
    def optimizer(self):
        """The optimizer that has the learning rate, inside of a `LossScaleOptimizer`."""
        return inner_optimizer(self.model.optimizer)

    @property
    def learning_rate(self):
        return float(np.asarray(ops.convert_to_numpy(self.optimizer.learning_rate)))

    @learning_rate.setter
    def learning_rate(self, value):
        self.optimizer.learning_rate = value

    def evaluate(self, *args, **kwargs):
        """`model.evaluate` as a dictionary, also within an epoch, whose metrics go on as if it had not been."""
        model = self.model
        metrics = Snapshot(model, metrics=True).state()["metrics"] if are_built(model) else None
        logs = model.evaluate(*args, **{"verbose": 0, **kwargs}, return_dict=True)
        if keras.backend.backend() == "torch":
            model.train()
        if metrics is None:
            model.reset_metrics()
        else:
            Snapshot.from_state(model, {"metrics": metrics}).restore()
        return agreed(logs)

    def state(self):
        """What a run that is resumed needs to go on: plain values and NumPy arrays."""
        return copy.deepcopy({name: getattr(self, name) for name in ("step", *self.saved)})

    def restore_state(self, state):
        """Puts back what `state` gave."""
        if set(state) != {"step", *self.saved}:
            raise ValueError(
                f"The state of {type(self).__name__} must have {sorted({'step', *self.saved})}. Received: {sorted(state)}"
            )
        for name, value in copy.deepcopy(state).items():
            setattr(self, name, value)

    def on_train_begin(self, logs=None):
        self._refuse_what_cannot_work()
        self._batch_values.start(self.model)
        self.begin()

    def on_epoch_begin(self, epoch, logs=None):
        self._batch_values.rebase()

    def on_train_batch_begin(self, batch, logs=None):
        if self.monitor:
            self._batch_values.before_batch()
        self.before_update()

    def on_train_batch_end(self, batch, logs=None):
        if self.monitor:
            self.values = agreed(self._batch_values.read(logs))
        self.step += 1
        self.after_update()

    def _refuse_what_cannot_work(self):
        name, model = type(self).__name__, self.model
        if model.steps_per_execution != 1:
            raise ValueError(f"{name} needs to see every update. Received: steps_per_execution={model.steps_per_execution}")
        if not self.works_on_replicas and native.replicas_of(model) > 1:
            raise ValueError(f"{name} works with one replica. Received: num_replicas_in_sync={native.replicas_of(model)}")
        if self.sets_learning_rate:
            _refuse_learning_rate(name, model)


def _refuse_learning_rate(name, model):
    optimizer = inner_optimizer(model.optimizer)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        raise ValueError(f"{name} sets one learning rate; a MultiOptimizer has several. Received: {optimizer.name!r}")
    rate = vars(optimizer).get("_learning_rate")
    if not isinstance(rate, keras.Variable):
        raise ValueError(
            f"{name} sets the learning rate: construct {type(optimizer).__name__} with a float instead of a schedule. "
            f"Received: learning_rate={rate!r}"
        )
    if any(callback.target == "optimizer.learning_rate" for callback in callbacks_in(model)):
        raise ValueError(f"{name} sets the learning rate, and so does a ScheduleHyperparameter: leave one out.")

"""A record of what every update used: learning rates and all scheduled settings, which Keras' logs leave out."""

from os import PathLike
from pathlib import Path
from typing import Any

import keras

from keras_lrsched._core import backends
from keras_lrsched._core.registry import register
from keras_lrsched._core.run_file import RunFile
from keras_lrsched._core.runs import RunIdentity
from keras_lrsched.callbacks._update_observer import MAIN, Update, UpdateObserver

FLUSH_EVERY = 1000
"""Updates that are held in memory, at most."""


@register(
    title="Learning rates and scheduled settings of each step",
    kind="recorder",
)
class LearningRateLogger(keras.callbacks.Callback):
    """Log of the learning rate that every update used, and of what each `ScheduleHyperparameter` of the same `fit` set.

    Each has the name of its path in the model: `optimizer.weight_decay`, for a model with several optimizers
    `d_optimizer.learning_rate`, for a `MultiOptimizer` `optimizer.optimizers.adam.learning_rate`; only the learning rate of
    `model.optimizer` is `learning_rate`. An optimizer inside of another one (`LossScaleOptimizer`, `Lookahead`) has the path
    of the outer one.

    The value of an epoch's last update goes into `logs`, so that the progress bar, `History` and other callbacks that come
    later show it. Keras' `TensorBoard` and W&B's callback put something else under `learning_rate` into what they log: the
    rate of the *next* update. So that they show what was used as well, it is in `logs` a second time as
    `learning_rate_used`.

    The values of all updates go, on request, into a CSV file with the columns `epoch`, `step`, `learning_rate`, ..., `run`
    and into TensorBoard event files with the same names. `step` is the number of training steps before this one, as in
    `schedule(step)`; under gradient accumulation one step is one batch, and the last batch of an update has the rate that
    the update uses. A step that is left out because of gradients that are not finite is no update. The value of an optimizer
    that makes no step in a batch is left empty.

    Values are observed after each step, before other callbacks may change them: it makes no difference where in the list
    this callback or those that set the rate are. A rate that a custom training step changes after its own update is
    seen changed.

    Files are written at the end of an epoch, by the first process of those that train together. Each `fit` is a run of its
    own, with the next number in `run`, unless it continues with the same optimizer from where the last one ended. With
    `TrainingState`, a resumed run continues under its number, and no row is there twice.

    Args:
        path: CSV file to write or to add to. Defaults to `None`, for none.
        log_dir: Folder for TensorBoard event files. Defaults to `None`, for none.

    Raises:
        ImportError: At construction, if `log_dir` is given and TensorBoard is not installed.
        ValueError: When `fit` begins, if a learning rate is a function and `steps_per_execution` above 1, or if it is that
            of an optimizer other than `model.optimizer`. When the first epoch begins, if the CSV file has other columns than
            this run.

    Example:

    >>> import numpy as np
    >>> from keras_lrsched.schedules import LinearDecay
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(LinearDecay(1.0, decay_steps=4)), loss="mse")
    >>> data = np.ones((2, 1)), np.ones((2, 1))
    >>> history = model.fit(*data, batch_size=1, epochs=2, verbose=0, callbacks=[LearningRateLogger()])
    >>> history.history["learning_rate"]
    [0.75, 0.25]
    """

    def __init__(self, path: str | PathLike | None = None, log_dir: str | PathLike | None = None) -> None:
        super().__init__()
        self.path = None if path is None else Path(path).expanduser()
        self.log_dir = log_dir
        self._file: Any = None if path is None else RunFile(path)
        self._writer: Any = None
        self._writes_file = False
        self._updates: list[Update] = []
        self._identity = RunIdentity()
        self._last: dict[str, float] = {}
        if log_dir is not None:
            writer_class()

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._observer = UpdateObserver.of(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        is_first = backends.is_first_worker(self.model)
        self._writes_file, self._updates = is_first and self._file is not None, []
        if self._file is not None and not self._identity.goes_on(self.model):
            self._file.begin_run()
        if self.log_dir is not None and is_first:
            self._writer = writer_class()(str(self.log_dir))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch, self._last = epoch, {}
        if self._writes_file:
            self._file.open(["epoch", "step", *map(_name, self._observer.targets)])

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Its being here also keeps Keras from calling callbacks in another thread, while the next step is run.
        for update in self._observer.updates:
            if not (self._writes_file or self._writer):  # the last values are enough
                earlier = self._updates.pop().used if self._updates else {}
                update = Update(update.step, earlier | update.used)
            self._updates.append(update)
        if len(self._updates) >= FLUSH_EVERY:
            self._flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._flush()
        if logs is not None:
            logs.update({_name(target): value for target, value in self._last.items()})
            if MAIN in self._last:
                logs["learning_rate_used"] = self._last[MAIN]

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._identity.end(self.model)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state(self) -> dict[str, Any]:
        """The state that a resumed run needs to continue its rows."""
        self._flush()
        return {"file": None if self._file is None else self._file.state(), "last": dict(self._last)}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self._updates, self._last = [], dict(state["last"])
        if self._file is not None and state["file"] is not None:
            self._file.restore_state(state["file"])

    def _flush(self) -> None:
        updates, self._updates = self._updates, []
        values = {target: self._values(target, updates) for target in self._observer.targets} if updates else {}
        for target, column in values.items():
            used = [value for value in column if value is not None]
            if used:
                self._last[target] = used[-1]
        if self._writes_file:
            columns = zip(*values.values(), strict=True)
            self._file.write([[self._epoch, it.step, *row] for it, row in zip(updates, columns, strict=True)])
        if self._writer is not None:
            for target, column in values.items():
                for update, value in zip(updates, column, strict=True):
                    if value is not None:
                        self._writer.add_scalar(_name(target), value, update.step)
            self._writer.flush()

    def _values(self, target: str, updates: list[Update]) -> list[float | None]:
        """One value for each update; `None` for those that used none."""
        values = iter(self._observer.values(target, [it.used[target] for it in updates if target in it.used]))
        return [next(values) if target in it.used else None for it in updates]


def _name(target: str) -> str:
    return "learning_rate" if target == MAIN else target


def writer_class() -> type:
    try:
        from tensorboard.summary import Writer
    except ImportError as error:
        raise ImportError("`log_dir` needs TensorBoard: pip install 'keras-lrsched[compare]'") from error
    return Writer

"""A record of what every update used: learning rate and all scheduled settings, which Keras' logs leave out."""

import csv
import functools
import itertools
from pathlib import Path

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched.callbacks.host_values import inner_optimizer, optimizer_value
from keras_lrsched.callbacks.scheduled_step import callbacks_in
from keras_lrsched.schedules.operands import compute


class LearningRateLogger(keras.callbacks.Callback):
    """Logs the learning rate of every update, and what each `ScheduleHyperparameter` of the same `fit` sets.

    The value of an epoch's last update goes into `logs`, so that the progress bar, `History` and other callbacks that come
    later show it: as `learning_rate`, and under its target, for instance `optimizer.weight_decay`. The values of all
    updates go, if asked for, into a CSV file with the columns `epoch`, `step`, `learning_rate`, ... and into TensorBoard
    event files with the same names. `step` is the number of training steps before this one, as in `schedule(step)`; under
    gradient accumulation one step is one batch.

    Files are written at the end of an epoch. A run that is resumed adds to them; a step that is run again appears again.

    The values are those of the schedules, computed from the optimizer's counter. A learning rate that follows no schedule
    is read before every step, which costs a wait for the device if it is a GPU.

    Args:
        path: CSV file to write or to go on with. Defaults to `None`, for none.
        log_dir: Folder for TensorBoard event files. Defaults to `None`, for none.

    Raises:
        ImportError: At construction, if `log_dir` is given and TensorBoard is not installed.
        ValueError: When the first epoch begins, if the CSV file has other columns than this run.

    Example:

    >>> from keras_lrsched.schedules import LinearDecay
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(LinearDecay(1.0, decay_steps=4)), loss="mse")
    >>> data = np.ones((2, 1)), np.ones((2, 1))
    >>> history = model.fit(*data, batch_size=1, epochs=2, verbose=0, callbacks=[LearningRateLogger()])
    >>> history.history["learning_rate"]
    [0.75, 0.25]
    """

    def __init__(self, path=None, log_dir=None):
        super().__init__()
        self.path = None if path is None else Path(path)
        self.log_dir = log_dir
        self._writer = None
        if log_dir is not None:
            _writer_class()

    def on_train_begin(self, logs=None):
        if self.log_dir is not None:
            self._writer = _writer_class()(str(self.log_dir))

    def on_epoch_begin(self, epoch, logs=None):
        self._trainer = self.model  # on JAX, each look at `self.model` takes all state out of the compiled step
        self._optimizer = inner_optimizer(self._trainer.optimizer)
        self._first = self._steps_done()
        self._formulas = {callback.target: self._scheduled(callback) for callback in callbacks_in(self._trainer)}
        self._read: dict[str, list[float]] = {}
        self._holders = _optimizers(self._optimizer)
        for target, optimizer in self._holders.items():
            rate = vars(optimizer)["_learning_rate"]
            if isinstance(rate, LearningRateSchedule):
                self._formulas[target] = functools.partial(compute, rate, xp=np)
            elif target not in self._formulas:
                self._read[target] = []
        if self.path is not None:
            _begin_file(self.path, ["epoch", "step", *map(_column, [*self._read, *self._formulas])])

    def on_train_batch_begin(self, batch, logs=None):
        for target, rates in self._read.items():
            rates.append(float(optimizer_value(self._trainer, self._holders[target]._learning_rate)))

    def on_epoch_end(self, epoch, logs=None):
        steps = np.arange(self._first, self._steps_done())
        if not len(steps):
            return
        values = {target: self._of_each(rates, steps) for target, rates in self._read.items()}
        for target, formula in self._formulas.items():
            wanted = steps if self.path or self._writer else steps[-1:]
            values[target] = formula(wanted).tolist()
        values = {_column(target): column for target, column in values.items()}
        if logs is not None:
            logs.update({name: column[-1] for name, column in values.items()})
        if self.path is not None:
            with self.path.open("a", newline="") as file:
                rows = zip(itertools.repeat(epoch), steps.tolist(), *values.values(), strict=False)
                csv.writer(file, lineterminator="\n").writerows(rows)
        if self._writer is not None:
            for name, column in values.items():
                for step, value in zip(steps.tolist(), column, strict=True):
                    self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _steps_done(self):
        return int(ops.convert_to_numpy(self._optimizer._iterations))  # `iterations` counts updates, which may be fewer

    def _scheduled(self, callback):
        batches = getattr(self._optimizer, "gradient_accumulation_steps", None) or 1
        return lambda steps: callback.value(steps // batches)

    def _of_each(self, rates, steps):
        """One rate for each step, from one for each execution of the compiled function."""
        return np.repeat(rates, self._trainer.steps_per_execution)[: len(steps)].tolist()


def _begin_file(path, header):
    if not path.exists() or not path.stat().st_size:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(header) + "\n")
        return
    with path.open(newline="") as file:
        present = next(csv.reader(file))
    if present != header:
        raise ValueError(
            f"`path` must be a new file or one with the columns {header}. "
            f"Received: path={str(path)!r} with the columns {present}"
        )


def _optimizers(optimizer):
    """What has a learning rate, by the path of that."""
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return {f"optimizer.optimizers.{inner.name}.learning_rate": inner for inner in optimizer.optimizers}
    return {"optimizer.learning_rate": optimizer}


def _column(target):
    return "learning_rate" if target == "optimizer.learning_rate" else target


def _writer_class():
    try:
        from tensorboard.summary import Writer
    except ImportError as error:
        raise ImportError("`log_dir` needs TensorBoard: pip install 'keras-lrsched[compare]'") from error
    return Writer

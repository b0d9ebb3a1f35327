"""The true loss and learning rate of every update, which Keras' own logs do not have."""

import csv
import math
from pathlib import Path

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched.callbacks.batch_values import BatchValues
from keras_lrsched.callbacks.host_values import inner_optimizer, optimizer_value
from keras_lrsched.schedules import checks
from keras_lrsched.schedules.operands import compute

COLUMNS = ("step", "loss", "learning_rate", "batch_size", "tokens")


class LossRecorder(keras.callbacks.Callback):
    """Records the loss of each batch, with the learning rate, batch size and tokens of its update.

    `logs["loss"]` in a batch callback is the mean over the epoch so far. The loss of the batch itself is the difference of
    the sums behind two such means. These are float32, so a single loss loses digits as an epoch grows: it is good to about
    1e-5 after 100 updates, 1e-3 after 10,000. The errors cancel in a mean over neighbours.

    With `path`, the updates go into a CSV file that `keras_lrsched.laws.LossCurve.load` reads. It is written as the run
    goes: a run that is killed keeps all but the last `flush_every` updates. A resumed run adds to the file; updates that it
    makes again appear again, and the last ones count.

    Args:
        path: A CSV file to write or to go on with. Defaults to `None`, for none.
        flush_every: Updates between two writes. Defaults to `100`.
        tokens_per_example: What an example counts in tokens. Defaults to `None`: the length of the model's input if that is
            one sequence of integers; else no tokens are recorded.

    Attributes:
        loss: A list, one number an update.
        learning_rate: A list of what each update used.
        batch_size: A list of the examples that each update had.

    Raises:
        ValueError: When `fit` begins, if `steps_per_execution` is above 1, with which Keras reports every so many updates,
            or if the file has other columns.

    Example:

    >>> import numpy as np
    >>> recorder = LossRecorder()
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile(keras.optimizers.SGD(0.25), loss="mse")
    >>> history = model.fit(np.ones((3, 1)), np.ones((3, 1)), batch_size=1, verbose=0, callbacks=[recorder])
    >>> recorder.loss
    [1.0, 0.0, 0.0]
    """

    def __init__(self, path=None, flush_every=100, tokens_per_example=None):
        super().__init__()
        self.path = None if path is None else Path(path)
        self.flush_every = checks.positive_int("flush_every", flush_every)
        if tokens_per_example is not None:
            tokens_per_example = checks.positive_int("tokens_per_example", tokens_per_example)
        self.tokens_per_example = tokens_per_example
        self.loss: list[float] = []
        self.learning_rate: list[float] = []
        self.batch_size: list[int] = []
        self._values = BatchValues("loss")
        self._written = 0
        self._first_step = 0

    def on_train_begin(self, logs=None):
        if self.model.steps_per_execution != 1:
            raise ValueError(
                f"LossRecorder needs to see every update. Received: steps_per_execution={self.model.steps_per_execution}"
            )
        self._trainer = self.model  # on JAX, each look at `self.model` takes all state out of the compiled step
        self._values.start(self.model)
        optimizer = inner_optimizer(self.model.optimizer)
        # `iterations` counts updates, which under gradient accumulation are fewer than the batches that are rows here
        self._first_step = int(keras.ops.convert_to_numpy(optimizer._iterations)) - len(self.loss)
        self._tokens = self.tokens_per_example or _sequence_length(self.model)
        if self.path is not None:
            _begin(self.path)

    def on_epoch_begin(self, epoch, logs=None):
        self._values.rebase()

    def on_train_batch_begin(self, batch, logs=None):
        self._values.before_batch()
        self.learning_rate.append(self._rate())

    def on_train_batch_end(self, batch, logs=None):
        self.loss.append(self._values.read(logs)["loss"])
        self.batch_size.append(self._values.batch_size)
        if len(self.loss) - self._written >= self.flush_every:
            self._flush()

    def on_epoch_end(self, epoch, logs=None):
        self._flush()

    def on_train_end(self, logs=None):
        self._flush()

    def _rate(self):
        optimizer = inner_optimizer(self._trainer.optimizer)
        rate = vars(optimizer)["_learning_rate"]
        if isinstance(rate, LearningRateSchedule):
            updates = (self._first_step + len(self.loss)) // (optimizer.gradient_accumulation_steps or 1)
            return float(compute(rate, np.asarray(updates), np))
        return float(optimizer_value(self._trainer, optimizer._learning_rate))

    def _flush(self):
        new = range(self._written, len(self.loss))
        self._written = len(self.loss)
        if self.path is None or not new:
            return
        with self.path.open("a", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            for i in new:
                size = self.batch_size[i]
                tokens = size * self._tokens if self._tokens else ""
                rows.writerow([self._first_step + i, repr(self.loss[i]), repr(self.learning_rate[i]), size or "", tokens])


def _begin(path):
    """A new file with its header, or an old one without the line that was cut off."""
    header = ",".join(COLUMNS) + "\n"
    if not path.exists() or not path.stat().st_size:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header)
        return
    text = path.read_text()
    if not text.startswith(header):
        raise ValueError(
            f"`path` must be a new file or one with the columns {', '.join(COLUMNS)}. "
            f"Received: path={str(path)!r} with {text.partition(chr(10))[0]!r:.200}"
        )
    with path.open("r+") as file:
        file.truncate(len(text[: text.rfind("\n") + 1].encode()))


def _sequence_length(model):
    """The length of the model's input, if that is one sequence of integers, else `None`."""
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or not keras.backend.is_int_dtype(inputs[0].dtype) or None in inputs[0].shape[1:]:
        return None
    return math.prod(inputs[0].shape[1:])

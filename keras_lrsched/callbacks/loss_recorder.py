"""The true loss and learning rate of every update, which Keras' own logs do not have."""

import math
from os import PathLike
from pathlib import Path
from typing import Any

import keras

from keras_lrsched._core import backends, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.run_file import RunFile
from keras_lrsched._core.runs import RunIdentity
from keras_lrsched.callbacks._batch_values import BatchValues
from keras_lrsched.callbacks._update_observer import MAIN, UpdateObserver

COLUMNS = ("step", "loss", "learning_rate", "batch_size", "tokens")


@register(
    title="Loss and learning rate of each step",
    kind="recorder",
)
class LossRecorder(keras.callbacks.Callback):
    """Record of the loss of each batch, with the learning rate, batch size and tokens of its update.

    `logs["loss"]` in a batch callback is the mean over the epoch so far. The loss of the batch itself is the difference of
    the sums behind two such means. These are float32, so a single loss loses digits as an epoch grows: it is good to about
    1e-5 after 100 updates, 1e-3 after 10,000. The errors cancel in a mean over neighbors. A custom `train_step` may
    log a mean of another name, or the loss of the batch itself: both are recognized.

    The learning rate is the one that the batch used, observed before other callbacks may change it. Under gradient
    accumulation that is the rate that the optimizer had at each batch; the last batch of an update has what the update used.
    Where the step is left out, because gradients are not finite, it is the rate that the step would have had.

    With `path`, the updates go into a CSV file that `keras_lrsched.laws.LossCurve.load` reads. It is written as the run
    goes: a run that is killed keeps all but the last `flush_every` updates. Each `fit` is a run of its own, with the next
    number in the column `run`, and the lists below begin anew; unless it continues with the same optimizer from where the
    last one ended, as in a loop of `fit(epochs=1)`. With `TrainingState`, a resumed run continues under its number, and no
    update is there twice. Where several processes train together, the first one writes; losses and batch sizes are those of
    all.

    Args:
        path: A CSV file to write or to add to. Defaults to `None`, for none.
        flush_every: Updates between two writes. Defaults to `100`.
        tokens_per_example: What an example counts in tokens. Defaults to `None`: the length of the model's input if that is
            one sequence of integers; else no tokens are recorded.
        monitor: The name in the logs of what is recorded as the loss: for a custom `train_step` that logs none, for
            instance `"d_loss"`. Defaults to `"loss"`.
        learning_rate: For a model with several optimizers, the path of the learning rate to record, for instance
            `"d_optimizer.learning_rate"`. Defaults to `None`: that of `model.optimizer`, or of the only optimizer that makes
            steps.

    Attributes:
        loss: A list, one number an update.
        learning_rate: A list of what each update used.
        batch_size: A list of the examples that each update had; 0 if not known.

    Raises:
        ValueError: When `fit` begins, if `steps_per_execution` is above 1, with which Keras reports every so many updates,
            if the file has other columns, or if a learning rate is a function of an optimizer other than `model.optimizer`.
            If the logs have no `monitor`: when the step is traced, or after the first batch. After the first batch, if it is
            not clear which learning rate is meant.

    Example:

    >>> import numpy as np
    >>> recorder = LossRecorder()
    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile(keras.optimizers.SGD(0.25), loss="mse")
    >>> history = model.fit(np.ones((3, 1)), np.ones((3, 1)), batch_size=1, verbose=0, callbacks=[recorder])
    >>> recorder.loss
    [1.0, 0.0, 0.0]
    """

    def __init__(
        self,
        path: str | PathLike | None = None,
        flush_every: int = 100,
        tokens_per_example: int | None = None,
        monitor: str = "loss",
        learning_rate: str | None = None,
    ) -> None:
        super().__init__()
        self.path = None if path is None else Path(path).expanduser()
        self.flush_every = validation.positive_int("flush_every", flush_every)
        if tokens_per_example is not None:
            tokens_per_example = validation.positive_int("tokens_per_example", tokens_per_example)
        self.tokens_per_example = tokens_per_example
        self.monitor = monitor
        self.target = learning_rate
        self._values = BatchValues(monitor)
        self._file: Any = None if path is None else RunFile(path)
        self._identity = RunIdentity()
        self._writes = False
        self.loss: list[float] = []
        self.learning_rate: list[float] = []
        self.batch_size: list[int] = []
        self._first_step: Any = None
        self._begin_run()

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._observer = UpdateObserver.of(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.model.steps_per_execution != 1:
            raise ValueError(
                f"LossRecorder needs every optimizer step. Received: steps_per_execution={self.model.steps_per_execution}"
            )
        self._values.start(self.model)
        self._values.check_logs(self._refuse_logs)
        self._tokens = self.tokens_per_example or _sequence_length(self.model)
        self._writes = self._file is not None and backends.is_first_worker(self.model)
        if not self._identity.goes_on(self.model):
            self._begin_run()
        if self._writes:
            self._file.open(COLUMNS)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._values.rebase()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._values.before_batch()
        if self._first_step is None:
            self._first_step = self._observer.counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._refuse_logs(logs or {})
        self.loss.append(self._values.read(logs)[self.monitor])
        self.learning_rate.append(self._rate())
        self.batch_size.append(self._values.batch_size)
        if len(self.loss) - self._written >= self.flush_every:
            self._flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._flush()
        self._identity.end(self.model)

    def state(self) -> dict[str, Any]:
        """The state that a resumed run needs to continue its rows."""
        self._flush()
        return {
            "loss": list(self.loss),
            "learning_rate": list(self.learning_rate),
            "batch_size": list(self.batch_size),
            "first_step": self._first_step,
            "file": None if self._file is None else self._file.state(),
        }

    def restore_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.loss, self.learning_rate = list(state["loss"]), list(state["learning_rate"])
        self.batch_size, self._first_step = list(state["batch_size"]), state["first_step"]
        self._written = len(self.loss)
        if self._file is not None and state["file"] is not None:
            self._file.restore_state(state["file"])

    def _begin_run(self) -> None:
        self.loss, self.learning_rate, self.batch_size = [], [], []
        self._written = 0
        self._first_step = None  # until the first batch
        if self._file is not None:
            self._file.begin_run()

    def _refuse_logs(self, logs: dict[str, Any] | None) -> None:
        if isinstance(logs, dict) and self.monitor not in logs:
            raise ValueError(
                f"LossRecorder finds no {self.monitor!r} in the logs of a batch: name what is to be recorded by `monitor`, "
                f"one of {', '.join(logs) or 'none'}. Received: monitor={self.monitor!r}"
            )

    def _rate(self) -> float:
        """The learning rate that the batch used; NaN if no optimizer has made a step yet and there are several, or none."""
        known, moved = self._observer.targets, self._observer.learning_rates
        target = self.target
        if target is None:
            candidates = moved or known
            target = MAIN if MAIN in moved else candidates[0] if len(candidates) == 1 else None
        if target not in known and (self.target is not None or moved):
            raise ValueError(
                f"Name the learning rate that is to be recorded by `learning_rate`, one of {', '.join(known)}. "
                f"Received: learning_rate={self.target!r}"
            )
        return math.nan if target is None else self._observer.last(target)

    def _flush(self) -> None:
        new = range(self._written, len(self.loss))
        self._written = len(self.loss)
        if self._writes:
            self._file.write([self._row(i) for i in new])

    def _row(self, i: int) -> list:
        size = self.batch_size[i]
        tokens = size * self._tokens if self._tokens and size else ""
        return [self._first_step + i, repr(self.loss[i]), repr(self.learning_rate[i]), size or "", tokens]


def _sequence_length(model: keras.Model) -> int | None:
    """The length of the model's input, if that is one sequence of integers, else `None`."""
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or not keras.backend.is_int_dtype(inputs[0].dtype) or None in inputs[0].shape[1:]:
        return None
    return math.prod(inputs[0].shape[1:])

"""The norm of the gradient of every update, from which a refined schedule is made (Defazio et al. 2023)."""

import csv
import math
import os
from pathlib import Path

from keras import ops

from keras_lrsched.callbacks.gradient_controller import GradientController, global_square
from keras_lrsched.schedules import checks

COLUMNS = ["step", "gradient_norm"]


class GradientNormRecorder(GradientController):
    """Records the norm of the gradient of every update, over all weights, before clipping:

        l2: G_t = (sum g_i^2)^(1/2) (for SGD),   l1: G_t = sum |g_i| (for Adam)

    The first run of two: `RefinedSchedule.from_run(path)` is the schedule of the second. The first may follow any
    reasonable schedule; the paper advises a warmup and linear decay. The second one should have batches of the same size.

    The norm is computed within the compiled step, without the factor of loss scaling; an update that loss scaling leaves
    out is not recorded. Under gradient accumulation it is that of the mean, once an update.

    The file is written as the run goes: a run that is killed keeps all but the last `flush_every` updates. A run that is
    resumed goes on in the file at its own update; what was written of later ones is dropped. Norms that are not finite are
    left out of the file, as a schedule cannot be made from them.

    Args:
        path: A `.csv` file to write or to go on with, with the columns `step` and `gradient_norm`. Defaults to `None`, for
            none.
        norm: `"l2"` or `"l1"`. Defaults to `"l2"`.
        flush_every: Updates between two writes. Defaults to `100`.

    Attributes:
        gradient_norm: A list, one number an update.

    Raises:
        ValueError: At construction, if an argument is not of its kind. When `fit` begins, as `Controller`, or if the file
            has other columns.

    Reference: arXiv:2310.07831. What is to be recorded is described with the official code,
    facebookresearch/adaptive_scheduling, which was read; l1 norms for Adam are from a comment there.

    Example: both runs, the second with what the first has recorded.

    >>> import tempfile
    >>> import keras
    >>> import numpy as np
    >>> from keras_lrsched.schedules import LinearDecay, RefinedSchedule
    >>> path = tempfile.mkdtemp() + "/norms.csv"
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> def train(schedule, *callbacks):
    ...     model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    ...     model.compile(keras.optimizers.SGD(schedule), loss="mse")
    ...     return model.fit(x, 3 * x, batch_size=64, epochs=20, verbose=0, callbacks=callbacks).history["loss"][-1]
    >>> first = train(LinearDecay(0.5, 20), GradientNormRecorder(path))
    >>> second = train(RefinedSchedule.from_run(path, peak_learning_rate=0.5))
    >>> len(RefinedSchedule.from_run(path).gradient_norms), first < 1, second < 1
    (20, True, True)
    """

    saved = ("gradient_norm",)
    sets_learning_rate = False

    def __init__(self, path=None, norm="l2", flush_every=100):
        super().__init__()
        self.path = None if path is None else Path(path)
        if self.path is not None and self.path.suffix != ".csv":
            raise ValueError(f"`path` must be a .csv file. Received: path={str(path)!r}")
        self.norm = checks.one_of("norm", norm, ("l2", "l1"))
        self.flush_every = checks.positive_int("flush_every", flush_every)
        self.gradient_norm: list[float] = []
        self._new: list[list] = []
        self._begun = False

    def begin(self):
        super().begin()
        self._norm = self.add_variable("norm")
        self._new, self._begun = [], False
        if self.path is not None and self.path.exists():
            _rows(self.path)

    def before_apply(self, gradients, variables):
        gradients = self.of_update(gradients, variables)
        if self.norm == "l2":
            self._norm.assign(ops.sqrt(global_square(gradients)))
        else:
            self._norm.assign(sum(ops.sum(ops.abs(each)) for each in gradients))

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self._updates = self.applied() // self.accumulation_steps

    def after_update(self):
        updates = self.applied() // self.accumulation_steps
        if updates == self._updates:
            return
        norm = float(self.read(self._norm))
        self._updates = updates
        self.gradient_norm.append(norm)
        if math.isfinite(norm):
            self._new.append([updates - 1, repr(norm)])
        if len(self._new) >= self.flush_every:
            self._flush()

    def on_epoch_end(self, epoch, logs=None):
        self._flush()

    def on_train_end(self, logs=None):
        self._flush()
        super().on_train_end(logs)

    def state(self):
        self._flush()
        return super().state()

    def _flush(self):
        if self.path is not None and self._new:
            if not self._begun:
                _go_on(self.path, self._new[0][0])
                self._begun = True
            with self.path.open("a", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(self._new)
        self._new = []


def _go_on(path, step):
    """Leaves of a file what comes before an update."""
    before = [row for row in _rows(path) if int(row[0]) < step] if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with new.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *before])
    os.replace(new, path)


def _rows(path):
    """The rows of a file, without a line that was cut off."""
    text = path.read_text()
    header, *rows = csv.reader(text[: text.rfind("\n") + 1].splitlines()) if "\n" in text else [COLUMNS]
    if header != COLUMNS:
        raise ValueError(
            f"`path` must be a new file or one with the columns {', '.join(COLUMNS)}. "
            f"Received: path={str(path)!r} with the columns {', '.join(header):.200}"
        )
    return rows

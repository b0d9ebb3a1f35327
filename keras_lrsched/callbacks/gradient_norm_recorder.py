"""The norm of the gradient of every update, from which a refined schedule is made (Defazio et al. 2023)."""

import math
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import keras
from keras import ops

from keras_lrsched._core import backends, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.run_file import RunFile
from keras_lrsched._core.runs import RunIdentity
from keras_lrsched.callbacks.gradient_controller import GradientController, global_square

COLUMNS = ("step", "gradient_norm")


@register(
    title="Gradient norms for a refined schedule",
    paper="arXiv:2310.07831",
    code=("facebookresearch/adaptive_scheduling",),
    checked="read",
    against="the description in the official code",
    deviations="l1 norms for Adam are from a comment there",
    kind="recorder",
)
class GradientNormRecorder(GradientController):
    """Record of the norm of the gradient of every update, over all weights, before clipping:

        l2: G_t = (sum g_i^2)^(1/2) (for SGD),   l1: G_t = sum |g_i| (for Adam)

    The first run of two: `RefinedSchedule.from_run(path)` is the schedule of the second. The first may follow any
    reasonable schedule; the paper advises a warmup and linear decay. The second one should have batches of the same size.

    The norm is computed within the compiled step, without the factor of loss scaling; an update that loss scaling leaves
    out is not recorded. Under gradient accumulation it is that of the mean, once an update.

    The file is written as the run goes: a run that is killed keeps all but the last `flush_every` updates. Each `fit` is a
    run of its own, with the next number in the column `run`, and the list below begins anew; unless it continues with the
    same optimizer from where the last one ended, as in a loop of `fit(epochs=1)`. With `TrainingState`, a resumed run
    continues under its number, and no update is there twice. Where several processes train together, the first one writes;
    the norm is that of the gradient of all. Norms that are not finite are left out of the file, as a schedule cannot be made
    from them.

    Args:
        path: A `.csv` file to write or to add to, with the columns `step`, `gradient_norm` and `run`. Defaults to `None`,
            for none.
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
    step_settings = ("norm",)

    def __init__(self, path: str | PathLike | None = None, norm: Literal["l2", "l1"] = "l2", flush_every: int = 100) -> None:
        super().__init__()
        self.path = None if path is None else Path(path).expanduser()
        if self.path is not None and self.path.suffix != ".csv":
            raise ValueError(f"`path` must be a .csv file. Received: path={str(path)!r}")
        self.norm = validation.one_of("norm", norm, ("l2", "l1"))
        self.flush_every = validation.positive_int("flush_every", flush_every)
        self.gradient_norm: list[float] = []
        self._file: Any = None if self.path is None else RunFile(self.path)
        self._identity = RunIdentity()
        self._new: list[list] = []
        self._writes = False

    def begin(self) -> None:
        super().begin()
        self._norm = self.add_variable("norm")
        self._new = []
        self._writes = self._file is not None and backends.is_first_worker(self._trainer)
        if not self._identity.goes_on(self._trainer):
            self.gradient_norm = []
            if self._file is not None:
                self._file.begin_run()
        if self._writes:
            self._file.open(COLUMNS)

    def before_apply(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        gradients = self.of_update(gradients, variables)
        if self.norm == "l2":
            self._norm.assign(ops.sqrt(global_square(gradients)))
        else:
            self._norm.assign(sum(ops.sum(ops.abs(each)) for each in gradients))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._updates = self.applied() // self.accumulation_steps

    def after_update(self) -> None:
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

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._flush()
        self._identity.end(self._trainer)
        super().on_train_end(logs)

    def state(self) -> dict[str, Any]:
        self._flush()
        return {**super().state(), "file": None if self._file is None else self._file.state()}

    def restore_state(self, state: dict[str, Any]) -> None:
        super().restore_state({name: value for name, value in state.items() if name != "file"})
        if self._file is not None and state["file"] is not None:
            self._file.restore_state(state["file"])

    def _flush(self) -> None:
        if self._writes:
            self._file.write(self._new)
        self._new = []

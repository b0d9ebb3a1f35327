"""LossCurve: the loss and the learning rate of the updates of a run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_lrsched._core import validation
from keras_lrsched._core.npz import read_arrays
from keras_lrsched._core.run_file import SeveralRunsError
from keras_lrsched._core.untrusted_file import refused
from keras_lrsched.laws._logs import columns as log_columns
from keras_lrsched.laws._logs import reader, recorded
from keras_lrsched.laws._logs.log import LogError
from keras_lrsched.laws._lr_decrements import warmup_end
from keras_lrsched.laws.law import RunRates, updates
from keras_lrsched.laws.law import rates as rates_of


@dataclass(frozen=True, eq=False)
class LossCurve:
    """The loss of a run at some of its updates, and the learning rate of all of them.

    Example:

    >>> curve = LossCurve(loss=[4.0, 3.0, 2.5, 2.5], rates=[0.1, 0.1, 0.1, 0.05])
    >>> curve.subsample(2).step, curve.subsample(2).loss
    (array([0, 2]), array([3.5, 2.5]))
    """

    loss: np.ndarray
    """Positive and finite, one number for each of `step`."""
    rates: np.ndarray
    """The learning rate of every update of the run."""
    step: np.ndarray = None  # type: ignore[assignment]  # __post_init__ fills it in
    """The updates, 0-based, that `loss` belongs to, increasing. Defaults to all."""
    batch_size: np.ndarray | None = None
    """The examples of each of these updates, if recorded."""
    tokens: np.ndarray | None = None
    """The tokens of each of these updates, if recorded."""
    name: str = ""
    model_parameters: float | None = None
    """The number of parameters of the model, for laws over several sizes."""

    def __post_init__(self) -> None:
        if callable(self.rates):
            raise ValueError(
                "`rates` must be the learning rates of all updates: of a schedule, schedule.values(steps). "
                f"Received: rates={self.rates!r:.100}"
            )
        loss, rates = np.array(self.loss, float), rates_of(np.array(self.rates, float))
        step = np.arange(len(rates)) if self.step is None else updates("step", self.step)
        vars(self).update(loss=loss, rates=rates, step=step)
        for name in ("batch_size", "tokens"):
            if getattr(self, name) is not None:
                vars(self)[name] = np.array(getattr(self, name), float)
        if self.model_parameters is not None:
            size = validation.positive_float("model_parameters", np.asarray(self.model_parameters).item())
            vars(self).update(model_parameters=size)
        shapes = {name: np.shape(getattr(self, name)) for name in recorded.COLUMNS if getattr(self, name) is not None}
        if set(shapes.values()) != {(len(step),)} or not len(step):
            raise ValueError(
                f"A curve needs one loss for each of its updates. Received: shapes {shapes}, and {len(rates)} learning rates"
            )
        if np.any(np.diff(step) <= 0) or step[0] < 0 or step[-1] >= len(rates):
            raise ValueError(
                f"`step` must increase within [0, {len(rates)}), the updates that have a learning rate. "
                f"Received: step={step!r:.200}"
            )
        bad = ~(np.isfinite(loss) & (loss > 0))
        if bad.any():
            raise ValueError(
                f"A loss must be positive and finite. Received: loss={loss[bad][0]} at step {step[bad][0]}"
                f" ({bad.sum()} such values){f' in {self.name}' if self.name else ''}"
            )

    @property
    def learning_rate(self) -> np.ndarray:
        """The learning rate at each of `step`."""
        return self.rates[self.step]

    @property
    def peak_step(self) -> int:
        """The update at which the first rise of the learning rate ends: the end of warmup."""
        return warmup_end(self.rates)

    @classmethod
    def from_history(
        cls,
        history: Any,
        schedule: RunRates | None = None,
        steps_per_epoch: int = 1,
        loss: str = "loss",
        name: str = "",
    ) -> Self:
        """A curve from the result of `fit`: a Keras `History`, which has one mean loss an epoch.

        Args:
            history: A `History` or its `.history`.
            schedule: The schedule of the run. Defaults to `None`: `history` has a learning rate (`learning_rate`, as
                `LearningRateLogger` and `ReduceLROnPlateau` write it) that is taken for the whole epoch.
            steps_per_epoch: Updates in an epoch. Defaults to `1`. The mean loss of an epoch is put at its middle.
            loss: Which entry is the loss, for instance `"val_loss"`, which is put at the epoch's end. Defaults to `"loss"`.
            name: A label.
        """
        logs = getattr(history, "history", history)
        if not isinstance(logs, dict):
            raise ValueError(
                f"`history` must be a `History` or its `.history`; `LossCurve.read` takes files. "
                f"Received: history={history!r:.100}"
            )
        for entry in (loss, *([] if schedule is not None else ["learning_rate"])):
            if entry not in logs:
                raise ValueError(f"The history has no {entry!r}. It has: {', '.join(logs)}")
        per_epoch = validation.positive_int("steps_per_epoch", steps_per_epoch)
        epochs = max(len(values) for values in logs.values())
        if not epochs:
            raise ValueError(f"The history must have an epoch or more. Received: history={logs!r:.100}")
        if len(logs[loss]) != epochs:
            raise ValueError(f"The history must have {loss!r} for each of its {epochs} epochs. Received: {len(logs[loss])}")
        if schedule is None:
            rates = np.repeat(np.array(logs["learning_rate"], float), per_epoch)
        else:
            rates = rates_of(schedule, epochs * per_epoch)
        place = per_epoch - 1 if loss.startswith("val_") else (per_epoch - 1) // 2
        return cls(logs[loss], rates, np.arange(epochs) * per_epoch + place, name=name)

    @classmethod
    def read(
        cls,
        path: Any,
        learning_rate: RunRates | str | None = None,
        *,
        run: Any = None,
        loss: str | Sequence[str] | None = None,
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
        first: int | None = None,
        drop_nan: bool = False,
        name: str | None = None,
    ) -> Self:
        """The curve of a run in a log that some program wrote.

        Files of `LossRecorder` and `save` are read by `load`. Other forms: Keras' `CSVLogger` and `history.history`, Hugging
        Face's `trainer_state.json`, Lightning's `metrics.csv`, tables and JSON that W&B and TensorBoard export, event files
        of TensorBoard, lines as nanoGPT, llm.c and Megatron print them, Ultralytics' `results.csv`, and any table with a
        header (separated by commas, semicolons or tabs), JSON list or JSON lines whose columns have usual names.

        Rows without a loss, such as those of evaluations, are left out. A learning rate that is logged at some updates only
        is taken to be a straight line between them, one that is logged for epochs to be the same for a whole epoch. The
        mean loss of an epoch is put at its middle, a validation loss at its end; Hugging Face's loss, the mean since the row
        before, at the middle of its updates.

        Args:
            path: A file; a folder with event files; or a Keras `History`, or its `.history`.
            learning_rate: A number, a schedule, the rates of all updates, or the name of a column. Defaults to `None`: a
                column under a usual name.
            run: Which of several runs: a dictionary from columns to values, such as `{"schedule": "cosine", "seed": 0}`; the
                number of one, from 0, of those that follow one another; a list of such numbers, each of which goes on from
                the one before; or a name, for a table that W&B exports from a chart, or for a folder below `path`. Defaults
                to `None`: the only one.
            loss: The name of the loss's column, or a list of columns that add up to it. Defaults to `None`: a training loss
                under a usual name.
            total_steps: Updates of the run. Defaults to `None`: up to the last that the log counts.
            steps_per_epoch: Updates in an epoch, needed for a log that counts epochs, or updates within each epoch.
            first: What the log calls the first update or epoch of the run, 0 or 1. Defaults to `None`: what the form, or the
                numbers themselves make clear. Of 25, 50, 75 the first is taken to be the loss of 25 updates (`first=1`), of
                24, 49, 74 and of 0, 25, 50 that of the update of this number, counted from 0.
            drop_nan: Whether losses and learning rates that are not finite are left out, with a warning that has their
                number. Defaults to `False`: they are refused.
            name: A label. Defaults to `None`: that of the file.

        Raises:
            ValueError: If the file is of no known form, holds several runs and none is chosen, or lacks something; the
                message ends with what to pass.

        Example:

        >>> history = {"loss": [3.0, 2.0], "val_loss": [3.1, 2.3]}
        >>> curve = LossCurve.read(history, learning_rate=0.1, steps_per_epoch=5)
        >>> curve.step, curve.loss, len(curve.rates)
        (array([2, 7]), array([3., 2.]), 10)
        """
        if isinstance(path, str | os.PathLike):
            path = Path(path).expanduser()
        choice = log_columns.Choice(learning_rate, run, loss, total_steps, steps_per_epoch, first, drop_nan)
        if choice._replace(run=None) == log_columns.Choice() and recorded.is_recorded(path):
            curve = cls.load(path, run)
            return curve if name is None else replace(curve, name=name)
        try:
            columns = log_columns.columns(reader.read(path), choice)
        except LogError as error:
            raise ValueError(f"{error}. Received: path={str(path)!r:.100}, run={run!r:.100}") from error
        return cls(**columns, name=name if name is not None else path.stem if isinstance(path, Path) else "")

    @classmethod
    def load(cls, path: str | os.PathLike, run: Any = None) -> Self:
        """The curve of one run in a file of `LossRecorder` or `save`: `.csv` or `.npz`.

        A last line that was cut off when the run was killed is left out. A run that begins at an update above 0 goes on from
        the earlier run that reaches this update; updates that it made again count with what they gave the last time. In a
        file without a column `run`, which older versions wrote, each update 0 begins a run.

        Args:
            path: The file.
            run: The number of a run; a list of runs that go on from each other; or, for a file with columns of another kind
                that distinguish runs, a dictionary such as `{"schedule": "cosine", "seed": "0"}`. Defaults to `None`: the
                only one.

        Raises:
            ValueError: If the file holds no curve, if there are several runs and none is chosen, or if some update of the
                run is missing.
        """
        path = Path(path).expanduser()
        try:
            with refused("curve", path, passing=(SeveralRunsError,)):
                if path.suffix == ".npz":
                    if run not in (None, 0):
                        raise ValueError(f"it has one run. Received: run={run!r}")
                    columns = read_arrays(
                        path, required=("loss", "rates", "step"), optional=("batch_size", "tokens", "model_parameters")
                    )
                else:
                    columns = recorded.read(path, run)
                return cls(**columns, name=path.stem)
        except SeveralRunsError as error:
            raise ValueError(f"The file is not one curve: {error}. Received: path={str(path)!r}, run={run!r}") from error
        except ValueError as error:
            raise ValueError(f"{error}. `LossCurve.read` takes the logs of other programs, too") from error

    def save(self, path: str | os.PathLike) -> None:
        """Write the curve into a file whose name ends in `.npz`; `load` takes other files for tables."""
        if Path(path).suffix != ".npz":
            raise ValueError(f"A curve is written into an .npz file. Received: path={str(path)!r}")
        names = (*recorded.COLUMNS, "rates", "model_parameters")
        columns = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        with Path(path).expanduser().open("wb") as file:
            np.savez_compressed(file, **columns)

    def between(self, first: int, last: int | None = None) -> Self:
        """The points at updates `first` and later, and before `last`; the rates stay those of the whole run."""
        return self._at(np.flatnonzero((self.step >= first) & (self.step < (np.inf if last is None else last))))

    def smooth(self, width: int) -> Self:
        """The curve of running means over `width` points; the points at either end, which have fewer neighbors, go."""
        width = validation.positive_int("width", width)
        if width > len(self.loss):
            raise ValueError(f"`width` must be at most the points of the curve, {len(self.loss)}. Received: width={width}")
        sums = np.concatenate([[0.0], np.cumsum(self.loss)])
        middle = self._at(np.arange((width - 1) // 2, len(self.loss) - width // 2))
        return replace(middle, loss=(sums[width:] - sums[:-width]) / width)

    def subsample(self, points: int) -> Self:
        """The curve in `points` equal pieces, each with the mean loss of its updates, placed at their middle."""
        points = min(validation.positive_int("points", points), len(self.loss))
        ends = np.linspace(0, len(self.loss), points + 1).astype(int)
        means = np.add.reduceat(self.loss, ends[:-1]) / np.diff(ends)
        return replace(self._at((ends[:-1] + ends[1:] - 1) // 2), loss=means)

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """Draw the loss; options go to Matplotlib. Return the axes."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        ax.plot(self.step, self.loss, **({"label": self.name} | options))
        ax.set_xlabel("updates")
        ax.set_ylabel("loss")
        return ax

    def _at(self, points: np.ndarray) -> Self:
        columns = {name: getattr(self, name) for name in recorded.COLUMNS}
        return replace(self, **{name: column[points] for name, column in columns.items() if column is not None})

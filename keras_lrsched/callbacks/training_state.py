"""A run that is killed at any moment goes on, when it is started again, as if it had not been."""

from pathlib import Path
from typing import Any

import keras

from keras_lrsched._core import training_loop
from keras_lrsched.callbacks import callback_state, model_parts, state_file
from keras_lrsched.callbacks.snapshot import Snapshot, random_state, restore_random_state, restore_torch_random_state
from keras_lrsched.optimizers import native
from keras_lrsched.schedules import checks


class TrainingState(keras.callbacks.Callback):
    """Saves all state of a run to one file, and goes on from that file when the same script is started again.

    The file holds weights, seeds of layers, all variables of the optimizer, the running means of the epoch, the state of
    the other callbacks, the place in the data, the random state of Python, NumPy and Keras, and the history. On a CPU, a
    run that is killed and started again ends with the same weights, bit for bit, as one that was not.

    The file is replaced in one step and carries a checksum, and the one before is kept as `path` + `".old"`: a process that
    is killed while it writes, or a disk that is full, leaves the last good file. If the newest is damaged, the run goes on
    from the older one, with a warning that names both.

    The data must be `ScheduledBatches`, or any `PyDataset` with the methods `state`, `restore_state` and `trained`, to be
    resumed within an epoch. With other data, `every` is `"epoch"`; what order these data have in a resumed run is theirs
    to decide, so give `shuffle=False` to `fit`, or shuffle by the number of the epoch.

    Where several processes train together, the first of them writes the file, and all must find it when they start again.

    Of the other callbacks in the same `fit`, those with methods `state` and `restore_state` are saved by these. Of any
    other (`EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint`, ...), all attributes are that are numbers, NumPy arrays,
    or lists and dictionaries of such and of strings; a string by itself, such as a path, stays what the script says. It has
    to come last in the list of callbacks.

    A finished run that is started again trains nothing and has the final weights. The file is read as data only: it cannot
    run code. If neither copy is whole, that is an error and not a fresh start; to train from the start, remove the file. The
    model and its optimizer must have the layers, settings and variables that they had.

    Args:
        path: The file; its folder is made.
        every: How many updates (training steps) lie between two savings: a positive integer; or `"epoch"`. The end of
            training is saved in any case, and a saving due at the last step of an epoch waits for the epoch's end.
            Defaults to `"epoch"`.

    Raises:
        ValueError: At construction, if an argument is not of its kind. When `fit` begins, if it is not the last callback,
            if the data cannot be resumed as `every` asks, or if the file is damaged or belongs to another script or model;
            the first difference is named.
        OSError: If the file cannot be written, as on a full disk. The state that was saved before is kept.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from keras_lrsched.callbacks import ScheduledBatches
    >>> path = tempfile.mkdtemp() + "/run.state"
    >>> def script(epochs):
    ...     model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    ...     model.compile("adam", loss="mse")
    ...     batches = ScheduledBatches(np.ones((6, 1)), np.ones((6, 1)), batch_size=2)
    ...     model.fit(batches, epochs=epochs, verbose=0, callbacks=[TrainingState(path, every=2)])
    ...     return int(model.optimizer.iterations)
    >>> script(epochs=1), script(epochs=3)
    (3, 9)
    """

    def __init__(self, path, every="epoch"):
        super().__init__()
        self.path = Path(path)
        self.every = every if every == "epoch" else checks.positive_int("every", every)

    def on_train_begin(self, logs=None):
        self._find_companions()
        self._parts = model_parts.describe(self.model)
        self._step = self._offset = 0
        self._due, self._torch = False, []
        self._pending: Any = state_file.read(self.path) if self.path.exists() else None
        if self._pending is not None:
            self._check(self._pending)
        self._compare_workers()
        if self._pending is not None:
            self._build()
            self._restore(self._pending)
            self._step = self._pending["step"]
            stopped = self._pending["stopped"]
            self.model._initial_epoch = self.params["epochs"] if stopped else self._pending["epoch"]

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._offset = epoch, 0
        if self._pending is not None:
            if self._pending["batch"]:
                # This epoch has begun before, and what callbacks did then must not be done twice.
                self._restore(self._pending)
                self._offset = self._pending["batch"]
                self._torch = self._pending["random"]["torch"]
            self._restore_history()

    def on_train_batch_begin(self, batch, logs=None):
        if self._torch:  # PyTorch's DataLoader has drawn a number since the epoch began
            restore_torch_random_state(self._torch)
            self._torch = []

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        if self._data is not None:
            self._data.trained(batch + 1)
        if self.every != "epoch" and self._step % self.every == 0:
            self._due = True
            if batch + 1 < len(self._data):
                self._save(self._epoch, self._offset + batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 >= self.params["epochs"] or self.model.stop_training
        if self._due or last or self.every == "epoch":
            self._save(epoch + 1, 0, logs)

    def on_train_end(self, logs=None):
        if self._pending is not None:  # there was nothing left to train
            self._restore_history()
        self.model._initial_epoch = None

    def _find_companions(self):
        everyone = training_loop.callback_list().callbacks
        place = everyone.index(self)
        self._companions = everyone[:place]
        self._history = next((it for it in everyone[place:] if isinstance(it, keras.callbacks.History)), None)
        later = [type(it).__name__ for it in everyone[place + 1 :] if not isinstance(it, _KERAS_ADDS)]
        if later:
            raise ValueError(f"TrainingState must be the last of the callbacks. Received: {', '.join(later)} after it")
        data: Any = training_loop.dataset()
        self._data: Any = data if all(hasattr(data, name) for name in ("state", "restore_state", "trained")) else None
        if self.every == "epoch":
            return
        if self._data is None:
            raise ValueError(
                "To be resumed within an epoch, the data must be `ScheduledBatches`; with other data, save every "
                f'"epoch". Received: every={self.every}'
            )
        if self.model.steps_per_execution != 1:
            raise ValueError(
                'TrainingState cannot count updates, so save every "epoch". '
                f"Received: every={self.every}, steps_per_execution={self.model.steps_per_execution}"
            )

    def _compare_workers(self):
        steps = native.of_all_workers(self.model, -1 if self._pending is None else self._pending["step"])
        if len(set(steps)) > 1:
            found = ", ".join("no file" if step < 0 else f"step {step}" for step in steps)
            raise ValueError(f"All workers must find the same file. Received: path={str(self.path)!r}, by worker {found}")

    def _check(self, state):
        if not isinstance(state, dict) or state.keys() != _ENTRIES:
            raise ValueError(f"The file holds something else than the state of a run. Received: path={str(self.path)!r}")
        names = [type(it).__name__ for it in self._companions]
        saved = [name for name, _ in state["callbacks"]]
        if names != saved:
            raise ValueError(
                f"The saved run had other callbacks: {', '.join(saved) or 'none'}. Received: {', '.join(names) or 'none'}"
            )
        if (state["data"] is None) != (self._data is None):
            raise ValueError(f"The saved run had data of another kind. Received: path={str(self.path)!r}")

        model_parts.check(self._parts, state["parts"])

    def _build(self):
        """Makes the variables that TensorFlow would only make at the first step."""
        if self._data is not None and hasattr(self.model, "_symbolic_build"):
            self.model._symbolic_build(data_batch=self._data[0])

    def _save(self, epoch, batch, logs=None):
        self._due = False
        model = self.model
        state = {
            "epoch": epoch,
            "batch": batch,
            "step": self._step,
            "stopped": bool(model.stop_training),
            "parts": self._parts,
            "model": Snapshot(model, metrics=batch > 0).state(),
            "random": random_state(),
            "data": None if self._data is None else self._data.state(),
            "callbacks": [(type(it).__name__, callback_state.get(it)) for it in self._companions],
            "history": None
            if self._history is None
            else callback_state.with_epoch(callback_state.get(self._history), epoch - 1, logs),
        }
        if native.is_first_worker(model):
            state_file.write(self.path, state)

    def _restore(self, state):
        Snapshot.from_state(self.model, state["model"]).restore()
        if self._data is not None:
            self._data.restore_state(state["data"])
        for callback, (_, saved) in zip(self._companions, state["callbacks"], strict=True):
            callback_state.restore(callback, saved)
        restore_random_state(state["random"])

    def _restore_history(self):
        """Keras adds it behind this callback, so it has just been emptied."""
        if self._history is not None and self._pending["history"] is not None:
            callback_state.restore(self._history, self._pending["history"])
        self._pending = None


_ENTRIES = {"epoch", "batch", "step", "stopped", "parts", "model", "random", "data", "callbacks", "history"}

_KERAS_ADDS = (keras.callbacks.History, keras.callbacks.ProgbarLogger)

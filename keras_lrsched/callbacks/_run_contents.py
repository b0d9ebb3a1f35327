"""The contents of a file of `TrainingState`: the states of model, callbacks, data and random numbers of a run."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import backends, keras_private, plain, training_loop
from keras_lrsched._core.random_state import random_state, restore_random_state
from keras_lrsched._core.tracked_state import TrackedState
from keras_lrsched.callbacks import _run_settings
from keras_lrsched.callbacks.snapshot import Snapshot, known_of
from keras_lrsched.data import _fit_data


def can_be_resumed(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("state", "restore_state", "trained"))


def other_callbacks(leave_out: type) -> dict[str, Any]:
    """The callbacks of the running `fit` but for one class, by their names, numbered where several are of one class.

    Raises:
        ValueError: If `BackupAndRestore` is among them.
    """
    running = training_loop.callback_list()
    found: dict[str, Any] = {}
    for each in [] if running is None else running.callbacks:
        if isinstance(each, (keras.callbacks.ProgbarLogger, leave_out)):
            continue
        if isinstance(each, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "TrainingState and BackupAndRestore both continue an earlier run: leave one out. "
                f"Received: {each!r} in the same `fit`"
            )
        name = type(each).__name__
        number = sum(type(it) is type(each) for it in found.values())
        found[f"{name}{number + 1 if number else ''}"] = each
    return found


class RunContents:
    """The settings of a run, and its state as far as it is saved.

    Args:
        model: The model, whose variables exist.
        callbacks: The other callbacks, by name.
        data: The data, if they can be resumed; else `None`.
        owner: The `TrainingState`, which is not part of the state.

    Attributes:
        settings: The settings of the script, by dotted path.
        arguments: The arguments of the other callbacks, by name.
        without_a_place: The paths of what the last `restore` could not restore.
    """

    def __init__(self, model: keras.Model, callbacks: dict[str, Any], data: Any, owner: keras.callbacks.Callback) -> None:
        self._model, self._callbacks, self._data = model, callbacks, data
        self._iterator = training_loop.epoch_iterator()
        self.without_a_place: list[str] = []
        of_data = {} if self._iterator is None else _fit_data.description(self._iterator)
        self.settings = _run_settings.describe(model, of_data)
        draws = backends.all_gather(model, int(plain.digest(random_state())[:7], 16))
        self._draws_differ = len(set(draws)) > 1
        self.settings["workers"] = len(draws)
        self.settings["callbacks"] = [type(it).__name__ for it in self._callbacks.values()]
        self.arguments = {name: _run_settings.of_callback(it) for name, it in self._callbacks.items()}
        self._rates = _learning_rates(model)
        stateless = {name: it for name, it in self._callbacks.items() if not _has_state(it)}
        kind, fitted = ("other", None)
        if self._iterator is not None:
            kind, fitted = keras_private.data_of_adapter(self._iterator.data_adapter)
        roots = {"model": model, **stateless}
        if self._data is None and kind in ("PyDataset", "tf.data", "DataLoader"):
            roots["data"] = fitted
        with_state = [it for it in self._callbacks.values() if _has_state(it)]
        known = [*known_of(model), owner, self._data, *with_state]
        self._tracked = TrackedState(roots, known, model.variables)

    def report(self) -> dict[str, Any]:
        """See `TrainingState.report`."""
        saved = ["model.variables", "model.optimizer", "random numbers of Python, NumPy, Keras and the backend", "history"]
        saved += [name for name, callback in self._callbacks.items() if _has_state(callback)]
        saved += ["data"] if self._data is not None else []
        paths = self._tracked.paths()
        saved += [path for kind in ("variables", "generator") for path in paths.get(kind, ())]
        derived = dict.fromkeys(paths.get("value", ()), "the script's, unless training changes it")
        derived |= dict.fromkeys(self.settings, "the script's")
        return {"saved": saved, "derived": derived, "unknown": self.unknown()}

    def unknown(self) -> dict[str, str]:
        """State that can be neither saved nor derived: a dictionary from paths to reasons."""
        unknown = dict(self._tracked.unknown)
        if self._draws_differ:
            unknown["random numbers"] = "those of other processes than the first, which has another state of them"
        if self._data is None and self._iterator is not None:
            unknown |= _fit_data.unsaved_order(self._iterator)
        unknown |= {
            f"{operation} in the training step": "random numbers of TensorFlow, unlike those of `keras.random`"
            for operation in _fit_data.random_operations(self._model)
        }
        return unknown

    def state(self, within_epoch: bool) -> dict[str, Any]:
        """The entries of the file that hold state.

        Args:
            within_epoch: Whether the metrics are part of it.
        """
        return {
            "settings": self.settings,
            "arguments": self.arguments,
            "model": Snapshot(self._model, metrics=within_epoch, others=False).state(),
            "tracked": self._tracked.state(),
            "random": random_state(),
            "data": None if self._data is None else self._data.state(),
            "callbacks": {name: _state(it) for name, it in self._callbacks.items()},
        }

    def restore(self, state: dict[str, Any], allow_changes: tuple[str, ...]) -> None:
        """Restore what `state` has returned, but for settings that may have changed and are other ones now."""
        model = self._model
        changed = _run_settings.differences(self.settings, state["settings"])
        of_model = state["model"]
        if "optimizer.class" in changed:  # as `allow_changes` says: what another optimizer has is of no use to this one
            of_model = {kind: value for kind, value in of_model.items() if kind not in ("optimizer", "trained")}
            model.optimizer.iterations.assign(state["model"]["optimizer"][0])
        Snapshot.from_state(model, of_model).restore()
        for name, (optimizer, rate) in self._rates.items():
            if f"{name}.learning_rate" in changed and _run_settings.is_allowed(f"{name}.learning_rate", allow_changes):
                optimizer.learning_rate = rate
        self._restore_data(state, changed)
        for name, saved in state["callbacks"].items():
            if name in self._callbacks:
                _restore_state(self._callbacks[name], saved)
        self.without_a_place = self._tracked.restore(state["tracked"])
        restore_random_state(state["random"])

    def _restore_data(self, state: dict[str, Any], changed: list[str]) -> None:
        if any(path.startswith("data.") and path != "data.first_batch" for path in changed):
            if state["batch"]:
                raise ValueError(
                    "The run was saved within an epoch, where only the same data can continue. "
                    f"Received: other data, and batch {state['batch']} of the epoch"
                )
            return
        if (state["data"] is None) != (self._data is None):
            kind = "cannot" if self._data is None else "can"
            raise ValueError(f"The saved run had data of another kind. Received: data that {kind} be resumed")
        if self._data is not None:
            self._data.restore_state(state["data"])

    def restore_history(self, saved: Any) -> None:
        """Restore the history of an earlier run."""
        for callback in self._callbacks.values():
            if isinstance(callback, keras.callbacks.History):
                _restore_state(callback, saved)


def _learning_rates(model: keras.Model) -> dict[str, tuple[Any, float]]:
    """The optimizers whose learning rate is a variable, with its value, by name."""
    found = {}
    for name, optimizer in _run_settings.optimizers_of(model).items():
        rate = optimizer.get_config().get("learning_rate")
        if isinstance(rate, (float, np.floating)):
            found[name] = (optimizer, float(rate))
    return found


def _has_state(callback: Any) -> bool:
    return (hasattr(callback, "state") and hasattr(callback, "restore_state")) or isinstance(
        callback, (keras.callbacks.History, keras.callbacks.CSVLogger)
    )


def _state(callback: Any) -> Any:
    if isinstance(callback, keras.callbacks.History):
        columns = {name: [_plain(value) for value in column] for name, column in callback.history.items()}
        return {"history": columns, "epoch": [int(epoch) for epoch in callback.epoch]}
    if isinstance(callback, keras.callbacks.CSVLogger):
        callback.csv_file.flush()
        keys = None if callback.keys is None else list(callback.keys)
        return {"content": Path(callback.filename).read_text(), "keys": keys}
    return callback.state() if _has_state(callback) else None


def _restore_state(callback: Any, state: dict[str, Any]) -> None:
    if isinstance(callback, keras.callbacks.History):
        callback.history, callback.epoch = plain.copied(state["history"]), list(state["epoch"])
    elif isinstance(callback, keras.callbacks.CSVLogger):
        _restore_csv(callback, state)
    elif _has_state(callback):
        callback.restore_state(state)


def _restore_csv(callback: Any, state: dict[str, Any]) -> None:
    """Let a `CSVLogger` continue after the lines that it had written when the state was saved."""
    callback.csv_file.close()
    Path(callback.filename).write_text(state["content"])
    callback.csv_file = open(callback.filename, "a", newline="")  # noqa: SIM115 - Keras closes it
    callback.keys, callback.writer, callback.append_header = state["keys"], None, not state["content"]


def _plain(value: Any) -> Any:
    """An entry of the history, into which callbacks of the user may put anything."""
    if plain.is_plain(value):
        return value
    try:
        array = np.array(ops.convert_to_numpy(value))
    except Exception:
        return str(value)
    return array.item() if array.ndim == 0 else array

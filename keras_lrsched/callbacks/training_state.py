"""Exact resumption of a run that was killed at any moment."""

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import keras

from keras_lrsched._core import (
    backends,
    checkpoint_file,
    interrupts,
    keras_private,
    runs,
    training_loop,
    validation,
)
from keras_lrsched._core.random_state import restore_torch_random_state
from keras_lrsched._core.registry import register
from keras_lrsched.callbacks import _run_settings
from keras_lrsched.callbacks._run_contents import RunContents, can_be_resumed, other_callbacks


@register(
    title="Exact resumption",
    kind="checkpoint",
)
class TrainingState(keras.callbacks.Callback):
    """Checkpoint of all state of a run, from which it continues exactly when the same script is started again.

    On a CPU, a run that is killed and started again ends with the same weights, bit for bit, as one that was not; where that
    cannot be, a warning names what is not saved. The file holds

    - the variables of the model, its metrics, and all optimizers that are attributes of the model, at any depth;
    - the states of stateful RNNs, the buffers of PyTorch modules, `tf.Variable`s that are attributes;
    - the generators of random numbers of Python, NumPy, Keras and PyTorch, and all that hang on the model, its loss, its
      layers, the callbacks and the data, or that functions of these refer to;
    - attributes of these objects (numbers, arrays, lists, sets, deques, dictionaries) that the training has changed; what it
      leaves as it was, such as `patience` or an array of validation images, remains as in the script;
    - the state of callbacks that have the methods `state` and `restore_state`, the history, and the file of a `CSVLogger`;
    - the place in the data, for `ScheduledBatches` and any data with the methods `state`, `restore_state` and `trained`.

    Such data can be resumed within an epoch. With other data, `every` is `"epoch"`. `report()` lists all of it.

    A saved run is continued only by the same script. Settings are compared with those of the saved run: of layers, their
    wiring and code, of all optimizers, the loss, the metrics, the data and their first batch, the seed. The first difference
    raises, unless `allow_changes` names it: then the run continues with the values of the script. `epochs`, the arguments of
    other callbacks, and validation data follow the script. To train for longer, raise `epochs`; a run that `EarlyStopping`
    has ended continues if `epochs` or an argument of a callback is another one.

    A finished run that is started again trains nothing and has the final weights. Within one process, each further `fit` of
    the same model is a run of its own with the same path, as in a loop of `fit(epochs=1)`. When the script is started again,
    those that were finished train nothing, and the code between them gets the weights of the latest. A finished run of
    another model in the same process, such as the one of the fold before, is an error: give each fold a path.

    The file is replaced in one step and carries a checksum, and the one before is kept as `path` + `".old"`: a process that
    is killed while it writes, or a disk that is full, leaves the last good file. If the newest is damaged, the run continues
    from the older one, with a warning that names both. If neither copy is whole, that is an error and not a fresh start; to
    train from the start, remove the file. It is read as data only: it cannot run code. While a process trains, others that
    are given the same path raise.

    At Ctrl-C (SIGINT) and SIGTERM the batch is ended and, where the data can be resumed within an epoch, saved; then the
    program ends as it would have.

    Where several processes train together, the first of them writes the file, and all must find it when they start again.
    The place in the list of callbacks is of no importance: it is called last.

    Args:
        path: The file; its folder is made.
        every: How many training steps lie between two savings: a positive integer; or `"epoch"`. The end of training is
            saved in any case, and a saving due at the last step of an epoch waits for the epoch's end. Defaults to
            `"epoch"`.
        data: The `ScheduledBatches` (or other object with `state`, `restore_state` and `trained`) behind the data that `fit`
            is given in another form, such as a `tf.data.Dataset` made of it. Defaults to `None`: what `fit` is given.
        allow_changes: Dotted paths of settings that may differ from the saved run's, such as `["optimizer.learning_rate"]`,
            `["loss"]`, `["data"]`; a path stands for all that it leads to. Defaults to `()`.
        strict: Whether to raise where it would warn of state that cannot be saved. Defaults to `False`.

    Raises:
        ValueError: At construction, if an argument is not of its kind. When `fit` begins: if the data cannot be resumed as
            `every` asks; if the file is damaged, has another format, or belongs to another script or model, with the first
            difference; if another process or another model of this process uses it; beside `BackupAndRestore`; with
            `strict`, if there is state that cannot be saved.
        OSError: If the file cannot be written, as on a full disk. The state that was saved before is kept.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> from keras_lrsched.data import ScheduledBatches
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

    def __init__(
        self,
        path: str | PathLike,
        every: int | Literal["epoch"] = "epoch",
        data: Any = None,
        allow_changes: Sequence[str] = (),
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.path = Path(path).expanduser()
        self.every = every if every == "epoch" else validation.positive_int("every", every)
        if data is not None and not can_be_resumed(data):
            raise ValueError(
                "`data` must have the methods `state`, `restore_state` and `trained`, as ScheduledBatches have. "
                f"Received: data={data!r}"
            )
        self.data = data
        if isinstance(allow_changes, str) or not all(isinstance(each, str) for each in allow_changes):
            raise ValueError(
                f'`allow_changes` must be a list of paths, such as ["optimizer"]. Received: allow_changes={allow_changes!r}'
            )
        self.allow_changes = tuple(allow_changes)
        self.strict = strict
        self._clear()

    def __reduce__(self) -> tuple:
        """A copy, which another run is given, has the settings and nothing of the run of this one."""
        return type(self), (self.path, self.every, self.data, self.allow_changes, self.strict)

    def __deepcopy__(self, memo: Any) -> "TrainingState":
        """Also a tuner's copy goes with the data that `fit` reads, which it does not copy."""
        kind, settings = self.__reduce__()
        return kind(*settings)

    def _clear(self) -> None:
        self._pending: Any = None
        self._contents: Any = None
        self._run: Any = None
        self._watch: Any = None
        self._warned: set[str] = set()

    def report(self) -> dict[str, Any]:
        """List the state that is saved, that follows from the script, and that can be neither saved nor derived.

        Returns:
            A dictionary: `"saved"` is a list of paths, `"derived"` and `"unknown"` are dictionaries from paths to reasons.

        Raises:
            ValueError: Before `fit` has begun.
        """
        if self._contents is None:
            raise ValueError("There is nothing to report before `fit` has begun.")
        return self._contents.report()

    # What Keras calls

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        training_loop.place_last(self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._clear()
        callbacks, data = (
            other_callbacks(leave_out=TrainingState),
            self.data if self.data is not None else training_loop.dataset(),
        )
        self._data: Any = data if can_be_resumed(data) else None
        self._check_every()
        training_loop.build(self.model)
        self._contents = RunContents(self.model, callbacks, self._data, self)
        self._step = self._offset = self._epoch = 0
        self._due = False
        self._torch: list = []
        if backends.is_first_worker(self.model):
            runs.lock(self.path, training_loop.callback_list())
        try:
            self._begin_run()
            if self.strict:
                training_loop.trace(self.model)  # which shows what the step draws from
            self._warn_of_unknown()
        except Exception:
            runs.unlock(self.path)
            raise
        self._watch = interrupts.Watch()
        self._watch.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch, self._offset = epoch, 0
        if self._pending is not None:
            # What callbacks did in `on_epoch_begin`, the saved run has done, if it had begun this epoch; and callbacks may
            # make attributes there that are restored now.
            if self._pending["batch"]:
                self._restore(self._pending)
                self._offset = self._pending["batch"]
                self._torch = self._pending["random"]["torch"]
            self._warn_of_missing_places()
            self._pending = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._torch:  # PyTorch's DataLoader has drawn a number since the epoch began
            restore_torch_random_state(self._torch)
            self._torch = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._step += 1
        if self._data is not None:
            self._data.trained(batch + 1)
        if self.every != "epoch" and self._step % self.every == 0:
            self._due = True
        requested = self._watch.requested  # read once: nothing is raised that is not saved
        if (self._due or requested) and self._is_within_epoch(batch):
            self._save(self._epoch, self._offset + batch + 1)
        if requested and not self._waits_for_the_end(batch):
            self._watch.raise_if_requested()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        last = epoch + 1 >= self.params["epochs"] or self.model.stop_training
        requested = self._watch.requested
        if self._due or last or self.every == "epoch" or requested:
            self._save(epoch + 1, 0, finished=last)
        if requested:
            self._watch.raise_if_requested()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        keras_private.set_initial_epoch(self.model, None)
        self._run.finished = True
        runs.unlock(self.path)
        self._pending = None
        self._watch.stop()

    def _is_within_epoch(self, batch: Any) -> bool:
        """Whether the run can be saved at this batch: the last one of an epoch waits for the epoch's end."""
        resumable = self._data is not None and self.model.steps_per_execution == 1
        return resumable and not self._waits_for_the_end(batch)

    def _waits_for_the_end(self, batch: Any) -> bool:
        return self._data is not None and batch + 1 >= len(self._data)

    # Before training

    def _check_every(self) -> None:
        """Refuse to save within an epoch that cannot be resumed there."""
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

    def _begin_run(self) -> None:
        previous = runs.previous_run(self.path)
        is_same = previous is not None and previous.model() is self.model
        self._pending = checkpoint_file.read(self.path) if self.path.exists() else None
        number = 0
        if is_same and self._pending is not None:
            number = previous.number + (1 if previous.finished else 0)
        self._fits: list = []
        if self._pending is not None and not (isinstance(self._pending, dict) and self._pending.keys() == _ENTRIES):
            raise ValueError(f"The file holds something else than the state of a run. Received: path={str(self.path)!r}")
        self._compare_workers()
        if self._pending is not None:
            is_foreign = previous is not None and not is_same
            self._continue(number, is_foreign)
        self._run = runs.begin(self.path, self.model, number)

    def _continue(self, number: int, is_foreign: bool) -> None:
        """Go on with run `number` of this path, as far as the file has come."""
        state = self._pending
        self._fits = state["fits"][:number]
        if state["fit"] < number:  # a further `fit` of the model that this process has trained
            self._fits = [*state["fits"], _ended(state)][:number]
            self._pending = None
            return
        if is_foreign and state["finished"] and not self._goes_on(state):
            raise ValueError(
                "The file holds the finished run of another model of this process, such as that of the fold before. Give "
                f"each model a path of its own, or remove the file. Received: path={str(self.path)!r}"
            )
        then = state if state["fit"] == number else state["fits"][number]
        # Of several processes each has data of its own; the file has those of the first.
        allowed = self.allow_changes if backends.is_first_worker(self.model) else (*self.allow_changes, "data", "seed")
        _run_settings.check(_compared(self._contents.settings, number), _compared(then["settings"], number), allowed)
        self._restore(state)
        self._step = state["step"]
        epochs = self.params["epochs"]
        if state["fit"] > number:
            self._contents.restore_history(then["history"])
            warnings.warn(
                f"Run {number + 1} with {str(self.path)!r} was finished by an earlier process, and trains nothing. Until "
                f"run {state['fit'] + 1} continues, code between them gets the weights of that run",
                stacklevel=2,
            )
            keras_private.set_initial_epoch(self.model, epochs)
        elif state["finished"] and not self._goes_on(state):
            keras_private.set_initial_epoch(self.model, epochs)
        else:
            keras_private.set_initial_epoch(self.model, state["epoch"])

    def _goes_on(self, state: dict[str, Any]) -> bool:
        """Whether there is something to train after a finished run."""
        epochs = self.params["epochs"]
        if state["stopped"]:
            return epochs > state["epochs"] or (epochs > state["epoch"] and self._contents.arguments != state["arguments"])
        return epochs > state["epoch"]

    def _compare_workers(self) -> None:
        steps = backends.all_gather(self.model, -1 if self._pending is None else self._pending["step"])
        if len(set(steps)) > 1:
            found = ", ".join("no file" if step < 0 else f"step {step}" for step in steps)
            raise ValueError(f"All workers must find the same file. Received: path={str(self.path)!r}, by worker {found}")

    # What cannot be saved

    def _warn_of_unknown(self) -> None:
        unknown = {path: reason for path, reason in self._contents.unknown().items() if path not in self._warned}
        if not unknown:
            return
        self._warned |= set(unknown)
        listed = "; ".join(f"`{path}`, {reason}" for path, reason in unknown.items())
        message = f"A resumed run will not be exactly the one that was not disturbed. TrainingState cannot save: {listed}"
        if self.strict:
            raise ValueError(f"{message}. Received: strict=True")
        warnings.warn(message, stacklevel=2)

    def _warn_of_missing_places(self) -> None:
        missing = self._contents.without_a_place
        if missing:
            warnings.warn(f"Saved state that this run has no place for: {', '.join(missing)}", stacklevel=2)

    # Saving

    def _save(self, epoch: int, batch: Any, finished: bool = False) -> None:
        self._due = False
        model = self.model
        state = {
            "fit": self._run.number,
            "fits": self._fits,
            "epoch": epoch,
            "epochs": self.params["epochs"],
            "batch": batch,
            "step": self._step,
            "finished": bool(finished),
            "stopped": bool(model.stop_training),
            **self._contents.state(within_epoch=batch > 0),
        }
        self._warn_of_unknown()
        if backends.is_first_worker(model):
            checkpoint_file.write(self.path, state)

    def _restore(self, state: dict[str, Any]) -> None:
        _ = self.model  # on JAX, this takes all state out of the compiled step
        self._contents.restore(state, self.allow_changes)


_ENTRIES = {
    *("fit", "fits", "epoch", "epochs", "batch", "step", "finished", "stopped", "settings", "arguments"),
    *("model", "tracked", "random", "data", "callbacks"),
}


def _ended(state: dict[str, Any]) -> dict[str, Any]:
    """The entries that are kept of a run when another one with the same path begins."""
    history = next((saved for saved in state["callbacks"].values() if isinstance(saved, dict) and "history" in saved), None)
    return {"settings": state["settings"], "history": history}


def _compared(settings: dict[str, Any], number: int) -> dict[str, Any]:
    """The settings to be compared: in a further run, some are what the one before has left."""
    if number == 0:
        return settings
    return {path: it for path, it in settings.items() if not path.endswith((".learning_rate", "data.first_batch"))}

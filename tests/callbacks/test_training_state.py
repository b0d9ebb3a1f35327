"""Runs that stop at any step and are started again with the same script; damaged files; what is refused."""

import collections
import contextlib
import copy
import fcntl
import hashlib
import json
import pickle
import random
import resource
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_lrsched._core import checkpoint_file, plain, runs
from keras_lrsched.callbacks import Controller, LossRecorder, TrainingState
from keras_lrsched.data import ScheduledBatches
from tests.contract.backends import BACKEND, JIT
from tests.nightly import nightly, some

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(22, 3)), RANDOM.normal(size=(22, 1))
EPOCHS, STEPS = 3, 18
EAGERLY = BACKEND == "tensorflow"
"""Whether runs here are eager: most have fewer steps than tracing is worth. The contract suite resumes traced runs."""


class Interrupts(keras.callbacks.Callback):
    """Ends the run before a step, or at an epoch's end; has to come first."""

    def __init__(self, step=None, epoch=None):
        super().__init__()
        self.remaining, self.epoch = step, epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.remaining is not None:
            self.remaining -= 1
            if self.remaining < 0:
                raise InterruptedError

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise InterruptedError

    def state(self):
        return {}

    def restore_state(self, state):
        pass


class Draws(Controller):
    """Sets a random learning rate from each of the three global generators, and counts the epochs that begin."""

    saved = ("rates", "begun")

    def __init__(self):
        super().__init__(monitor=("loss", "mae"))
        self.rates, self.begun = [], 0

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.begun += 1

    def after_update(self):
        draw = float(keras.ops.convert_to_numpy(keras.random.uniform(())))
        self.learning_rate = 0.01 * (random.random() + np.random.uniform() + draw + self.loss)
        self.rates.append([self.learning_rate, self.loss, self.values["mae"]])


def script(path=None, every="epoch", interrupt=None, callbacks=None, data=None, jit=False, epochs=EPOCHS, **options):
    """Run the script that a user would run again. Returns all that it leaves, or `None` if it was interrupted."""
    runs.forget()  # as if each run had a process of its own
    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(4, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((3,)), *layers])
    eagerly = EAGERLY and not jit
    model.compile(keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"], jit_compile=jit, run_eagerly=eagerly)
    data = ScheduledBatches(X, Y, batch_size=4, seed=1) if data is None else data
    others = [Draws(), LossRecorder()] if callbacks is None else callbacks()
    given = [interrupt or Interrupts(), *others, *([TrainingState(path, every)] if path else [])]
    try:
        history = model.fit(data, epochs=epochs, verbose=0, callbacks=given, validation_data=(X, Y), **options)
    except InterruptedError:
        return None
    variables = [np.array(variable.numpy()) for variable in [*model.variables, *model.optimizer.variables]]
    states = [
        vars(it).get(name) for it in others for name in ("rates", "begun", "loss", "learning_rate", "batch_size", "wait")
    ]
    return {"variables": variables, "states": states, "history": history.history, "epochs": history.epoch}


def assert_same(one, other):
    for left, right in zip(one["variables"], other["variables"], strict=True):
        np.testing.assert_array_equal(left, right)
    assert {**one, "variables": 0} == {**other, "variables": 0}


@pytest.fixture(scope="module")
def undisturbed():
    return script()


@pytest.mark.parametrize("every", some([4, 1, "epoch"]))
def test_interrupted_at_any_step(every, undisturbed, tmp_path):
    for steps in [1, 5, 1, 3, 6]:
        assert script(tmp_path / "state", every, Interrupts(steps)) is None
    if every == 1:
        assert checkpoint_file.read(tmp_path / "state")["step"] == 1 + 5 + 1 + 3 + 6
    assert_same(script(tmp_path / "state", every), undisturbed)


def test_interrupted_at_the_end_of_an_epoch(undisturbed, tmp_path):
    assert script(tmp_path / "state", 1, Interrupts(epoch=0)) is None
    assert script(tmp_path / "state", 1, Interrupts(epoch=1)) is None
    assert_same(script(tmp_path / "state", 1), undisturbed)


@pytest.mark.skipif(True not in JIT, reason="this backend does not compile the training step")
@nightly
def test_compiled(tmp_path):
    def run(path=None, interrupt=None):
        data = ScheduledBatches(X[:20], Y[:20], batch_size=4, seed=1)  # of one size, for which alone it is compiled
        return script(path, 2, interrupt, data=data, jit=True)

    assert run(tmp_path / "state", Interrupts(8)) is None
    assert_same(run(tmp_path / "state"), run())


def test_saving_changes_nothing_and_a_finished_run_stays(undisturbed, tmp_path):
    assert_same(script(tmp_path / "new" / "state", 5), undisturbed)
    assert_same(script(tmp_path / "new" / "state", 5), undisturbed)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["state", "state.old"]


@nightly
def test_more_epochs(undisturbed, tmp_path):
    script(tmp_path / "state", epochs=1)
    assert_same(script(tmp_path / "state"), undisturbed)


def plateau_and_stopping():
    return [
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=1.0, factor=0.5),
        keras.callbacks.EarlyStopping("val_mae", patience=2, min_delta=1.0, mode="min", restore_best_weights=True),
    ]


@nightly
@pytest.mark.parametrize("steps", some([16, 7, 10]))
def test_callbacks_of_keras(steps, tmp_path):
    whole = script(callbacks=plateau_and_stopping, epochs=6)
    assert whole["epochs"] == [0, 1, 2]
    assert script(tmp_path / "state", 2, Interrupts(steps), plateau_and_stopping, epochs=6) is None
    assert_same(script(tmp_path / "state", 2, callbacks=plateau_and_stopping, epochs=6), whole)
    again = script(tmp_path / "state", 2, callbacks=plateau_and_stopping, epochs=6)  # does not train after the early stop
    assert again["history"] == whole["history"]


@pytest.mark.parametrize("interrupt", [Interrupts(8), Interrupts(epoch=1)])
@nightly
def test_arrays_at_the_end_of_an_epoch(interrupt, tmp_path):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, i):
            return X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4]

    data = {"data": Batches(), "shuffle": False}
    assert script(tmp_path / "state", "epoch", copy.copy(interrupt), **data) is None
    assert_same(script(tmp_path / "state", **data), script(**data))


def test_arrays_within_an_epoch_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r'the data must be `ScheduledBatches`.*"epoch". Received: every=3'):
        script(tmp_path / "state", 3, data=X, y=Y)


def test_a_second_fit_of_the_same_model(tmp_path):
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", loss="mse")
    state = TrainingState(tmp_path / "state", every=2)
    batches = ScheduledBatches(X, Y, batch_size=11)
    model.fit(batches, epochs=2, verbose=0, callbacks=[state])
    model.fit(batches, epochs=3, verbose=0, callbacks=[state])
    assert int(model.optimizer.iterations) == 4 + 6  # a run of its own
    model.fit(batches, epochs=1, verbose=0)
    assert int(model.optimizer.iterations) == 12


# The file


def test_a_damaged_file(tmp_path):
    path = tmp_path / "state"
    script(path, epochs=1)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:30], whole[:300] + b"\0" + whole[301:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged: truncated, or changed.*Received: path="):
            script(path)
    for other in (b"", b"PK\x03\x04"):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=r"Not a file of training state. Received: path="):
            script(path)


def test_the_older_file_is_used_if_the_newest_is_damaged(undisturbed, tmp_path):
    path = tmp_path / "state"
    assert script(path, 2, Interrupts(9)) is None
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"damaged: .*path='.*state'. Read instead: '.*state.old'"):
        assert_same(script(path, 2), undisturbed)


def test_both_files_damaged(tmp_path):
    path = tmp_path / "state"
    for number in range(2):
        checkpoint_file.write(path, {"number": number})
    assert checkpoint_file.read(path.with_name("state.old")) == {"number": 0}
    for each in (path, path.with_name("state.old")):
        each.write_bytes(each.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"damaged: .*Received: path='.*state'"):
        checkpoint_file.read(path)


@nightly
@pytest.mark.parametrize("call", some(["replace", "link", "fsync"]))
def test_a_death_while_writing_leaves_a_file(call, undisturbed, tmp_path, monkeypatch):
    path = tmp_path / "state"
    assert script(path, 1, Interrupts(5)) is None
    (tmp_path / "state.new").write_bytes(b"half of a")

    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_file.os, call, die)
    with pytest.raises(KeyboardInterrupt):
        script(path, 1)
    monkeypatch.undo()
    assert checkpoint_file.read(path)["step"] == 5
    assert_same(script(path, 1), undisturbed)


def test_a_file_whose_writer_died_before_it_had_its_name(tmp_path):
    path = tmp_path / "state"
    checkpoint_file.write(path, {"number": 0})
    checkpoint_file.write(tmp_path / "other", {"number": 1})
    (tmp_path / "other").rename(tmp_path / "state.new")
    assert checkpoint_file.read(path) == {"number": 0}
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="Read instead: '.*state.new'"):
        assert checkpoint_file.read(path) == {"number": 1}


def test_a_disk_without_second_names(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(checkpoint_file.os, "link", refuse)
    for number in range(3):
        checkpoint_file.write(tmp_path / "state", {"number": number})
    assert [checkpoint_file.read(tmp_path / name)["number"] for name in ("state", "state.old")] == [2, 1]


def test_a_removed_file_is_a_fresh_start(tmp_path):
    path = tmp_path / "state"
    for number in range(2):
        checkpoint_file.write(path, {"number": number})
    path.unlink()
    checkpoint_file.write(path, {"number": 5})
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_a_full_disk(tmp_path):
    path = tmp_path / "state"
    for number in range(2):
        checkpoint_file.write(path, {"number": number})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"state that was saved before is kept.*state.new"):
            checkpoint_file.write(path, {"numbers": np.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["state", "state.old"]
    assert [checkpoint_file.read(each)["number"] for each in (path, tmp_path / "state.old")] == [1, 0]


def test_values_in_a_file(tmp_path):
    state = {
        "numbers": [1, 2.5, float("inf")],
        "mixed": [None, True, "text", (1, (2.0,)), {"a": []}],
        "scalar": np.float32(0.1),
        "arrays": [np.arange(6, dtype="uint32").reshape(2, 3), np.zeros((0, 2)), np.array(3), np.array([True])],
        "builtin": [{1: 2, (1, "a"): {3.5}}, frozenset({1}), collections.deque([1, 2], 3), b"\0\xff", 1 + 2j],
        "bfloat16": np.asarray(keras.ops.convert_to_numpy(keras.ops.cast([0.1, -3.0], "bfloat16"))),
    }
    checkpoint_file.write(tmp_path / "file", state)
    read = checkpoint_file.read(tmp_path / "file")
    for name in ("numbers", "mixed", "scalar", "builtin"):
        assert read[name] == state[name]
        assert type(read[name]) is type(state[name])
    for left, right in zip([*read["arrays"], read["bfloat16"]], [*state["arrays"], state["bfloat16"]], strict=True):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        np.testing.assert_array_equal(left, right)
    for bad in (object(), {"a": np.array([object()])}, {"f": print}):
        assert not plain.is_plain(bad)
        with pytest.raises(TypeError, match=r"Received: "):
            checkpoint_file.write(tmp_path / "file", {"bad": bad})
    assert checkpoint_file.read(tmp_path / "file")["mixed"] == state["mixed"]


TREES = {
    "a giant shape": {"array": "float32", "shape": [10**6, 10**6]},
    "a shape beyond any integer": {"array": "float32", "shape": [10**30]},
    "an unknown number of elements": {"array": "uint8", "shape": [-1]},
    "no shape": {"array": "float32", "shape": None},
    "objects": {"array": "object", "shape": []},
    "a structure": {"array": "u1,u1", "shape": [1]},
    "arrays within a type": {"scalar": "(100000000,)u1"},
    "no type": {"array": None, "shape": [0]},
    "bytes of no array": 1,
    "no value": {"pickle": "gASV"},
    "a list for a dictionary": {"dict": []},
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_what_a_file_may_not_say(tree, tmp_path):
    write_signed(tmp_path / "file", json.dumps(tree).encode() + b"\n" + bytes(16))
    with pytest.raises(ValueError, match=r"holds no training state.*Received: path="):
        checkpoint_file.read(tmp_path / "file")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\n", b"[" * 100_000 + b"\n"])
def test_what_is_no_tree(body, tmp_path):
    write_signed(tmp_path / "file", body)
    with pytest.raises(ValueError, match=r"holds no training state.*Received: path="):
        checkpoint_file.read(tmp_path / "file")


def write_signed(path, body):
    """A file with the right checksum, whatever it holds."""
    content = checkpoint_file.MAGIC + body
    path.write_bytes(content + hashlib.sha256(content).digest())


# What is refused


def test_refuses_another_script(tmp_path):
    script(tmp_path / "state", epochs=1)
    with pytest.raises(ValueError, match=r"`callbacks` is not .*'LossRecorder', 'History'\]. Received: \['Interrupts', 'H"):
        script(tmp_path / "state", callbacks=list)
    with pytest.raises(ValueError, match=r"`data.first_batch` is not"):
        script(tmp_path / "state", data=ScheduledBatches(X, Y, batch_size=4, seed=2))
    with pytest.raises(ValueError, match=r"`data.kind` is not what it was in.*: 'ScheduledB.*Received: 'arrays'"):
        script(tmp_path / "state", data=X, y=Y)


def model_of(*layers, features=3, optimizer="adam"):
    model = keras.Sequential([keras.layers.Input((features,)), *layers, keras.layers.Dense(1)])
    model.compile(optimizer, loss="mse", run_eagerly=EAGERLY)
    return model


def test_refuses_another_model(tmp_path):
    def fit(model, inputs=X, **options):
        runs.forget()
        batches = ScheduledBatches(inputs, Y, batch_size=11)
        model.fit(batches, verbose=0, callbacks=[TrainingState(tmp_path / "state", every=1, **options)])

    dense = keras.layers.Dense
    fit(model_of(dense(4, "relu"), dense(4)))
    with pytest.raises(ValueError, match=r"`model.layers.1.activation` is not what it was .*: 'relu'. Received: 'tanh'"):
        fit(model_of(dense(4, "tanh"), dense(4)))
    with pytest.raises(ValueError, match=r"`model.layers.2.units` is not what it was in the saved run: 4. Received: 1"):
        fit(model_of(dense(4, "relu")))
    with pytest.raises(ValueError, match=r"`optimizer.class` is not .*: 'keras.Adam'. Received: 'keras.AdamW'"):
        fit(model_of(dense(4, "relu"), dense(4), optimizer="adamw"))
    with pytest.raises(ValueError, match=r"variable 0, '.*kernel', is float32 \[2, 4\]. Received: float32 \[3, 4\]"):
        fit(model_of(dense(4, "relu"), dense(4), features=2), X[:, :2], allow_changes=["data"])
    fit(model_of(dense(4, "relu"), dense(4)))


def test_refuses_a_file_of_something_else(tmp_path):
    checkpoint_file.write(tmp_path / "state", {"epoch": 1})
    with pytest.raises(ValueError, match=r"something else than the state of a run. Received: path="):
        script(tmp_path / "state")


# More than one run


def linear(optimizer="adam", seed=0, eagerly=EAGERLY):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((3,)), *layers])
    model.compile(optimizer, "mse", run_eagerly=eagerly)
    return model


ARRAYS = {"x": X, "y": Y, "batch_size": 11, "shuffle": False, "verbose": 0}


def fit(model, path, *callbacks, epochs=1, new_process=True, **options):
    if new_process:
        runs.forget()
    return model.fit(**ARRAYS, epochs=epochs, callbacks=[*callbacks, TrainingState(path, **options)])


@nightly
def test_a_loop_of_fits_goes_on_where_it_was_killed(tmp_path):
    def loop(fits, path):
        model, losses = linear(eagerly=False), []
        runs.forget()
        for _ in range(fits):
            losses += fit(model, path, new_process=False).history["loss"]
        return losses, model.get_weights()

    whole, weights = loop(4, tmp_path / "whole")
    assert len(whole) == 4
    loop(2, tmp_path / "state")
    with pytest.warns(UserWarning, match="Run 1 with .*was finished by an earlier process, and trains nothing. Until run 2"):
        losses, resumed = loop(4, tmp_path / "state")
    assert losses == whole
    assert all(map(np.array_equal, resumed, weights))


def test_the_next_fold_is_refused_the_state_of_the_last(tmp_path):
    fit(linear(seed=1), tmp_path / "state", epochs=2)
    with pytest.raises(ValueError, match="finished run of another model of this process, such as that of the fold before"):
        fit(linear(seed=2), tmp_path / "state", epochs=2, new_process=False)
    model = linear(seed=2)
    weights = model.get_weights()
    fit(model, tmp_path / "other", new_process=False)
    assert not np.array_equal(weights[0], model.get_weights()[0])


@nightly
def test_two_stages_with_another_optimizer(tmp_path):
    def stages(path, epochs):
        model = linear(eagerly=False)
        runs.forget()
        fit(model, path, epochs=min(epochs, 2), new_process=False)
        if epochs > 2:
            model.layers[0].trainable = False
            model.compile("sgd", "mse")
            fit(model, path, epochs=epochs - 2, new_process=False)
        return model.get_weights()

    whole = stages(tmp_path / "whole", 5)
    stages(tmp_path / "state", 3)
    with pytest.warns(UserWarning, match="finished by an earlier process"):
        assert all(map(np.array_equal, stages(tmp_path / "state", 5), whole))


@nightly
def test_a_run_that_early_stopping_ended_goes_on_if_the_script_asks_for_more(tmp_path):
    def script(patience, epochs):
        stop = keras.callbacks.EarlyStopping("loss", patience=patience, min_delta=1e9)
        return len(fit(linear(), tmp_path / "state", stop, epochs=epochs).history["loss"])

    assert script(1, 8) == 2
    assert script(1, 8) == 2  # the same script once more
    assert script(1, 20) == 3
    assert script(9, 20) == 10


def test_a_file_that_another_process_has_locked_is_refused(tmp_path):
    lock = tmp_path / "state.lock"
    with lock.open("w") as other:  # such locks are of open files
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"Another process is training with this file of state.*Received: path="):
            fit(linear(), tmp_path / "state")
    runs.lock(tmp_path / "state")
    with lock.open("w") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    runs.unlock(tmp_path / "state")
    fit(linear(), tmp_path / "state")
    assert not lock.exists()


@nightly
def test_another_process_that_trains_with_the_file_is_refused(tmp_path):
    code = """
import sys, time
from pathlib import Path
from keras_lrsched._core import runs
runs.lock(Path(sys.argv[1])); print("locked", flush=True); time.sleep(60)
"""
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "state")], stdout=subprocess.PIPE)
    try:
        assert b"locked" in other.stdout.readline()
        with pytest.raises(ValueError, match=r"Another process is training with this file of state.*Received: path="):
            fit(linear(), tmp_path / "state")
    finally:
        other.kill()
        other.wait()
    fit(linear(), tmp_path / "state")
    assert not (tmp_path / "state.lock").exists()


# What may change


def test_settings_that_may_change_are_those_of_the_script(tmp_path):
    fit(linear(optimizer=keras.optimizers.SGD(0.25)), tmp_path / "state")
    other = linear(optimizer=keras.optimizers.SGD(0.5, momentum=0.9))
    with pytest.raises(ValueError, match=r"`optimizer.learning_rate` is not .* '0.25'. Received: '0.5'. To continue"):
        fit(other, tmp_path / "state", epochs=2)
    with pytest.raises(ValueError, match=r"`optimizer.momentum` is not"):
        fit(other, tmp_path / "state", epochs=2, allow_changes=["optimizer.learning_rate"])
    other = linear(optimizer=keras.optimizers.SGD(0.5, nesterov=True))
    fit(other, tmp_path / "state", epochs=2, allow_changes=["optimizer.learning_rate", "optimizer.nesterov"])
    assert float(other.optimizer.learning_rate) == 0.5
    assert int(other.optimizer.iterations) == 4
    other = linear()
    fit(other, tmp_path / "state", epochs=3, allow_changes=["optimizer"])
    assert int(other.optimizer.iterations) == 6


def test_the_first_batch_and_its_order_are_compared(tmp_path):
    fit(linear(), tmp_path / "state")
    for change, path in (({"x": X + 1}, "first_batch"), ({"batch_size": 10}, "batches"), ({"shuffle": True}, "shuffle")):
        runs.forget()
        with pytest.raises(ValueError, match=rf"`data.{path}` is not what it was in the saved run"):
            linear().fit(**{**ARRAYS, **change}, epochs=2, callbacks=[TrainingState(tmp_path / "state")])


def test_arguments_of_other_callbacks_follow_the_script(tmp_path):
    def script(patience, factor, epochs):
        stop = keras.callbacks.EarlyStopping("loss", patience=patience)
        plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=factor)
        fit(linear(), tmp_path / "state", stop, plateau, epochs=epochs)
        return stop.patience, plateau.factor

    assert script(3, 0.5, 2) == (3, 0.5)
    assert script(10, 0.1, 4) == (10, 0.1)


@nightly
@pytest.mark.parametrize("append", some([False, True]))
def test_a_csv_logger_has_each_epoch_once(append, tmp_path):
    def script(path, epochs, interrupt=None):
        log = keras.callbacks.CSVLogger(tmp_path / f"{path}.csv", append=append)
        callbacks = [log] if interrupt is None else [interrupt, log]
        with contextlib.suppress(InterruptedError):
            fit(linear(), tmp_path / path, *callbacks, epochs=epochs, allow_changes=["callbacks"])
        return (tmp_path / f"{path}.csv").read_text()

    whole = script("whole", 5)
    script("state", 2)
    script("state", 4, Interrupts(3))  # in the middle of an epoch
    assert script("state", 5) == whole


# What cannot be saved


class UsersOwn(keras.callbacks.Callback):
    """A callback of a user, with a generator, a queue, an open file."""

    def __init__(self, path):
        super().__init__()
        self.random, self.queue = np.random.default_rng(0), collections.deque(maxlen=2)
        self.images = np.zeros((1000, 100))
        if path is not None:
            self.log = path.open("w")

    def on_epoch_end(self, epoch, logs=None):
        self.queue.append(epoch)
        self.model.optimizer.learning_rate = 0.1 * self.random.random() + 0.01 * len(self.queue)


@nightly
def test_state_of_a_users_callback(tmp_path):
    whole, other = linear(eagerly=False), linear(eagerly=False)
    fit(whole, tmp_path / "whole", UsersOwn(None), epochs=4)
    fit(linear(eagerly=False), tmp_path / "state", UsersOwn(None), epochs=2)
    fit(other, tmp_path / "state", UsersOwn(None), epochs=4)
    assert all(map(np.array_equal, whole.get_weights(), other.get_weights()))
    assert (tmp_path / "state").stat().st_size < 50_000  # without the images


def test_what_cannot_be_saved_is_warned_of_once_and_refused_if_strict(tmp_path):
    with pytest.warns(UserWarning, match=r"TrainingState cannot save: `UsersOwn.log`, an open file") as warned:
        fit(linear(), tmp_path / "state", UsersOwn(tmp_path / "log"), epochs=3)
    assert sum("cannot save" in str(each.message) for each in warned) == 1
    model = linear()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"`UsersOwn.log`, an open file. Received: strict=True"):
        fit(model, tmp_path / "other", UsersOwn(tmp_path / "log"), strict=True)
    assert all(map(np.array_equal, model.get_weights(), before))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="needs TensorFlow")
def test_random_numbers_of_tensorflow_in_the_step(tmp_path):
    import tensorflow as tf

    def model():
        noise = keras.layers.Lambda(lambda x: x + tf.random.normal(tf.shape(x)))
        model = keras.Sequential([keras.layers.Input((3,)), noise, keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    with pytest.warns(UserWarning, match="`RandomStandardNormal in the training step`, random numbers of TensorFlow"):
        fit(model(), tmp_path / "state")
    strict = model()
    with pytest.raises(ValueError, match="RandomStandardNormal"):
        fit(strict, tmp_path / "other", strict=True)
    assert int(strict.optimizer.iterations) == 0


@pytest.mark.skipif(BACKEND != "torch", reason="needs PyTorch")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_of_pytorch_with_generators_of_its_own(workers, tmp_path):
    import torch

    class Noisy(torch.utils.data.Dataset):
        def __init__(self):
            self.random = np.random.default_rng(1)

        def __len__(self):
            return len(X)

        def __getitem__(self, i):
            return (X[i] + self.random.normal()).astype("float32"), Y[i].astype("float32")

    def run(path, interrupt):
        runs.forget()
        generator = torch.Generator().manual_seed(5)
        data = torch.utils.data.DataLoader(Noisy(), batch_size=4, shuffle=True, generator=generator, num_workers=workers)
        model = linear()
        with contextlib.suppress(InterruptedError):
            model.fit(data, epochs=3, verbose=0, callbacks=[interrupt, TrainingState(path)])
        return model.get_weights()

    whole = run(tmp_path / "whole", Interrupts())
    run(tmp_path / "state", Interrupts(epoch=1))
    assert all(map(np.array_equal, run(tmp_path / "state", Interrupts()), whole))


def test_the_report(tmp_path):
    state, model = TrainingState(tmp_path / "state"), linear()
    with pytest.raises(ValueError, match="nothing to report before `fit`"):
        state.report()
    with pytest.warns(UserWarning, match="cannot save"):
        model.fit(**ARRAYS, callbacks=[UsersOwn(tmp_path / "log"), state])
    report = state.report()
    assert {"model.variables", "UsersOwn.random", "History"} <= set(report["saved"])
    assert {"UsersOwn.images", "optimizer.learning_rate"} <= set(report["derived"])
    assert report["unknown"] == {"UsersOwn.log": "an open file"}


def test_a_generator_is_warned_of(tmp_path):
    def batches():
        while True:
            yield X[:4], Y[:4]

    with pytest.warns(UserWarning, match="`data`, the position of a Python generator"):
        linear().fit(batches(), steps_per_epoch=2, verbose=0, callbacks=[TrainingState(tmp_path / "state")])


def test_beside_backup_and_restore(tmp_path):
    with pytest.raises(ValueError, match="TrainingState and BackupAndRestore both continue"):
        fit(linear(), tmp_path / "state", keras.callbacks.BackupAndRestore(tmp_path / "backup"))


@nightly
def test_callbacks_may_come_after_it(tmp_path):
    def run(path, epochs):
        model = linear()
        runs.forget()
        plateau = keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=1.0)
        model.fit(**ARRAYS, epochs=epochs, callbacks=[TrainingState(path), plateau])
        return model.get_weights()

    whole = run(tmp_path / "whole", 6)
    run(tmp_path / "state", 3)
    assert all(map(np.array_equal, run(tmp_path / "state", 6), whole))


def test_logs_that_are_no_numbers(tmp_path):
    class Shows(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs.update(rate=self.model.optimizer.learning_rate, array=np.zeros(3), text="warmup", nothing=None)

    fit(linear(), tmp_path / "state", Shows(), epochs=2)
    history = fit(linear(), tmp_path / "state", Shows(), epochs=3).history
    assert [len(column) for column in history.values()] == [3] * 5
    assert history["text"] == ["warmup"] * 3


def test_a_file_of_an_older_format(tmp_path):
    (tmp_path / "state").write_bytes(b"keras_lrsched state 2\n{}")
    with pytest.raises(ValueError, match=r"format 2, which this version of keras_lrsched does not read.*Received: path="):
        fit(linear(), tmp_path / "state")


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses it itself on PyTorch")
def test_refuses_steps_per_execution():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", steps_per_execution=2)
    with pytest.raises(ValueError, match=r"Received: every=2, steps_per_execution=2"):
        model.fit(ScheduledBatches(X, Y, batch_size=4), verbose=0, callbacks=[TrainingState("unused", every=2)])


@pytest.mark.parametrize("every", [0, -1, 2.5, "batch", None, True])
def test_bad_arguments(every):
    with pytest.raises(ValueError, match=r"Received: every="):
        TrainingState("unused", every=every)


def test_other_bad_arguments():
    with pytest.raises(ValueError, match=r"`data` must have the methods .*Received: data=3"):
        TrainingState("unused", data=3)
    with pytest.raises(ValueError, match=r"must be a list of paths.*Received: allow_changes='loss'"):
        TrainingState("unused", allow_changes="loss")


def test_deepcopy():
    assert copy.deepcopy(TrainingState("path", every=3)).every == 3


def test_copies_have_the_settings_and_nothing_of_the_run(tmp_path):
    """KerasTuner copies callbacks, but not the data."""
    batches = ScheduledBatches(X, Y, batch_size=11)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    state = TrainingState(tmp_path / "state", every=2, data=batches, allow_changes=["loss"], strict=True)
    for _ in range(2):  # before and after a run
        copied, loaded = copy.deepcopy(state), pickle.loads(pickle.dumps(state))
        assert copied.data is batches
        for other in (copied, loaded):
            assert (other.path, other.every, other.allow_changes, other.strict) == (state.path, 2, ("loss",), True)
        model.fit(batches, verbose=0, callbacks=[state])

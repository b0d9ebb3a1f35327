"""Runs that stop at any step and are started again with the same script; damaged files; what is refused."""

import copy
import hashlib
import json
import random
import resource

import keras
import numpy as np
import pytest

from keras_lrsched.callbacks import Controller, LossRecorder, ScheduledBatches, TrainingState, callback_state, state_file
from tests.contract.backends import BACKEND, JIT

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(22, 3)), RANDOM.normal(size=(22, 1))
EPOCHS, STEPS = 3, 18


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
    """What a user would run again. Everything that it leaves, to be compared; `None` if it was interrupted."""
    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(4, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(1)]
    model = keras.Sequential([keras.layers.Input((3,)), *layers])
    model.compile(keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"], jit_compile=jit)
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


@pytest.mark.parametrize("every", [1, 4, "epoch"])
def test_interrupted_at_any_step(every, undisturbed, tmp_path):
    for steps in [1, 5, 1, 3, 6]:
        assert script(tmp_path / "state", every, Interrupts(steps)) is None
    if every == 1:
        assert state_file.read(tmp_path / "state")["step"] == 1 + 5 + 1 + 3 + 6
    assert_same(script(tmp_path / "state", every), undisturbed)


def test_interrupted_at_the_end_of_an_epoch(undisturbed, tmp_path):
    assert script(tmp_path / "state", 1, Interrupts(epoch=0)) is None
    assert script(tmp_path / "state", 1, Interrupts(epoch=1)) is None
    assert_same(script(tmp_path / "state", 1), undisturbed)


@pytest.mark.skipif(True not in JIT, reason="this backend does not compile the training step")
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


def test_more_epochs(undisturbed, tmp_path):
    script(tmp_path / "state", epochs=1)
    assert_same(script(tmp_path / "state"), undisturbed)


def plateau_and_stopping():
    return [
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=1.0, factor=0.5),
        keras.callbacks.EarlyStopping("val_mae", patience=2, min_delta=1.0, mode="min", restore_best_weights=True),
    ]


@pytest.mark.parametrize("steps", [7, 10, 16])
def test_callbacks_of_keras(steps, tmp_path):
    whole = script(callbacks=plateau_and_stopping, epochs=6)
    assert whole["epochs"] == [0, 1, 2]
    assert script(tmp_path / "state", 2, Interrupts(steps), plateau_and_stopping, epochs=6) is None
    assert_same(script(tmp_path / "state", 2, callbacks=plateau_and_stopping, epochs=6), whole)
    again = script(tmp_path / "state", 2, callbacks=plateau_and_stopping, epochs=6)  # does not train after the early stop
    assert again["history"] == whole["history"]


@pytest.mark.parametrize("interrupt", [Interrupts(8), Interrupts(epoch=1)])
def test_arrays_at_the_end_of_an_epoch(interrupt, tmp_path):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, i):
            return X[4 * i : 4 * i + 4], Y[4 * i : 4 * i + 4]

    data = {"data": Batches(), "shuffle": False}
    assert script(tmp_path / "state", "epoch", copy.copy(interrupt), **data) is None
    assert_same(script(tmp_path / "state", **data), script(**data))
    with pytest.raises(ValueError, match=r'the data must be `ScheduledBatches`.*"epoch". Received: every=3'):
        script(tmp_path / "other", 3, **data)


def test_a_second_fit_of_the_same_model(tmp_path):
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", loss="mse")
    state = TrainingState(tmp_path / "state", every=2)
    batches = ScheduledBatches(X, Y, batch_size=11)
    model.fit(batches, epochs=2, verbose=0, callbacks=[state])
    model.fit(batches, epochs=3, verbose=0, callbacks=[state])
    assert int(model.optimizer.iterations) == 6
    model.fit(batches, epochs=1, verbose=0)
    assert int(model.optimizer.iterations) == 8


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
        state_file.write(path, {"number": number})
    assert state_file.read(path.with_name("state.old")) == {"number": 0}
    for each in (path, path.with_name("state.old")):
        each.write_bytes(each.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"damaged: .*Received: path='.*state'"):
        state_file.read(path)


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
def test_a_death_while_writing_leaves_a_file(call, undisturbed, tmp_path, monkeypatch):
    path = tmp_path / "state"
    assert script(path, 1, Interrupts(5)) is None
    (tmp_path / "state.new").write_bytes(b"half of a")

    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(state_file.os, call, die)
    with pytest.raises(KeyboardInterrupt):
        script(path, 1)
    monkeypatch.undo()
    assert state_file.read(path)["step"] == 5
    assert_same(script(path, 1), undisturbed)


def test_a_file_whose_writer_died_before_it_had_its_name(tmp_path):
    path = tmp_path / "state"
    state_file.write(path, {"number": 0})
    state_file.write(tmp_path / "other", {"number": 1})
    (tmp_path / "other").rename(tmp_path / "state.new")
    assert state_file.read(path) == {"number": 0}
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="Read instead: '.*state.new'"):
        assert state_file.read(path) == {"number": 1}


def test_a_disk_without_second_names(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(state_file.os, "link", refuse)
    for number in range(3):
        state_file.write(tmp_path / "state", {"number": number})
    assert [state_file.read(tmp_path / name)["number"] for name in ("state", "state.old")] == [2, 1]


def test_a_removed_file_is_a_fresh_start(tmp_path):
    path = tmp_path / "state"
    for number in range(2):
        state_file.write(path, {"number": number})
    path.unlink()
    state_file.write(path, {"number": 5})
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_a_full_disk(tmp_path):
    path = tmp_path / "state"
    for number in range(2):
        state_file.write(path, {"number": number})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"state that was saved before is kept.*state.new"):
            state_file.write(path, {"numbers": np.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["state", "state.old"]
    assert [state_file.read(each)["number"] for each in (path, tmp_path / "state.old")] == [1, 0]


def test_values_in_a_file(tmp_path):
    state = {
        "numbers": [1, 2.5, float("inf")],
        "mixed": [None, True, "text", (1, (2.0,)), {"a": []}],
        "scalar": np.float32(0.1),
        "arrays": [np.arange(6, dtype="uint32").reshape(2, 3), np.zeros((0, 2)), np.array(3), np.array([True])],
        "bfloat16": np.asarray(keras.ops.convert_to_numpy(keras.ops.cast([0.1, -3.0], "bfloat16"))),
    }
    state_file.write(tmp_path / "file", state)
    read = state_file.read(tmp_path / "file")
    for name in ("numbers", "mixed", "scalar"):
        assert read[name] == state[name]
        assert type(read[name]) is type(state[name])
    for left, right in zip([*read["arrays"], read["bfloat16"]], [*state["arrays"], state["bfloat16"]], strict=True):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        np.testing.assert_array_equal(left, right)
    for bad in (object(), {1: 2}, {"a": np.array([object()])}, {"f": print}):
        assert not state_file.is_plain(bad)
        with pytest.raises(TypeError, match=r"Received: "):
            state_file.write(tmp_path / "file", {"bad": bad})
    assert state_file.read(tmp_path / "file")["mixed"] == state["mixed"]


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
        state_file.read(tmp_path / "file")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\n", b"[" * 100_000 + b"\n"])
def test_what_is_no_tree(body, tmp_path):
    write_signed(tmp_path / "file", body)
    with pytest.raises(ValueError, match=r"holds no training state.*Received: path="):
        state_file.read(tmp_path / "file")


def write_signed(path, body):
    """A file with the right checksum, whatever it holds."""
    content = state_file.MAGIC + body
    path.write_bytes(content + hashlib.sha256(content).digest())


# What is refused


def test_refuses_another_script(tmp_path):
    script(tmp_path / "state", epochs=1)
    with pytest.raises(ValueError, match=r"other callbacks: Interrupts, Draws, LossRecorder. Received: Interrupts"):
        script(tmp_path / "state", callbacks=list)
    with pytest.raises(ValueError, match=r"other data, with seed=1. Received: seed=2"):
        script(tmp_path / "state", data=ScheduledBatches(X, Y, batch_size=4, seed=2))
    with pytest.raises(ValueError, match=r"data of another kind"):
        script(tmp_path / "state", data=X, y=Y)


def model_of(*layers, features=3, optimizer="adam"):
    model = keras.Sequential([keras.layers.Input((features,)), *layers, keras.layers.Dense(1)])
    model.compile(optimizer, loss="mse")
    return model


def test_refuses_another_model(tmp_path):
    def fit(model, inputs=X):
        batches = ScheduledBatches(inputs, Y, batch_size=11)
        model.fit(batches, verbose=0, callbacks=[TrainingState(tmp_path / "state", every=1)])

    dense = keras.layers.Dense
    fit(model_of(dense(4, "relu"), dense(4)))
    refused = r"of another model, whose part "
    with pytest.raises(ValueError, match=refused + r"1 is Dense\(units=4, activation='relu'.*Received: .*'tanh'"):
        fit(model_of(dense(4, "tanh"), dense(4)))
    with pytest.raises(ValueError, match=refused + r"2 is Dense\(units=4.*Received: Dense\(units=1"):
        fit(model_of(dense(4, "relu")))
    with pytest.raises(ValueError, match=refused + r"4 is optimizer Adam. Received: optimizer AdamW"):
        fit(model_of(dense(4, "relu"), dense(4), optimizer="adamw"))
    with pytest.raises(ValueError, match=r"variable 0, '.*kernel', is float32 \[2, 4\]. Received: float32 \[3, 4\]"):
        fit(model_of(dense(4, "relu"), dense(4), features=2), X[:, :2])
    fit(model_of(dense(4, "relu"), dense(4)))


def test_refuses_a_file_of_something_else(tmp_path):
    state_file.write(tmp_path / "state", {"epoch": 1})
    with pytest.raises(ValueError, match=r"something else than the state of a run. Received: path="):
        script(tmp_path / "state")


def test_paths_of_callbacks_are_those_of_the_script(tmp_path):
    """Not those of a file, which may come from anywhere."""
    first, second = (keras.callbacks.ModelCheckpoint(tmp_path / f"{name}.keras") for name in ("first", "second"))
    first.best = 0.5
    state = callback_state.get(first)
    callback_state.restore(second, {**state, "filepath": "elsewhere"})
    assert second.best == 0.5
    assert second.filepath == str(tmp_path / "second.keras")


def test_has_to_be_last():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match=r"must be the last of the callbacks. Received: LossRecorder after it"):
        model.fit(X, Y, verbose=0, callbacks=[TrainingState("unused"), LossRecorder()])


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


def test_deepcopy():
    assert copy.deepcopy(TrainingState("path", every=3)).every == 3

"""SIGINT and SIGTERM: the batch is finished, then the run ends as the signal would have ended it."""

import os
import pickle
import signal
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest

from keras_lrsched._core import interrupts
from tests.nightly import nightly

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process")


@pytest.fixture(autouse=True)
def default_handlers():
    """Python's own, also where the tests run in the background of a shell, which ignores SIGINT there."""
    kept = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


def handlers():
    return [signal.getsignal(number) for number in interrupts.SIGNALS]


DEFAULT = [signal.default_int_handler, signal.SIG_DFL]


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_the_flag_is_set_and_raised_once(number, capfd):
    watch = interrupts.Watch()
    watch.start()
    assert watch.requested is None
    watch.raise_if_requested()
    send(number)
    assert watch.requested == number
    with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
        watch.raise_if_requested()
    assert caught.type is KeyboardInterrupt if number == signal.SIGINT else caught.value.code == 143
    assert handlers() == DEFAULT
    watch.stop()
    assert f"{signal.Signals(number).name}: the run ends after this batch" in capfd.readouterr().err


def test_what_nothing_has_raised_is_raised_at_the_end():
    watch = interrupts.Watch()
    watch.start()
    send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        watch.stop()
    assert handlers() == DEFAULT
    with pytest.raises(SystemExit), interrupts.Watch():
        send(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError):
        watched(lambda watch: send(signal.SIGTERM) or 1 / 0)
    assert handlers() == DEFAULT


def watched(work):
    with interrupts.Watch() as watch:
        work(watch)


def test_a_second_signal_has_its_usual_effect():
    with pytest.raises(KeyboardInterrupt):
        watched(lambda watch: [send(signal.SIGINT), send(signal.SIGINT), pytest.fail("too late")])


def test_a_handler_of_the_programs_own():
    got = []
    signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    with interrupts.Watch() as watch:
        send(signal.SIGTERM)
        assert watch.requested == signal.SIGTERM
        assert got == [signal.SIGTERM]
        watch.raise_if_requested()
        assert watch.requested is None
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
    with pytest.raises(SystemExit, match="7"):
        watched(lambda watch: [send(signal.SIGTERM), got.append("the batch")])
    assert got == [signal.SIGTERM, "the batch"]


def test_watches_within_one_another():
    def work(outer):
        watched(lambda inner: [send(signal.SIGINT), inner.raise_if_requested()])
        assert outer.requested == signal.SIGINT

    with pytest.raises(KeyboardInterrupt):
        watched(work)
    assert handlers() == DEFAULT


def test_ignored_signals_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.Watch() as watch:
        send(signal.SIGINT)
        assert watch.requested is None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_are_left_alone():
    found = []

    def work():
        with interrupts.Watch() as watch:
            found.extend([*handlers(), watch.requested])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [*DEFAULT, None]


class Watching(keras.callbacks.Callback):
    """Starts a watch with `fit`, reads it at the end of each batch, and calls `at_batch_end`, which may raise."""

    def __init__(self, at_batch_end):
        super().__init__()
        self.watch, self.at_batch_end, self.batches = interrupts.Watch(), at_batch_end, 0

    def on_train_begin(self, logs=None):
        self.watch.start()

    def on_train_batch_end(self, batch, logs=None):
        self.at_batch_end(batch)
        self.batches += 1
        self.watch.raise_if_requested()

    def on_train_end(self, logs=None):
        self.watch.stop()


def fit(at_batch_end):
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse", run_eagerly=True)
    watching = Watching(at_batch_end)
    try:
        model.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=1, verbose=0, callbacks=[watching])
    finally:
        counts.append(watching.batches)
    return watching.watch


counts: list[int] = []


def test_in_fit():
    pickle.dumps(fit(lambda batch: None))
    assert handlers() == DEFAULT
    with pytest.raises(KeyboardInterrupt):
        fit(lambda batch: send(signal.SIGINT) if batch == 1 else None)
    assert counts[-2:] == [4, 2]
    assert handlers() == DEFAULT


def test_after_a_fit_that_has_failed():
    """Keras calls no callback then: a signal has its usual effect, and whatever is left of the watch does not swallow it."""

    def fail(batch):
        raise InterruptedError

    with pytest.raises(InterruptedError) as caught:
        fit(fail)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    assert handlers() == DEFAULT
    del caught


SCRIPT = """
import os, signal, sys
from keras_lrsched._core.interrupts import Watch
signal.signal(signal.SIGINT, signal.default_int_handler)
with Watch() as watch:
    child = os.fork()
    if not child:  # a worker: ignores Ctrl-C, and is ended by its parent
        os.kill(os.getpid(), signal.SIGINT)
        sys.stdout.write("goes on ")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(3)
    print(os.waitpid(child, 0)[1], watch.requested, flush=True)
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    print("batch", flush=True)
    watch.raise_if_requested()
    print("never")
"""


@nightly
def test_exit_codes_and_forked_workers():
    command = ["sh", "-c", '"$0" -c "$1" "$2"; echo $?', sys.executable, SCRIPT]
    codes = {"SIGINT": 130, "SIGTERM": 143}
    started = {name: subprocess.Popen([*command, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for name in codes}
    for name, process in started.items():
        lines = process.communicate(timeout=120)[0].decode().split("\n")
        assert lines[:3] == [f"goes on {int(signal.SIGTERM)} None", "batch", str(codes[name])]

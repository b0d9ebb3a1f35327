"""Cost of callbacks that only read, beside the same `fit` without them, on the character language model.

Each row is one long `fit` in a thread of its own. The threads take turns, never two at a time: a block of updates without
the callback, a block with it, then the next row; which of the two comes first alternates. A round goes through all rows.

    step us     microseconds of an update without the callback, the median of its blocks
    ratio       of a block with the callback to its neighbor without, the median of the rounds, and their quartiles
    event us    for what is done at intervals: microseconds of doing it once, from a `fit` that does it once a block
    every       the updates between two of these, as a user has it by default; for TrainingState, 500
    overhead    the ratio - 1, and the event shared out among so many updates

The row "an empty callback" is what Keras itself takes as soon as any callback has an `on_train_batch_end`.

All are given twice: by the clock, and by the time that the processors spent in this process, which on a machine that has
other work to do says more.

Run: python benchmarks/callback_overhead.py --rounds 60 --jit      (KERAS_BACKEND chooses the backend)
"""

import argparse
import os
import queue
import statistics
import tempfile
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_lrsched.callbacks import (
    GradientNoiseScale,
    GradientNormRecorder,
    LearningRateLogger,
    LossRecorder,
    StabilityMonitor,
    TrainingState,
    WeightAveraging,
)
from keras_lrsched.data import ScheduledBatches
from keras_lrsched.study.workloads.pydoc import PydocTopics

BLOCK = 20
NEVER = 10**9
CLOCKS = (time.perf_counter, time.process_time)
WORKLOAD = PydocTopics()


def data(rounds, rows):
    """As many batches as the longest run here gets through."""
    batches = [WORKLOAD.train_batch(step, seed=0) for step in range(BLOCK * (3 + rounds * rows))]
    return tuple(np.concatenate(arrays) for arrays in zip(*batches, strict=True))


class StopError(Exception):
    """Ends a `fit`."""


class Turn(keras.callbacks.Callback):
    """Holds up the training at the begin of each block until it is its turn."""

    def __init__(self):
        super().__init__()
        self.go: queue.Queue = queue.Queue()
        self.done: queue.Queue = queue.Queue()
        self.started: list[float] = []
        self.count = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.count % BLOCK == 0:
            if self.count:
                self._wait_for_device()
                self.done.put([now() - start for now, start in zip(CLOCKS, self.started, strict=True)])
            if not self.go.get():
                raise StopError
            self.started = [now() for now in CLOCKS]
        self.count += 1

    def _wait_for_device(self):
        if keras.backend.backend() == "jax" and not self._model._jax_state_synced:
            import jax

            jax.block_until_ready(self._model._jax_state)


class Empty(keras.callbacks.Callback):
    """Makes Keras wait for each batch's metrics, which it else reads in another thread."""

    def on_train_batch_end(self, batch, logs=None):
        pass


class Run:
    """A `fit` in a thread; `block` lets it train on for some updates and gives their seconds, by each clock."""

    def __init__(self, arrays, jit, options, make=lambda folder: []):
        self.turn, self.error = Turn(), None
        self.thread = threading.Thread(target=self._fit, args=(arrays, jit, make, options), daemon=True)
        self.thread.start()

    def block(self):
        self.turn.go.put(True)
        while True:
            try:
                return self.turn.done.get(timeout=1)
            except queue.Empty:
                if not self.thread.is_alive():
                    raise RuntimeError("The run has ended.") from self.error

    def end(self):
        self.turn.go.put(False)
        self.thread.join()

    def _fit(self, arrays, jit, make, options):
        try:
            model = WORKLOAD.build_model()
            optimizer = keras.optimizers.AdamW(WORKLOAD.peak_learning_rate, weight_decay=0.1, beta_2=0.99, **options)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=jit)
            with tempfile.TemporaryDirectory() as folder:
                batches = ScheduledBatches(arrays[0], arrays[1], batch_size=WORKLOAD.batch_size)
                model.fit(batches, verbose=0, callbacks=[self.turn, *make(folder)])
        except StopError:
            pass
        except Exception as error:
            self.error = error


ACCUMULATE = {"gradient_accumulation_steps": 2}


def rows():
    """name -> callbacks without events, or with one a block, the updates between two events, options of the optimizer."""
    probe = WORKLOAD.train_batch(0, seed=1)
    averaging = WeightAveraging().every
    return {
        "nothing": (lambda folder: [], None, None, {}),
        "an empty callback": (lambda folder: [Empty()], None, None, {}),
        "LossRecorder(path)": (lambda folder: [LossRecorder(folder + "/run.csv")], None, None, {}),
        "LearningRateLogger": (lambda folder: [LearningRateLogger()], None, None, {}),
        "GradientNormRecorder": (lambda folder: [GradientNormRecorder()], None, None, {}),
        "GradientNoiseScale": (lambda folder: [GradientNoiseScale()], None, None, ACCUMULATE),
        "StabilityMonitor": (
            lambda folder: [StabilityMonitor(probe, every=NEVER)],
            lambda folder: [StabilityMonitor(probe, every=BLOCK)],
            StabilityMonitor(probe).every,
            {},
        ),
        "TrainingState": (
            lambda folder: [TrainingState(folder + "/run.state", every=NEVER)],
            lambda folder: [TrainingState(folder + "/run.state", every=BLOCK)],
            500,
            {},
        ),
        'WeightAveraging("ema")': (
            lambda folder: [WeightAveraging(every=NEVER)],
            lambda folder: [WeightAveraging(every=BLOCK)],
            averaging,
            {},
        ),
    }


def measure(names, rounds, jit):
    """Prints a line a row."""
    chosen = {name: row for name, row in rows().items() if not names or any(part in name for part in names)}
    arrays = data(rounds, sum(1 if row[1] is None else 2 for row in chosen.values()))
    plain = {key: Run(arrays, jit, dict(key)) for key in {tuple(row[3].items()) for row in chosen.values()}}
    runs = {}
    for name, (each, event, _, options) in chosen.items():
        runs[name, "each"] = Run(arrays, jit, options, each)
        if event is not None:
            runs[name, "event"] = Run(arrays, jit, options, event)
    for run in [*plain.values(), *runs.values()]:  # one at a time, also while they compile
        run.block()
        run.block()
    pairs: dict = {key: [] for key in runs}
    for number in range(rounds):
        for key, run in runs.items():
            without = plain[tuple(chosen[key[0]][3].items())]
            first, second = (without, run) if number % 2 else (run, without)
            seconds = {id(first): first.block(), id(second): second.block()}
            pairs[key].append((seconds[id(without)], seconds[id(run)]))
    for run in [*plain.values(), *runs.values()]:
        run.end()
    for name, (_, _, every, _) in chosen.items():
        print_row(name, pairs[name, "each"], pairs.get((name, "event")), every)


def print_row(name, each, event, every):
    cells = []
    for clock in range(len(CLOCKS)):
        step = statistics.median(without[clock] for without, _ in each) / BLOCK * 1e6
        low, ratio, high = statistics.quantiles([run[clock] / without[clock] for without, run in each], n=4)
        overhead, cost = ratio - 1, ""
        if event is not None:
            blocks = statistics.median(run[clock] / without[clock] for without, run in event) - ratio
            overhead += blocks * BLOCK / every
            cost = f"{blocks * BLOCK * step:.0f}"
        cells.append(f"{step:8.0f}{ratio:8.3f} ({low:.3f} {high:.3f}){cost:>9}{100 * overhead:8.2f} %")
    print(f"{name:24}{every or '':>6}" + "".join(cells), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the names of rows; all if none is given")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--jit", action="store_true", help="jit_compile=True, instead of Keras' choice")
    arguments = parser.parse_args()
    jit = True if arguments.jit else "auto"
    print(f"Keras {keras.__version__}, {keras.backend.backend()}, jit_compile={jit}, blocks of {BLOCK} updates")
    columns = f"{'step us':>8}{'ratio':>8} {'(quartiles)':13}{'event us':>9}{'overhead':>10}"
    print(f"{'':30}{'clock':<48}processors\n{'':24}{'every':>6}{columns}{columns}", flush=True)
    measure(arguments.names, arguments.rounds, jit)


if __name__ == "__main__":
    main()

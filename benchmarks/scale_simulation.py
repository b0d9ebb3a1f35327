"""Time to a loss for more workers and larger batches: measured steps, modeled communication and gradient noise.

Measured here: the time that one core takes for a step of the character model, at some batch sizes, and the gradient noise
scale of the model. All else follows from formulas, in this file: a ring all-reduce with a stated bandwidth and latency, the
number of steps at a batch size B, S_min (1 + B_crit / B) (McCandlish et al. 2018), and how often workers that train apart
average (QSR, Gu et al. 2023).

    python benchmarks/scale_simulation.py --data-dir FOLDER --out docs/benchmarks

writes scale_measured.csv, scale.csv, scale_qsr.csv and two pictures. What is in scale_measured.csv is not measured again.
"""

import argparse
import csv
import os
import time
from pathlib import Path

os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}  # a worker is one core

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_lrsched import schedules
from keras_lrsched.schedules import SynchronizationPeriod
from keras_lrsched.study import workloads

BATCH_SIZES = (4, 16, 64, 256)
REPEATS = 3
NOISE_UPDATES, ACCUMULATED = 100, 4
WORKERS = (1, 8, 64, 512, 4096)
PER_WORKER = tuple(2**i for i in range(9))
SCHEDULES = ("cosine", "wsd", "rex")
RATIOS = (1.0, 2.0, 4.0)
"""alpha of QSR as a multiple of the peak learning rate."""
BASE_PERIOD = 4
UPDATES = 10_000


def main():
    arguments = _arguments()
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    measured = out / "scale_measured.csv"
    if not measured.exists():
        _write(measured, measure(workloads.load("shakespeare" if arguments.data_dir else "pydoc", arguments.data_dir)))
    model = Model.read(measured, arguments)
    rows = [model.row(workers) for workers in WORKERS]
    _write(out / "scale.csv", rows)
    _show(f"best batch size for each number of workers ({model})", rows)
    rows = [qsr(name, ratio) for name in SCHEDULES for ratio in RATIOS]
    _write(out / "scale_qsr.csv", rows)
    _show(f"averages in {UPDATES} updates, H = max({BASE_PERIOD}, floor((alpha / lr)^2))", rows)
    _picture(model, out / "scale.png")
    _picture_of_qsr(out / "scale_qsr.png")


def measure(workload):
    """Seconds of a core for a step at each batch size, the noise scale, and the size of the model: rows of a file."""
    rows = [{"what": f"step_{size}", "value": _step_seconds(workload, size)} for size in BATCH_SIZES]
    model = workload.compiled_model(workload.peak_learning_rate, seed=0)
    rows.append({"what": "parameters", "value": model.count_params()})
    rows.append({"what": "noise_scale", "value": _noise_scale(workload)})
    return rows


def _step_seconds(workload, size):
    """The least of some repeats, in processor time: other programs on the machine do not count."""
    usual, workload.batch_size = workload.batch_size, size
    model = workload.compiled_model(workload.peak_learning_rate, seed=0, jit_compile=False)
    x, y = workload.train_batch(0, seed=0)
    steps, times = max(2, 256 // size), []
    for _ in range(1 + REPEATS):  # the first one compiles
        begin = time.process_time()
        for _ in range(steps):
            model.train_on_batch(x, y)
        times.append((time.process_time() - begin) / steps)
    workload.batch_size = usual
    return min(times[1:])


def _noise_scale(workload):
    import keras

    from keras_lrsched.callbacks import GradientNoiseScale

    model = workload.compiled_model(workload.peak_learning_rate, seed=0, jit_compile=False)
    optimizer = keras.optimizers.AdamW(
        workload.peak_learning_rate, weight_decay=0.1, beta_2=0.99, gradient_accumulation_steps=ACCUMULATED
    )
    model.compile(optimizer, model.loss, jit_compile=False)
    noise = GradientNoiseScale()
    steps = NOISE_UPDATES * ACCUMULATED
    model.fit(workload.stream(0), steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[noise])
    return noise.noise_scale


class Model:
    """Times and steps as functions of the number of workers N and the batch b of each; the batch is B = N b."""

    def __init__(self, sizes, seconds, parameters, critical_batch, bandwidth, latency):
        per_sample, fixed = np.polyfit(sizes, seconds, 1, w=1 / np.asarray(seconds))
        self.fixed, self.per_sample = max(fixed, 0.0), per_sample
        self.bytes = 4 * parameters
        self.critical_batch, self.bandwidth, self.latency = critical_batch, bandwidth, latency

    @classmethod
    def read(cls, path, arguments):
        with open(path, encoding="utf-8", newline="") as file:
            values = {row["what"]: float(row["value"]) for row in csv.DictReader(file)}
        seconds = [values[f"step_{size}"] for size in BATCH_SIZES]
        parameters = values["parameters"] * arguments.times_parameters
        noise = values["noise_scale"]
        return cls(BATCH_SIZES, seconds, parameters, noise, arguments.gigabits * 1e9 / 8, arguments.microseconds * 1e-6)

    def __str__(self):
        compute = f"{1e3 * self.fixed:.2f} ms + {1e3 * self.per_sample:.3f} ms b"
        return f"step of a worker {compute}, gradients {self.bytes / 1e6:.2f} MB, critical batch {self.critical_batch:.0f}"

    def compute(self, batch):
        return self.fixed + self.per_sample * batch

    def all_reduce(self, workers):
        """Ring: 2 (N - 1) messages, one after the other, of a part of the gradients each."""
        return 2 * (workers - 1) * (self.bytes / workers / self.bandwidth + self.latency)

    def step(self, workers, batch):
        return self.compute(batch) + self.all_reduce(workers)

    def goodput(self, workers, batch):
        """Progress a second, in steps of a batch without noise: S_min / S over the time of a step."""
        return 1 / (1 + self.critical_batch / (workers * batch)) / self.step(workers, batch)

    def best(self, workers):
        return max(PER_WORKER, key=lambda batch: self.goodput(workers, batch))

    def row(self, workers):
        batch = self.best(workers)
        one = self.goodput(1, self.best(1))
        return {
            "workers": workers,
            "batch_of_a_worker": batch,
            "batch": workers * batch,
            "step_ms": round(1e3 * self.step(workers, batch), 2),
            "communication": round(self.all_reduce(workers) / self.step(workers, batch), 3),
            "goodput": round(self.goodput(workers, batch), 3),
            "speed_up": round(self.goodput(workers, batch) / one, 1),
            "efficiency": round(self.goodput(workers, batch) / one / workers, 4),
            "samples": round(1 + workers * batch / self.critical_batch, 2),
        }


def qsr(name, ratio):
    """Number of averages under a schedule with peak 1, beside one at each step and one every H_base."""
    averages = _period(name, ratio).averages()
    lengths = np.diff([0, *averages])
    return {
        "schedule": name,
        "alpha_over_peak": ratio,
        "averages": len(averages),
        "of_every_step": round(len(averages) / UPDATES, 4),
        "of_every_base_period": round(len(averages) * BASE_PERIOD / UPDATES, 3),
        "longest_period": int(lengths.max()),
    }


def _period(name, ratio):
    schedule = schedules.get(name, 1.0, UPDATES, warmup_steps=0)
    return SynchronizationPeriod(schedule, alpha=ratio, base_period=BASE_PERIOD, total_steps=UPDATES)


def _picture(model, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    per_worker = np.geomspace(1, PER_WORKER[-1], 100)
    for workers in WORKERS:
        left.loglog(workers * per_worker, model.goodput(workers, per_worker), label=f"{workers} workers")
    left.axvline(model.critical_batch, color="grey", linestyle=":", label="critical batch size")
    left.set(xlabel="batch size of all workers", ylabel="goodput (noise-free steps a second)")
    left.legend(frameon=False, fontsize=8)
    workers = np.unique(np.geomspace(1, WORKERS[-1], 60).astype(int))
    rows = [model.row(int(each)) for each in workers]
    right.loglog(workers, workers, color="grey", linestyle=":", label="as many times faster")
    right.loglog(workers, [row["speed_up"] for row in rows], label="best batch size")
    fixed = [model.goodput(each, model.best(1)) / model.goodput(1, model.best(1)) for each in workers]
    right.loglog(workers, fixed, "--", label=f"{model.best(1)} samples a worker")
    right.set(xlabel="workers", ylabel="speed-up over one worker")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _picture_of_qsr(path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, name in enumerate(SCHEDULES):
        period = _period(name, 2.0)
        left.plot(period.learning_rate.values(UPDATES), color=f"C{number}", label=name)
        averages = period.averages()
        right.step([0, *averages], range(len(averages) + 1), where="post", color=f"C{number}", label=name)
    right.plot([0, UPDATES], [0, UPDATES / BASE_PERIOD], color="grey", linestyle=":", label=f"every {BASE_PERIOD} updates")
    left.set(xlabel="updates", ylabel="learning rate / peak")
    right.set(xlabel="updates", ylabel="averages so far, alpha = 2 x peak")
    left.legend(frameon=False)
    right.legend(frameon=False)
    figure.savefig(path, dpi=110)


def _write(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _show(title, rows):
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=150).print(table)


def _arguments():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", help="folder with tinyshakespeare.txt (default: Python's help texts instead)")
    parser.add_argument("--gigabits", type=float, default=10.0, help="bandwidth of a link, Gbit/s (default: 10)")
    parser.add_argument("--microseconds", type=float, default=5.0, help="latency of a message (default: 5)")
    parser.add_argument("--times-parameters", type=float, default=1.0, help="gradients so many times larger (default: 1)")
    parser.add_argument("--out", default="scale", help="folder for tables and pictures")
    return parser.parse_args()


if __name__ == "__main__":
    main()

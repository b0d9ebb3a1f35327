"""Workloads: the time of a step with and without XLA, that of its compilation, and what a cosine ends with.

Times are those of the processor, in all threads, since runs of a study share the cores. Both steps of a workload are timed
in turns in one process, and the fastest of the rounds counts. `saves after` is the number of steps that make up for the
compilation: a comparison by `keras-lrsched compare` has about 4,000 on one compiled step. Then each workload is trained for
its budgets at its peak, at half of it and at twice; `reached` counts the seeds that end at the target.

Run: python benchmarks/workloads.py [--workloads NAMES] [--seeds 3] [--no-training | --no-timing]
"""

import argparse
import time

import numpy as np

from keras_lrsched.study import Study, workloads

ROUNDS, STEPS = 10, 25
FACTORS = (0.5, 1.0, 2.0)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    own = ",".join(name for name in workloads.names() if not workloads.get(name).needs_data_dir)
    parser.add_argument("--workloads", default=own, help="default: all that need no folder")
    parser.add_argument("--data-dir", help="folder with the data of those that need some")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--budget", type=int, help="updates of a run (default: each of the workload's budgets)")
    parser.add_argument("--no-timing", dest="timing", action="store_false", help="leave out the first table")
    parser.add_argument("--no-training", dest="training", action="store_false", help="leave out the second table")
    arguments = parser.parse_args()
    names = arguments.workloads.split(",")
    if arguments.timing:
        print("| workload | weights | step, ms | by XLA, ms | compilation of XLA, s | saves after, steps | `use_xla` |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
        for name in names:
            print(timing(workloads.load(name, arguments.data_dir)), flush=True)
        print()
    if arguments.training:
        peaks = " | ".join(f"{factor:g} x peak" for factor in FACTORS)
        print(f"| workload | peak | budget | seconds | metric | {peaks} | target | reached |")
        print("| --- | ---: | ---: | ---: | --- |" + " ---: |" * (len(FACTORS) + 2))
        for name in names:
            workload = workloads.load(name, arguments.data_dir)
            for row in training(workload, [arguments.budget] if arguments.budget else workload.budgets, arguments.seeds):
                print(row, flush=True)


def timing(workload):
    """A row: both steps of a workload."""
    both = [Timed(workload, use_xla) for use_xla in (False, True)]
    for _ in range(ROUNDS):
        for each in both:
            each.round()
    plain, xla = (each.seconds for each in both)
    compilation = both[1].compilation - both[0].compilation
    after = f"{max(0.0, compilation) / (plain - xla):.0f}" if xla < plain else "never"
    return (
        f"| {workload.name} | {both[0].model.count_params():,} | {1e3 * plain:.2f} | {1e3 * xla:.2f} | {compilation:.1f} | "
        f"{after} | {workload.use_xla} |"
    )


class Timed:
    """One way to compile the step of a workload; `seconds` are those of a step in the fastest round so far."""

    def __init__(self, workload, use_xla):
        self.model = workload.compiled_model(workload.peak_learning_rate, seed=0, jit_compile=use_xla)
        self._batches = [workload.train_batch(step, seed=0) for step in range(STEPS)]
        self.seconds = np.inf
        self.compilation = self._time(2)

    def round(self):
        self.seconds = min(self.seconds, self._time(STEPS) / STEPS)

    def _time(self, steps):
        started = time.process_time()
        for x, y in self._batches[:steps]:
            self.model.train_on_batch(x, y)
        return time.process_time() - started


def training(workload, budgets, seeds):
    """A row a budget: where the cosine ends."""
    peaks = [factor * workload.peak_learning_rate for factor in FACTORS]
    for budget in budgets:
        study = Study(
            **workload.problem(), schedules=["cosine"], learning_rates=peaks, budget=budget, seeds=seeds, reuse_model=True
        )
        runs = study.outcomes(verbose=0)
        at = {peak: [each.final(workload.metric) for each in runs if each.trial.learning_rate == peak] for peak in peaks}
        ends = " | ".join(f"{np.mean(values):.4f}" for values in at.values())
        reached = sum(map(workload.reached, at[workload.peak_learning_rate]))
        seconds = np.mean([each.seconds for each in runs if each.trial.learning_rate == workload.peak_learning_rate])
        yield (
            f"| {workload.name} | {workload.peak_learning_rate:g} | {budget} | {seconds:.1f} | {workload.metric} | {ends} | "
            f"{workload.target:g} | {reached} of {seeds} |"
        )


if __name__ == "__main__":
    main()

"""Controllers that choose the learning rate while training, against a tuned cosine, from good and bad first guesses.

Each method is given one learning rate: the workload's own, a tenth of it, or ten times it. Constant and cosine use it as it
is; VolSched and the hypergradient start from it; AutoLRS and the finder search around it, a factor of 100 to either side.

    python benchmarks/adaptive.py --out FOLDER

prints, for each workload, the validation metric at the end and the updates until the workload's target. What AutoLRS and the
finder spend on searching is printed too; the updates do not count it.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_lrsched.callbacks import AutoLRS, HypergradientLearningRate, LearningRateFinder, VolSched
from keras_lrsched.study import Study, Trial, workloads

BUDGETS = {"digits": 300, "pydoc": 600}
TARGETS = {"digits": 0.98, "pydoc": 2.0}
GUESSES = (0.1, 1.0, 10.0)
TUNING = (0.3, 1.0, 3.0)
AROUND = 100.0
METHODS = ("constant", "cosine", "finder + cosine", "AutoLRS", "VolSched", "hypergradient")


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", default="digits,pydoc", help="default: digits,pydoc")
    parser.add_argument("--budget", type=int, help="updates of a run (default: 300 of digits, 600 of pydoc)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--out", default="adaptive", help="folder for results.csv")
    arguments = parser.parse_args()
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    rows = []
    for name in arguments.workloads.split(","):
        bench = Bench(workloads.load(name), arguments.budget or BUDGETS[name], TARGETS[name], arguments.seeds)
        for factor in TUNING:
            rows += [row | {"method": "tuned cosine"} for row in bench.rows("cosine", factor)]
        for method in METHODS:
            for factor in GUESSES:
                found = bench.rows(method, factor)
                print(f"{name}, {method}, {factor:g} x: {[round(row['metric'], 4) for row in found]}", flush=True)
                rows += found
        bench.report([row for row in rows if row["workload"] == name])
    with (Path(arguments.out) / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def autolrs(rate, budget):
    sizes = {"search_steps": budget // 30, "exploitation_steps": budget // 6, "max_exploitation_steps": budget // 3}
    return AutoLRS(rate / AROUND, rate * AROUND, candidates=6, **sizes)


def volsched(rate, budget):
    return VolSched(total_steps=budget, every=budget // 15, min_learning_rate=rate / 1000)


def hypergradient(rate, budget):
    return HypergradientLearningRate(max_learning_rate=None)


class Bench:
    """All methods on one workload."""

    def __init__(self, workload, budget, target, seeds):
        self.workload, self.budget, self.target, self.seeds = workload, budget, target, range(seeds)
        self.controller = None
        controllers = {"AutoLRS": autolrs, "VolSched": volsched, "hypergradient": hypergradient}
        self.study = Study(
            **workload.problem(),
            schedules={"constant": "constant", "cosine": "cosine"} | {k: self._kept(v) for k, v in controllers.items()},
            learning_rates=workload.peak_learning_rate,
            budget=budget,
            warmup_steps=budget // 20,
            evaluations=12,
            reuse_model=True,
        )
        [self.optimizer] = self.study.optimizers

    def _kept(self, make):
        """The function, whose last controller is that of the run."""

        def controller(peak_learning_rate, total_steps):
            self.controller = make(peak_learning_rate, total_steps)
            return self.controller

        return controller

    def rows(self, method, factor):
        """The runs of a method from a guess, one for each seed."""
        return [self._row(method, factor, seed) for seed in self.seeds]

    def _row(self, method, factor, seed):
        rate, searched, self.controller = factor * self.workload.peak_learning_rate, 0, None
        if method == "finder + cosine":
            rate, searched = self._found(rate, seed)
        schedule = "cosine" if method == "finder + cosine" else method
        [run] = self.study.run_trials([Trial(self.optimizer, schedule, rate, self.budget, seed)])
        return {
            "workload": self.workload.name,
            "method": method,
            "factor": factor,
            "seed": seed,
            "metric": float(run.evaluations[self.workload.metric][-1]),
            "steps_to_target": run.steps_to(self.target, self.workload.metric, self.workload.mode),
            "steps_searched": getattr(self.controller, "search_steps_done", searched),
            "last_rate": float(run.learning_rate[-1]),
        }

    def _found(self, rate, seed):
        """The suggestion of the range test, and the updates that it took."""
        model = self.workload.compiled_model(rate, self.study.keras_seed(seed), self.workload.jit_compile())
        finder = LearningRateFinder(rate / AROUND, rate * AROUND, total_steps=100)
        return finder.find(model, self.study.batches(seed), shuffle=False), len(finder.losses)

    def report(self, rows):
        workload, best = self.workload, max if self.workload.larger_is_better else min
        tuned = {
            factor: [row for row in rows if row["method"] == "tuned cosine" and row["factor"] == factor] for factor in TUNING
        }
        factor = best(TUNING, key=lambda factor: np.mean([row["metric"] for row in tuned[factor]]))
        title = f"{workload.name}: {workload.metric} after {self.budget} updates, and updates to {self.target:g}"
        guesses = [f"{guess:g} x {workload.peak_learning_rate:g}" for guess in GUESSES]
        table = Table("method", *guesses, "searched", title=title)
        table.add_row(f"tuned cosine ({factor:g} x)", "", _cell(tuned[factor]), "", "")
        for method in METHODS:
            mine = [row for row in rows if row["method"] == method]
            cells = [_cell([row for row in mine if row["factor"] == guess]) for guess in GUESSES]
            table.add_row(method, *cells, f"{np.mean([row['steps_searched'] for row in mine]):.0f}")
        Console(width=120).print(table)


def _cell(rows):
    metric = [row["metric"] for row in rows]
    reached = sorted(row["steps_to_target"] for row in rows)[len(rows) // 2]
    return f"{np.mean(metric):.3f} ±{np.std(metric):.3f}  {'-' if np.isinf(reached) else f'{reached:g}'}"


if __name__ == "__main__":
    main()

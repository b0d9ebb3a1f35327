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

from keras_lrsched import schedules
from keras_lrsched.callbacks import AutoLRS, HypergradientLearningRate, LearningRateFinder, VolSched
from keras_lrsched.study import workloads
from keras_lrsched.study.compare import Job, Trainer

BUDGETS = {"digits": 300, "pydoc": 600}
TARGETS = {"digits": 0.98, "pydoc": 2.0}
GUESSES = (0.1, 1.0, 10.0)
TUNING = (0.3, 1.0, 3.0)
AROUND = 100.0
METHODS = ("constant", "cosine", "finder + cosine", "AutoLRS", "VolSched", "hypergradient")


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", default="digits,pydoc", help="default: digits,pydoc")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--out", default="adaptive", help="folder for results.csv")
    arguments = parser.parse_args()
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    rows = []
    for name in arguments.workloads.split(","):
        workload = workloads.load(name)
        workload.target = TARGETS[name]
        trainer, budget, seeds = Trainer(workload), BUDGETS[name], range(arguments.seeds)
        for factor in TUNING:
            rows += [_run(trainer, "cosine", factor, budget, seed) | {"method": "tuned cosine"} for seed in seeds]
        for method in METHODS:
            for factor in GUESSES:
                rows += [_run(trainer, method, factor, budget, seed) for seed in seeds]
                print(
                    f"{name}, {method}, {factor:g} x: {[round(row['metric'], 4) for row in rows[-len(seeds) :]]}", flush=True
                )
        _report([row for row in rows if row["workload"] == name], workload, budget)
    with (Path(arguments.out) / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _run(trainer, method, factor, budget, seed):
    """One run, as a row of the table."""
    workload = trainer.workload
    rate, searched = factor * workload.peak_learning_rate, 0
    controller = _controller(method, rate, budget)
    if method == "finder + cosine":
        rate, searched = _found(trainer, rate, seed)
    label = "cosine" if "cosine" in method else "constant"
    schedule = schedules.get(label, rate, budget, warmup_steps=0 if controller else budget // 20)
    run = trainer.run(Job(workload, budget, seed, method, schedule), evaluations=12, controller=controller)
    return {
        "workload": workload.name,
        "method": method,
        "factor": factor,
        "seed": seed,
        "metric": float(run.metric[-1]),
        "steps_to_target": run.steps_to_target,
        "steps_searched": getattr(controller, "search_steps_done", searched),
        "last_rate": float(run.learning_rate[-1]),
    }


def _controller(method, rate, budget):
    if method == "AutoLRS":
        sizes = {"search_steps": budget // 30, "exploitation_steps": budget // 6, "max_exploitation_steps": budget // 3}
        return AutoLRS(rate / AROUND, rate * AROUND, candidates=6, **sizes)
    if method == "VolSched":
        return VolSched(total_steps=budget, every=budget // 15, min_learning_rate=rate / 1000)
    if method == "hypergradient":
        return HypergradientLearningRate(max_learning_rate=None)
    return None


def _found(trainer, rate, seed):
    """The suggestion of the range test, and the updates that it took."""
    finder = LearningRateFinder(rate / AROUND, rate * AROUND, total_steps=100)
    label = schedules.get("constant", rate, 100)
    trainer.run(Job(trainer.workload, 100, seed, "finder", label), evaluations=1, controller=finder)
    return finder.suggestion(), len(finder.losses)


def _report(rows, workload, budget):
    console, unit = Console(width=120), workload.metric
    best = max if workload.larger_is_better else min
    tuned = {
        factor: [row for row in rows if row["method"] == "tuned cosine" and row["factor"] == factor] for factor in TUNING
    }
    factor = best(TUNING, key=lambda factor: np.mean([row["metric"] for row in tuned[factor]]))
    title = f"{workload.name}: {unit} after {budget} updates, and updates to {workload.target:g}"
    table = Table("method", *(f"{guess:g} x {workload.peak_learning_rate:g}" for guess in GUESSES), "searched", title=title)
    table.add_row(f"tuned cosine ({factor:g} x)", "", _cell(tuned[factor]), "", "")
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        cells = [_cell([row for row in mine if row["factor"] == guess]) for guess in GUESSES]
        table.add_row(method, *cells, f"{np.mean([row['steps_searched'] for row in mine]):.0f}")
    console.print(table)


def _cell(rows):
    metric = [row["metric"] for row in rows]
    reached = sorted(row["steps_to_target"] or np.inf for row in rows)[len(rows) // 2]
    return f"{np.mean(metric):.3f} ±{np.std(metric):.3f}  {'-' if np.isinf(reached) else reached}"


if __name__ == "__main__":
    main()

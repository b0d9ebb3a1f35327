"""Predict the loss of schedules before they are run, then run them.

Two short runs of a character model, constant and cosine, are all that the laws are fitted to, anew for each seed; a third
run, with steps, is given to one of them, whose paper has such a run too. They then predict schedules that they have not
seen, for the same number of updates T and for 2T, and find the schedules that they like best. All are then trained and
compared with what was predicted.

    python benchmarks/predict_before_run.py --data-dir FOLDER --out FOLDER

The loss is that of the training batches, whose noise is the same for all schedules of a seed. Final means the last 5 % of
the updates, predicted and measured alike. Runs that already lie in the folder are not made again.
"""

import argparse
import csv
import warnings
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from keras_lrsched.laws import AnnealingLaw, ConvexBound, ExtrapolationWarning, LossCurve, MultiPowerLaw
from keras_lrsched.study import Study, Trial, workloads

FITTED = ("constant", "cosine")
UNSEEN = ("linear", "rex", "wsd", "wsd:cooldown=linear:decay_fraction=0.5", "step", "inverse_sqrt", "one_cycle")
LAWS = {
    "convex bound": (ConvexBound, FITTED),
    "multi-power": (MultiPowerLaw, FITTED),
    "multi-power, 3 runs": (MultiPowerLaw, (*FITTED, "step")),
    "annealing": (AnnealingLaw, FITTED),
}
OPTIMIZED = {f"best by {law}": law for law in LAWS if law != "annealing"}
WARMUP, FINAL = 0.05, 0.05
PIECES = 100


class Runs:
    """Curves of schedules on one workload, each run made once and kept in a folder."""

    def __init__(self, workload, schedules, steps, folder):
        self.study = Study(
            **workload.problem(),
            schedules=schedules,
            learning_rates=workload.peak_learning_rate,
            budget=2 * steps,
            warmup_steps=int(WARMUP * 2 * steps),
            evaluations=1,
            directory=folder,
            reuse_model=True,
        )
        self.peak = workload.peak_learning_rate

    def curve(self, label, steps, seed):
        [optimizer] = self.study.optimizers
        [run] = self.study.run_trials([Trial(optimizer, label, self.peak, steps, seed)])
        print(f"{label}, {steps} updates, seed {seed}: {run.seconds:.0f} s", flush=True)
        return LossCurve(run.loss, run.learning_rate)


def main():
    arguments = _arguments()
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    workload = workloads.load("shakespeare" if arguments.data_dir else "pydoc", arguments.data_dir)
    seeds, steps = range(arguments.seeds), arguments.steps
    horizons = (steps, 2 * steps)
    warnings.simplefilter("ignore", ExtrapolationWarning)  # twice as far is the question here
    known = sorted({label for _, labels in LAWS.values() for label in labels})
    first = Runs(workload, known, steps, folder / "fitted")
    laws = []
    for seed in seeds:
        fitted = {label: first.curve(label, steps, seed) for label in known}
        laws.append({name: law.fit([fitted[label] for label in labels]) for name, (law, labels) in LAWS.items()})
    best = {
        _own(label, seed): _best(laws[seed][law], workload, horizons) for label, law in OPTIMIZED.items() for seed in seeds
    }
    second = Runs(workload, {label: label for label in UNSEEN} | best, steps, folder / "predicted")

    def curve(label, horizon, seed):
        runs = first if label in known else second
        return runs.curve(_own(label, seed) if label in OPTIMIZED else label, horizon, seed)

    curves = {
        (label, horizon, seed): curve(label, horizon, seed)
        for horizon in horizons
        for label in (*FITTED, *UNSEEN, *OPTIMIZED)
        for seed in seeds
    }
    rows = [
        _compared(name, law, label, seed, each)
        for (label, _, seed), each in curves.items()
        for name, law in laws[seed].items()
    ]
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    console = Console(width=150)
    for fitted in laws:
        console.print(*fitted.values(), sep="\n")
    for horizon in horizons:
        _report([row for row in rows if row["updates"] == horizon], horizon, console)
    _picture(curves, laws[0], steps, folder / "predicted.png")


def _own(label, seed):
    """The label of the schedule that a law of one seed likes best."""
    return f"{label}, seed {seed}"


def _best(law, workload, horizons):
    """The schedules that a law likes best, as a function of the number of updates."""
    found = {steps: law.optimize(steps, workload.peak_learning_rate, warmup_steps=int(WARMUP * steps)) for steps in horizons}
    return lambda peak_learning_rate, total_steps: found[total_steps]


def _compared(name, law, label, seed, curve):
    """One law against one run: the final loss, and the curve behind warmup and the tenth of the run that follows it."""
    steps = len(curve.rates)
    after = curve.between(curve.peak_step + steps // 10).subsample(PIECES)
    predicted = law.predict(curve.rates, at=after.step)
    last = np.arange(steps - int(FINAL * steps), steps)
    unexplained = np.sum((after.loss - predicted) ** 2) / np.sum((after.loss - after.loss.mean()) ** 2)
    return {
        "law": name,
        "schedule": label,
        "updates": steps,
        "seed": seed,
        "predicted": float(law.predict(curve.rates, at=last).mean()),
        "measured": float(curve.loss[last].mean()),
        "r_squared": float(1 - unexplained),
    }


def _report(rows, steps, console):
    labels = (*FITTED, *UNSEEN, *OPTIMIZED)
    table = Table("schedule", "measured", *(f"{law}: predicted, error, R^2" for law in LAWS), title=f"{steps} updates")
    for label in labels:
        mine = [row for row in rows if row["schedule"] == label]
        measured = [row["measured"] for row in mine if row["law"] == mine[0]["law"]]
        cells = []
        for law in LAWS:
            by_law = [row for row in mine if row["law"] == law]
            cells.append(f"{_mean(by_law, 'predicted'):.4f}  {_error(by_law):.2%}  {_mean(by_law, 'r_squared'):.3f}")
        table.add_row(label, f"{np.mean(measured):.4f} ±{np.std(measured):.4f}", *cells)
    console.print(table)
    for law in LAWS:
        by_law = [row for row in rows if row["law"] == law]
        unseen = [row for row in by_law if row["schedule"] in UNSEEN and row["schedule"] not in LAWS[law][1]]
        final = {label: [row for row in by_law if row["schedule"] == label] for label in labels}
        means = [(_mean(final[label], "predicted"), _mean(final[label], "measured")) for label in (*FITTED, *UNSEEN)]
        console.print(
            f"{law}: unseen schedules: mean error {_error(unseen):.2%}, largest {max(map(_relative, unseen)):.2%}; "
            f"rank correlation, with those it was fitted to: {spearmanr(*zip(*means, strict=True)).statistic:.2f}"
        )
    measured = {label: _mean([row for row in rows if row["schedule"] == label], "measured") for label in labels}
    for label in OPTIMIZED:
        against = ", ".join(f"{measured[label] - measured[other]:+.4f} {other}" for other in ("cosine", "linear", "wsd"))
        console.print(f"{label}, against: {against}")
    console.print()


def _mean(rows, column):
    return float(np.mean([row[column] for row in rows]))


def _relative(row):
    return abs(row["predicted"] / row["measured"] - 1)


def _error(rows):
    return float(np.mean([_relative(row) for row in rows]))


def _picture(curves, laws, steps, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row", gridspec_kw={"height_ratios": [1, 2]})
    law = laws["convex bound"]
    for column, horizon in enumerate((steps, 2 * steps)):
        for number, label in enumerate(("constant", "linear", "wsd", "one_cycle", "best by convex bound")):
            curve = curves[label, horizon, 0]
            shown = curve.between(curve.peak_step + horizon // 10).subsample(PIECES)
            axes[0, column].plot(curve.rates, color=f"C{number}", label=label)
            axes[1, column].plot(shown.step, shown.loss, ".", markersize=3, color=f"C{number}")
            axes[1, column].plot(shown.step, law.predict(curve.rates, at=shown.step), color=f"C{number}")
        axes[0, column].set_title(f"{horizon} updates" + (" (twice as long as any run the law has seen)" if column else ""))
        axes[0, column].set_xlabel("updates")
        axes[1, column].set_xlabel("updates")
    axes[0, 0].set_ylabel("learning rate")
    axes[1, 0].set_ylabel("training loss: predicted (line), measured (dots)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=110)


def _arguments():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-dir", help="folder with tinyshakespeare.txt (default: Python's help texts instead)")
    parser.add_argument("--steps", type=int, default=2000, help="T (default: 2000)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--out", default="predict_before_run", help="folder for curves, table and picture")
    return parser.parse_args()


if __name__ == "__main__":
    main()

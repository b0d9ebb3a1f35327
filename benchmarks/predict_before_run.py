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
import re
import warnings
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from keras_lrsched import schedules
from keras_lrsched.laws import AnnealingLaw, ConvexBound, ExtrapolationWarning, LossCurve, MultiPowerLaw
from keras_lrsched.study import workloads
from keras_lrsched.study.compare import Job, Trainer

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


class Runner:
    """Runs schedules on one workload, once, and keeps their curves in a folder."""

    def __init__(self, workload, folder):
        self.workload, self.folder, self._trainer = workload, folder, None

    def schedule(self, label, steps, laws):
        warmup, peak = int(WARMUP * steps), self.workload.peak_learning_rate
        if label in OPTIMIZED:
            return laws[OPTIMIZED[label]].optimize(steps, peak, warmup_steps=warmup)
        return schedules.get(label, peak, steps, warmup_steps=warmup)

    def curve(self, label, steps, seed, laws=None):
        path = self.folder / f"{re.sub('[^a-z0-9._=-]', '_', label)}-{steps}-{seed}.npz"
        if not path.exists():
            self._trainer = self._trainer or Trainer(self.workload)
            job = Job(self.workload, steps, seed, label, self.schedule(label, steps, laws))
            run = self._trainer.run(job, evaluations=1)
            LossCurve(run.loss, run.learning_rate).save(path)
            print(f"{label}, {steps} updates, seed {seed}: {run.seconds:.0f} s", flush=True)
        return LossCurve.load(path)


def main():
    arguments = _arguments()
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    workload = workloads.load("shakespeare" if arguments.data_dir else "pydoc", arguments.data_dir)
    runner, seeds, steps = Runner(workload, folder), range(arguments.seeds), arguments.steps
    warnings.simplefilter("ignore", ExtrapolationWarning)  # twice as far is the question here
    laws = []
    for seed in seeds:
        laws.append(
            {name: law.fit([runner.curve(label, steps, seed) for label in runs]) for name, (law, runs) in LAWS.items()}
        )
    rows = []
    for horizon in (steps, 2 * steps):
        for label in (*FITTED, *UNSEEN, *OPTIMIZED):
            for seed in seeds:
                curve = runner.curve(label, horizon, seed, laws[seed])
                rows += [_compared(name, law, label, seed, curve) for name, law in laws[seed].items()]
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    console = Console(width=150)
    for fitted in laws:
        console.print(*fitted.values(), sep="\n")
    for horizon in (steps, 2 * steps):
        _report([row for row in rows if row["updates"] == horizon], horizon, console)
    _picture(runner, laws[0], steps, folder / "predicted.png")


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


def _picture(runner, laws, steps, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row", gridspec_kw={"height_ratios": [1, 2]})
    law = laws["convex bound"]
    for column, horizon in enumerate((steps, 2 * steps)):
        for number, label in enumerate(("constant", "linear", "wsd", "one_cycle", "best by convex bound")):
            curve = runner.curve(label, horizon, 0)
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

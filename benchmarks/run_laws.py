"""Fit the laws over runs to published losses, and predict larger runs.

For over-training, the fit to the five runs of the paper stands beside that to all small runs: what is predicted hangs on the
choice. For Chinchilla's points, runs below 1e20 FLOP predict those above 1e21.

    python benchmarks/run_laws.py --data-dir FOLDER

The folder has overtraining_104_models.csv (mlfoundations/scaling) and chinchilla_figure4_245_points.csv
(epoch-research/analyzing-chinchilla). A few seconds.
"""

import argparse
import csv
import time
import warnings
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_lrsched.laws import OvertrainingLaw, RunTable, ScalingLaw

SETS = {"rpj": "RedPajama", "c4_original": "C4", "rw_original": "RefinedWeb"}
SMALL = ("d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8")
LARGE = 1e20
"""FLOP: runs with more are predicted."""


def main():
    folder = Path(_arguments().data_dir)
    warnings.simplefilter("ignore")  # extrapolation is the question here
    Console().print(_overtraining(folder / "overtraining_104_models.csv"))
    for table in _chinchilla(RunTable.read(folder / "chinchilla_figure4_245_points.csv")):
        Console().print(table)


def _overtraining(path):
    """Each run above 1e20 FLOP, predicted by five runs and by all below."""
    table = Table(
        "train set", "parameters", "tokens", "loss", "5 runs", "", "all small runs", "", "90 %", title="over-training"
    )
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for name, title in SETS.items():
        runs = RunTable.read(path, {"loss": "loss_c4_val"}, where={"dataset_name": name})
        own = [row for row in rows if row["dataset_name"] == name]
        model, ratio = np.array([row["model_name"] for row in own]), np.array([float(row["tok_mult"]) for row in own])
        five = (np.isin(model, SMALL) & (ratio == 20)) | ((model == SMALL[0]) & (ratio == 320))
        by_five, by_all = OvertrainingLaw.fit(runs.take(five)), OvertrainingLaw.fit(runs.take(runs.compute < LARGE))
        for row in np.flatnonzero(runs.compute >= LARGE):
            at = runs.parameters[row], runs.tokens[row]
            loss, interval = by_five.loss(*at), by_all.interval(*at)
            table.add_row(
                title,
                *(f"{number:.3g}" for number in at),
                f"{runs.loss[row]:.4f}",
                *_compared(loss, runs.loss[row]),
                *_compared(interval.predicted, runs.loss[row]),
                f"{interval.low:.3f} to {interval.high:.3f}",
            )
    return table


def _chinchilla(runs):
    """The fit with intervals, and large runs from small ones."""
    highest = np.argsort(runs.loss)[-5:]
    law = ScalingLaw.fit(runs, exclude=highest)
    begin = time.perf_counter()
    intervals = law.coefficient_intervals(level=0.95, samples=1000)
    seconds = time.perf_counter() - begin
    table = Table("number", "fit", "95 %", title=f"Chinchilla, {len(runs) - 5} runs; 1000 refits in {seconds:.1f} s")
    for name, (low, fitted, high) in intervals.items():
        table.add_row(name, f"{fitted:.5g}", f"{low:.4g} to {high:.4g}")
    yield table
    kept = runs.take(np.setdiff1d(np.arange(len(runs)), highest))
    small, large = kept.take(kept.compute < LARGE), kept.take(kept.compute > 10 * LARGE)
    law = ScalingLaw.fit(small)
    errors = law.loss(large.parameters, large.tokens) / large.loss - 1
    table = Table("fitted to", "predicted", "mean error", "largest", title="Chinchilla, large runs from small ones")
    table.add_row(
        f"{len(small)} runs below 1e20 FLOP",
        f"{len(large)} above 1e21",
        f"{np.abs(errors).mean():.2%}",
        f"{errors[np.argmax(np.abs(errors))]:+.2%}",
    )
    yield table


def _compared(predicted, measured):
    return f"{predicted:.4f}", f"{predicted / measured - 1:+.2%}"


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="folder with the two tables")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Every optimizer as it comes and tuned, against a tuned `keras.optimizers.AdamW`, on two small tasks.

Each trains at 0.1, 1 and 10 times the learning rate that is its default, all else at its default, with three seeds. To tune
it, the first seed also trains at 0.3 and 3 times that rate and, as long as the lowest or the highest rate is the best, at
the next one beyond, three at most. The best by the metric at the end, or by the loss among equals, is then run with the
other seeds. AdamW of Keras is tuned in the same way.

The rate follows a cosine to zero after a warmup of 5 %, with these exceptions: Schedule-Free stays constant after the
warmup; Prodigy, D-Adaptation, Mechanic and OASIS have a cosine without warmup; COCOB, DoG and DoWG have a constant rate and
no warmup. Sophia trains a `SophiaModel`, OASIS an `OASISModel`; `sharpness_aware` is AdamW under `SharpnessAware`, two
passes an update.

    python benchmarks/optimizers.py --out docs/benchmarks/optimizers.csv
    python benchmarks/optimizers.py --out docs/benchmarks/optimizers.csv --table --picture docs/benchmarks/optimizers.png

The first adds a line for each run to the file and makes only those runs that the file lacks; the second prints the tables
and draws the picture. A step's time is that of the processor, in `fit`, next to the same for AdamW of Keras, in turns.
"""

import argparse
import csv
import itertools
import statistics
import time
import warnings
from functools import partial
from pathlib import Path

import keras
import numpy as np

from keras_lrsched import optimizers
from keras_lrsched.callbacks import ScheduleFreeEvaluation
from keras_lrsched.optimizers import OASISModel, SharpnessAware, SophiaModel
from keras_lrsched.optimizers._low_precision import bytes_of
from keras_lrsched.optimizers._schedule_free import ScheduleFree
from keras_lrsched.study import Study, Trial, workloads

BASELINE = "keras AdamW"
BUDGETS = {"digits": 200, "pydoc": 200}
UNTUNED, BETWEEN = (0.1, 1.0, 10.0), (0.3, 3.0)
BELOW, ABOVE = (0.03, 0.01, 0.003), (30.0, 100.0, 300.0)
WARMUP = 0.05
NO_WARMUP = ("prodigy", "dadapt_adam", "dadapt_lion", "dadapt_sgd", "cocob", "dog", "dowg", "mechanic", "oasis")
AROUND_THE_MODEL = {"oasis": OASISModel, "sophia": SophiaModel, "sharpness_aware": SharpnessAware}
CONSTANT = ("schedule_free_adamw", "schedule_free_plus", "schedule_free_radam", "schedule_free_sgd", "cocob", "dog", "dowg")
EVALUATIONS = 10
ROUNDS, BLOCK = 5, 30
COLUMNS = (
    *("workload", "optimizer", "schedule", "factor", "learning_rate", "seed", "updates"),
    *("loss", "accuracy", "steps_to_target", "step_ms", "step_ratio", "bytes_per_parameter"),
)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", default="digits,pydoc", help="default: digits,pydoc")
    parser.add_argument("--optimizers", help="names, with commas between (default: all)")
    parser.add_argument("--budget", type=int, help="updates of a run (default: 200)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--out", type=Path, default=Path("optimizers.csv"), help="default: optimizers.csv")
    parser.add_argument("--table", action="store_true", help="only print what the file has")
    parser.add_argument("--picture", help="a PNG of the loss at each rate")
    arguments = parser.parse_args()
    names = arguments.workloads.split(",")
    if not arguments.table:
        warnings.filterwarnings("ignore", message=".*learning_rate")  # far from 1 for methods that find it themselves
        for name in names:
            workload, budget = workloads.load(name), arguments.budget or BUDGETS[name]
            Bench(workload, budget, arguments.out, range(arguments.seeds)).run(arguments.optimizers)
    rows = {name: finished([row for row in read(arguments.out) if row["workload"] == name]) for name in names}
    for name in names:
        print(table(rows[name], workloads.get(name)))
        print(standings(rows[name], workloads.get(name)))
    if arguments.picture:
        picture(rows, arguments.picture)


class Bench:
    """All optimizers on one workload."""

    def __init__(self, workload, budget, path, seeds):
        self.workload, self.budget, self.path, self.seeds = workload, budget, path, seeds
        self.rows = [row for row in read(path) if row["workload"] == workload.name]
        self.baseline = None

    def run(self, chosen=None):
        makers = {BASELINE: keras.optimizers.AdamW, **{name: partial(optimizers.get, name) for name in optimizers.names()}}
        makers["sharpness_aware"] = partial(optimizers.get, "adamw")
        for name in chosen.split(",") if chosen else makers:
            self._runs(name, makers[name])

    def _runs(self, name, make):
        """All runs of an optimizer that are missing, on one compiled step."""
        default, measured = float(make().learning_rate), None
        done = {(row["factor"], row["seed"]) for row in self.rows if row["optimizer"] == name}
        for factor, seed in self._plan(name):
            if (factor, seed) not in done:
                measured = measured or Measured(self, name, make)
                self._add(measured.row(factor, factor * default, seed))
                done.add((factor, seed))
        print(f"{self.workload.name}, {name}: done", flush=True)

    def _plan(self, name):
        """Factors and seeds; what comes later depends on the runs before."""
        yield from itertools.product(UNTUNED, self.seeds)
        yield from itertools.product(BETWEEN, self.seeds[:1])
        for edge, beyond in ((min(UNTUNED), BELOW), (max(UNTUNED), ABOVE)):
            for factor in beyond:
                if best_factor(self.rows, name, self.workload) != edge:
                    break
                yield factor, self.seeds[0]
                edge = factor
        yield from itertools.product([best_factor(self.rows, name, self.workload)], self.seeds)

    def _add(self, row):
        self.rows.append(row)
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if is_new:
                writer.writeheader()
            writer.writerow(row)


class Measured:
    """One optimizer on one workload; how long a step takes and how large the state is."""

    def __init__(self, bench, name, make):
        self.bench, self.name, workload = bench, name, bench.workload
        self.budget, self.warmup = bench.budget, 0 if name in NO_WARMUP else int(WARMUP * bench.budget)
        self.schedule = "constant" if name in CONSTANT else "cosine"
        around, optimizer = AROUND_THE_MODEL.get(name, lambda model: model), make()
        problem = workload.problem() | {"optimizers": {name: lambda rate: make(learning_rate=rate)}, "grid_center": None}
        problem["build_model"] = lambda: around(workload.build_model())
        self.study = Study(
            **problem,
            schedules=[self.schedule],
            learning_rates=float(optimizer.learning_rate),
            budget=self.budget,
            warmup_steps=self.warmup,
            evaluations=EVALUATIONS,
            callbacks=lambda: [ScheduleFreeEvaluation()] if isinstance(optimizer, ScheduleFree) else [],
            reuse_model=True,
        )
        self.step = Step(problem["build_model"](), optimizer, workload)
        bench.baseline = bench.baseline or (
            self.step if name == BASELINE else Step(workload.build_model(), keras.optimizers.AdamW(), workload)
        )
        self.cost = {**_times(self.step, bench.baseline), **_bytes(optimizer)}

    def row(self, factor, learning_rate, seed):
        workload = self.bench.workload
        [run] = self.study.run_trials([Trial(self.name, self.schedule, learning_rate, self.budget, seed)])
        steps = run.steps_to(workload.target, workload.metric, workload.mode)
        accuracy = run.evaluations["val_accuracy"][-1] if workload.metric == "val_accuracy" else float("nan")
        return {
            "workload": workload.name,
            "optimizer": self.name,
            "schedule": f"{self.schedule}, warmup {self.warmup}",
            "factor": factor,
            "learning_rate": f"{learning_rate:.6g}",
            "seed": seed,
            "updates": self.budget,
            "loss": f"{run.final():.5f}",
            "accuracy": f"{accuracy:.5f}",
            "steps_to_target": "" if np.isinf(steps) else int(steps),
            **self.cost,
        }


class Step:
    """A compiled step, to be timed."""

    def __init__(self, model, optimizer, workload):
        self.model, self.workload = model, workload
        model.compile(optimizer, loss=workload.loss(), metrics=workload.metrics(), jit_compile=workload.jit_compile())

    def seconds(self):
        """Of a block of updates."""
        clock = Clock()
        self.model.fit(self.workload.stream(0), steps_per_epoch=BLOCK + 2, shuffle=False, verbose=0, callbacks=[clock])
        return clock.seconds


class Clock(keras.callbacks.Callback):
    """Processor time of a block of updates; the first two are not counted."""

    seconds = 0.0

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 2:
            self.seconds = -time.process_time()

    def on_train_batch_end(self, batch, logs=None):
        if batch == BLOCK + 1:
            self.seconds += time.process_time()


def _times(step, baseline):
    """Milliseconds of a step and its ratio to the other's, in the median of blocks that alternate."""
    pairs = [(step.seconds(), baseline.seconds()) for _ in range(ROUNDS)]
    ratios = [mine / other for mine, other in pairs[1:]]  # the first compiles
    return {
        "step_ms": f"{1000 * statistics.median(mine for mine, _ in pairs[1:]) / BLOCK:.3f}",
        "step_ratio": f"{statistics.median(ratios):.3f}",
    }


def _bytes(optimizer):
    """Of all state but the two scalars that each optimizer has, for each number that is trained."""
    own = [v for v in optimizer.variables if v is not optimizer._iterations and v is not optimizer._learning_rate]
    numbers = sum(int(np.prod(v.shape)) for v in optimizer._trainable_variables)
    return {"bytes_per_parameter": f"{sum(map(bytes_of, own)) / numbers:.3f}"}


def read(path):
    """The rows of the file, with numbers as such."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{**row, "factor": float(row["factor"]), "seed": int(row["seed"])} for row in csv.DictReader(file)]


def finished(rows):
    """The rows of optimizers that have been tried at all rates that are tried in any case."""
    tried = {row["optimizer"]: {other["factor"] for other in rows if other["optimizer"] == row["optimizer"]} for row in rows}
    return [row for row in rows if tried[row["optimizer"]] >= {*UNTUNED, *BETWEEN}]


def metrics(rows, workload):
    """At the end of each run; NaN if its loss is."""
    column = workload.metric.removeprefix("val_")
    return [float(row[column]) if np.isfinite(float(row["loss"])) else np.nan for row in rows]


def best_factor(rows, name, workload):
    """The factor that was best for the first seed; NaN is worse than all."""

    def badness(row):
        loss = np.nan_to_num(float(row["loss"]), nan=np.inf)
        return (-float(row["accuracy"]), loss) if workload.larger_is_better and np.isfinite(loss) else (0.0, loss)

    return min((row for row in rows if row["optimizer"] == name and row["seed"] == 0), key=badness)["factor"]


def table(rows, workload):
    """Markdown: a line an optimizer, the best of the tuned ones first."""
    heads = ("optimizer", "default rate", "0.1 x", "1 x", "10 x", "tuned", "at", "updates to target", "step", "bytes/param.")
    lines = [heads, ("---", *["---:"] * (len(heads) - 1))]
    for name in ranking(rows, workload):
        its, best = [row for row in rows if row["optimizer"] == name], best_factor(rows, name, workload)
        at = {factor: [row for row in its if row["factor"] == factor] for factor in (*UNTUNED, best)}
        cells = [_cell(metrics(at[factor], workload)) for factor in (*UNTUNED, best)]
        default = float(its[0]["learning_rate"]) / its[0]["factor"]
        costs = (f"{_median(its, 'step_ratio'):.2f} x", f"{_median(its, 'bytes_per_parameter'):.2f}")
        lines.append((f"`{name}`", f"{default:g}", *cells, f"{best:g} x", _steps(at[best]), *costs))
    title = f"{rows[0]['workload']}: {workload.metric} after {rows[0]['updates']} updates, target {workload.target:g}\n\n"
    return title + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def ranking(rows, workload):
    """Names of the optimizers, the best of the tuned ones first."""

    def badness(name):
        best = best_factor(rows, name, workload)
        value = np.mean(metrics([row for row in rows if (row["optimizer"], row["factor"]) == (name, best)], workload))
        return np.nan_to_num(-value if workload.larger_is_better else value, nan=np.inf)

    return sorted(sorted({row["optimizer"] for row in rows}), key=badness)


def standings(rows, workload):
    """Markdown: who is ahead of the tuned baseline and who is behind, by how much in the mean.

    One border for all: an optimizer is ahead if each of its seeds is better than each of the baseline's, behind if each is
    worse, and level with it else.
    """
    sign = 1 if workload.larger_is_better else -1
    tuned = {}
    for name in ranking(rows, workload):
        best = best_factor(rows, name, workload)
        at = [row for row in rows if (row["optimizer"], row["factor"]) == (name, best)]
        tuned[name] = sign * np.nan_to_num(metrics(at, workload), nan=-np.inf)
    baseline = tuned.pop(BASELINE)
    groups: dict[str, list[str]] = {"ahead": [], "level": [], "behind": []}
    for name, values in tuned.items():
        is_ahead, is_behind = values.min() > baseline.max(), values.max() < baseline.min()
        group = "ahead" if is_ahead else "behind" if is_behind else "level"
        groups[group].append(f"`{name}` {values.mean() - baseline.mean():+.3f}")
    return "\n".join(f"- {group} ({len(names)}): {', '.join(names) or '-'}" for group, names in groups.items()) + "\n"


def picture(rows, path):
    """A map for each workload: the mean loss at each rate; black beyond the scale, white where none was tried."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    figure, panels = plt.subplots(1, len(rows), figsize=(6 * len(rows), 8), layout="constrained", squeeze=False)
    for panel, (workload, its) in zip(panels[0], rows.items(), strict=True):
        names = ranking(its, workloads.get(workload))
        factors = sorted({row["factor"] for row in its})
        losses = np.ma.masked_all((len(names), len(factors)))
        for (name, factor), group in itertools.groupby(sorted(its, key=_place), key=_place):
            loss = np.mean([float(row["loss"]) for row in group])
            losses[names.index(name), factors.index(factor)] = np.nan_to_num(loss, nan=1e9, posinf=1e9)
        scale = LogNorm(losses.min(), np.percentile(losses.compressed(), 75))
        image = panel.imshow(losses, norm=scale, cmap=plt.get_cmap("viridis_r").with_extremes(over="black"), aspect="auto")
        panel.set_xticks(range(len(factors)), [f"{factor:g}" for factor in factors])
        panel.set_yticks(range(len(names)), names)
        panel.set(title=f"{workload}: validation loss")
        panel.set(xlabel="learning rate, times the default", ylabel="optimizer, best first")
        figure.colorbar(image, extend="max", format="{x:g}", label="validation loss; black: larger, white: not tried")
    figure.savefig(path, dpi=100)


def _place(row):
    return row["optimizer"], row["factor"]


def _cell(values):
    """Mean and standard deviation over the seeds."""
    if not values:
        return "-"
    return "diverged" if np.isnan(values).any() else f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def _steps(rows):
    """The median; a run that does not get there takes for ever."""
    value = statistics.median_high([float(row["steps_to_target"] or "inf") for row in rows])
    return "-" if np.isinf(value) else f"{value:g}"


def _median(rows, column):
    return statistics.median(float(row[column]) for row in rows)


if __name__ == "__main__":
    main()

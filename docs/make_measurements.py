"""Tables of all committed runs: of docs/benchmarks/optimizers.csv and docs/benchmarks/predict_before_run.csv."""

import csv
import statistics
from collections import defaultdict
from pathlib import Path

FOLDER = Path(__file__).parent / "benchmarks"


def page():
    yield "# All runs\n"
    yield "Tables made from the committed files when this site is built. The pages that they link to name the machine of"
    yield "the runs, and what follows from them. Mean ± standard deviation over the seeds.\n"
    yield from _schedules()
    yield from _laws()
    yield from _optimizers()


def _schedules():
    yield "## Schedules on the character model\n"
    yield "`python benchmarks/predict_before_run.py --data-dir FOLDER`: loss over the last 5 % of the updates"
    yield "([machine](../guides/laws.md#does-it-work), [file](predict_before_run.csv)). Within a seed all schedules see"
    yield "the same batches, so the difference from cosine is more certain than the loss.\n"
    losses: dict = defaultdict(dict)
    for row in rows("predict_before_run.csv"):
        losses[int(row["updates"]), row["schedule"]][row["seed"]] = float(row["measured"])
    for updates in sorted({updates for updates, _ in losses}):
        yield f"### {updates} updates\n"
        yield "| schedule | seeds | loss | less that of cosine |"
        yield "| --- | ---: | ---: | ---: |"
        cosine = losses[updates, "cosine"]
        chosen = {name: seeds for (length, name), seeds in losses.items() if length == updates}
        for name, seeds in sorted(chosen.items(), key=lambda item: statistics.mean(item[1].values())):
            apart = [loss - cosine[seed] for seed, loss in seeds.items()]
            yield f"| `{name}` | {len(seeds)} | {spread(seeds.values())} | {spread(apart, '+.3f')} |"
        yield ""


def _laws():
    yield "## Laws\n"
    yield "The same file: what each law predicted, for the schedules that it was not made from.\n"
    errors = defaultdict(list)
    for row in rows("predict_before_run.csv"):
        if row["predicted"] and not row["schedule"].startswith("best"):
            error = abs(float(row["predicted"]) / float(row["measured"]) - 1)
            errors[row["law"], int(row["updates"])].append(100 * error)
    yield "| law | updates | predictions | mean error | largest of a run |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for (law, updates), parts in sorted(errors.items()):
        yield f"| {law} | {updates} | {len(parts)} | {statistics.mean(parts):.2f} % | {max(parts):.2f} % |"
    yield ""


def _optimizers():
    yield "## Optimizers\n"
    yield "`python benchmarks/optimizers.py --out docs/benchmarks/optimizers.csv` ([machine and method](optimizers.md),"
    yield "[file](optimizers.csv)): each at every learning rate that was tried, as a multiple of its default.\n"
    runs: dict = defaultdict(lambda: defaultdict(list))
    for row in rows("optimizers.csv"):
        runs[row["workload"], row["optimizer"]][float(row["factor"])].append(row)
    for workload in sorted({workload for workload, _ in runs}):
        yield f"### {workload}\n"
        yield "| optimizer | schedule | times its rate | seeds | loss | accuracy |"
        yield "| --- | --- | ---: | ---: | ---: | ---: |"
        for (where, optimizer), factors in sorted(runs.items()):
            if where == workload:
                yield from (_optimizer_row(optimizer, *item) for item in sorted(factors.items()))
        yield ""


def _optimizer_row(optimizer, factor, runs):
    loss, accuracy = ([float(run[key]) for run in runs if run[key]] for key in ("loss", "accuracy"))
    cells = spread(loss), spread(accuracy) if accuracy else ""
    return f"| `{optimizer}` | {runs[0]['schedule']} | {factor:g} | {len(runs)} | {' | '.join(cells)} |"


def rows(name):
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def spread(numbers, form=".3f"):
    """Mean ± standard deviation, or what is not finite."""
    numbers = list(numbers)
    if len(numbers) < 2 or not all(abs(number) < float("inf") for number in numbers):
        return f"{statistics.mean(numbers):{form}}" if numbers else ""
    return f"{statistics.mean(numbers):{form}} ± {statistics.stdev(numbers):.3f}"

"""The report of a comparison: a Markdown table, CSV files, pictures and TensorBoard event files in one folder."""

import csv
import dataclasses
import io
import itertools
import os
import re
import shutil
from pathlib import Path

import numpy as np

FILES = ("report.md", "runs.csv", "steps.csv", "evaluations.csv", "tensorboard")


def new_folder(path, replace=False) -> Path:
    """The folder, made if it is missing.

    Args:
        path: The folder.
        replace: Whether what an earlier comparison wrote there is removed. Defaults to `False`.

    Raises:
        OSError: If it cannot be made or written to, or holds something already; with `replace`, something else than a
            comparison.
    """
    folder = Path(path).expanduser()
    if replace and folder.is_dir():
        _remove_comparison(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        empty = not any(folder.iterdir())
        if empty:
            (folder / "report.md").touch()
    except OSError as error:
        raise OSError(f"The output folder {str(path)!r} cannot be written to: {error.strerror}.") from error
    if not empty:
        raise FileExistsError(
            f"The output folder {str(path)!r} is not empty: give another one by --out, or replace the comparison in it by "
            "--force."
        )
    return folder


def _headings(report):
    """The lines `## WORKLOAD: BUDGET updates`."""
    lines = report.read_text(encoding="utf-8").splitlines() if report.is_file() else []
    return [line for line in lines if re.match(r"## \S+: \d+ updates", line)]


def _remove_comparison(folder):
    """Removes what `write` wrote, if there is nothing else."""
    present = list(folder.iterdir())
    own = {*FILES, *(f"{line.split()[1].rstrip(':')}.png" for line in _headings(folder / "report.md"))}
    own |= {f"{name}.new" for name in own}  # of a program that was killed while it wrote
    others = [item.name for item in present if item.name not in own]
    if others:
        raise FileExistsError(
            f"The output folder {str(folder)!r} holds something else than a comparison, and is not replaced: "
            f"{', '.join(sorted(others)):.200}."
        )
    for item in present:
        shutil.rmtree(item) if item.is_dir() else item.unlink()


def write(runs, folder: Path, planned: int, command: str = ""):
    """Writes all files for the runs that were made, which are `planned` ones unless the comparison was interrupted.

    `report.md` (tables), `runs.csv` (one row a run), `steps.csv` (loss and learning rate of every update),
    `evaluations.csv` (validation data), one `WORKLOAD.png` each, and `tensorboard/WORKLOAD/BUDGET/SCHEDULE/SEED/`.
    """
    runs = labeled(runs)
    _replace(folder / "report.md", markdown(runs, planned, command))
    _write_csv(folder / "runs.csv", _run_rows(runs))
    _write_csv(folder / "steps.csv", _step_rows(runs))
    _write_csv(folder / "evaluations.csv", _evaluation_rows(runs))
    for workload, group in grouped(runs, lambda run: run.job.workload):
        draw(group, folder / f"{workload.name}.png")
    for run in runs:
        _write_events(run, folder / "tensorboard")


class Journal:
    """The tables of a comparison while it runs: each run is added as it ends, so that it is there whatever ends the program.

    `write` replaces them in the end, and adds pictures and event files.

    Args:
        folder: That of the comparison.
        jobs: All jobs that are planned.
        command: Stated in the report. Defaults to `""`.
    """

    def __init__(self, folder: Path, jobs, command: str = ""):
        self._folder, self._planned, self._command = folder, len(jobs), command
        metrics = [job.workload.metric for job in jobs]
        self._tables = (
            ("steps.csv", _step_rows, ["step", "loss", "learning_rate"]),
            ("evaluations.csv", _evaluation_rows, ["updates", "val_loss", *metrics]),
            ("runs.csv", _run_rows, ["val_loss", *metrics, "steps_to_target", "seconds"]),  # the last: its runs are whole
        )
        for name, _, columns in self._tables:
            _append(folder / name, [dict.fromkeys([*IDENTITY, *columns])])
        _replace(folder / "report.md", markdown([], self._planned, command))

    def add(self, runs):
        """Writes the last of the runs that were made."""
        for name, rows, columns in self._tables:
            names = dict.fromkeys([*IDENTITY, *columns])
            _append(self._folder / name, ([row.get(column, "") for column in names] for row in rows(runs[-1:])))
        _replace(self._folder / "report.md", markdown(runs, self._planned, self._command))


def _append(path, rows):
    """Adds lines to a CSV file, all at once."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    with path.open("a", newline="", encoding="utf-8") as file:
        file.write(lines.getvalue())


def _replace(path, text):
    """Writes a file so that what was there stays whole until the new one is."""
    new = path.with_name(f"{path.name}.new")
    with new.open("w", newline="", encoding="utf-8") as file:
        file.write(text)
    os.replace(new, path)


def labeled(runs):
    """The runs, with the peak in the label where schedules of one label and budget differ in it."""
    peaks: dict = {}
    for run in runs:
        peaks.setdefault(_label(run), set()).add(_peak(run))
    return [_with_peak(run) if len(peaks[_label(run)]) > 1 else run for run in runs]


def _label(run):
    return run.job.workload.name, run.job.budget, run.job.label


def _peak(run):
    return f"{run.job.schedule.values(run.job.budget).max():.6g}"


def _with_peak(run):
    return dataclasses.replace(run, job=dataclasses.replace(run.job, label=f"{run.job.label} (peak {_peak(run)})"))


def grouped(runs, key):
    """Pairs of a key and its runs, in the order of first appearance."""
    groups: dict = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups.items()


def markdown(runs, planned: int, command: str = "") -> str:
    """The tables: a section a workload and budget, the lowest validation loss first."""
    lines = ["# Comparison of learning-rate schedules", ""]
    if len(runs) < planned:
        lines += [f"**Partial: {len(runs)} of {planned} runs were finished before the comparison was interrupted.**", ""]
    if command:
        lines += [f"    {command}", ""]
    for heading, conditions, (header, *rows) in tables(runs):
        lines += [f"## {heading}", "", conditions, ""]
        lines += [f"| {' | '.join(header)} |", f"| --- |{' ---: |' * (len(header) - 1)}"]
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(lines)


def tables(runs):
    """A table a workload and budget: its heading, the conditions, and its rows, the header first."""
    for (workload, budget), group in grouped(labeled(runs), lambda run: (run.job.workload, run.job.budget)):
        yield f"{workload.name}: {budget} updates", f"{workload.title}; {_conditions(group)}", _rows(workload, group)


def _conditions(runs):
    seeds = len({run.job.seed for run in runs})
    peak = max(run.learning_rate.max() for run in runs)
    return (
        f"{seeds} seed{'s' * (seeds > 1)}, largest learning rate {peak:.3g}. Values at the end, mean ± standard deviation "
        f"over seeds; updates until {runs[0].job.workload.metric} reached its target, and for how many seeds."
    )


def _rows(workload, runs):
    metric = workload.metric
    columns = ["schedule", "val_loss", *([metric] if metric != "val_loss" else [])]
    columns += [f"updates to {workload.target:g}", "seconds"]
    rows = [columns]
    by_schedule = grouped(runs, lambda run: run.job.label)
    for label, group in sorted(by_schedule, key=lambda item: np.mean([run.validation_loss[-1] for run in item[1]])):
        cells = [label, _spread([run.validation_loss[-1] for run in group], 4)]
        if metric != "val_loss":
            cells.append(_spread([run.metric[-1] for run in group], 4))
        cells += [_to_target(group), _spread([run.seconds for run in group], 1)]
        rows.append(cells)
    return rows


def _spread(values, digits):
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def _to_target(runs):
    """The mean over the runs that reached the target, and how many did."""
    reached = [run.steps_to_target for run in runs if run.steps_to_target is not None]
    return f"{np.mean(reached):.0f} ({len(reached)}/{len(runs)})" if reached else f"- (0/{len(runs)})"


IDENTITY = ("workload", "budget", "schedule", "seed")


def _identity(run):
    return {
        "workload": run.job.workload.name,
        "budget": run.job.budget,
        "schedule": run.job.label,
        "seed": run.job.seed,
    }


def _run_rows(runs):
    for run in runs:
        yield _identity(run) | {
            "val_loss": run.validation_loss[-1],
            run.job.workload.metric: run.metric[-1],
            "steps_to_target": run.steps_to_target,
            "seconds": round(run.seconds, 3),
        }


def _step_rows(runs):
    for run in runs:
        for step, (loss, rate) in enumerate(zip(run.loss, run.learning_rate, strict=True)):
            yield _identity(run) | {"step": step, "loss": loss, "learning_rate": rate}


def _evaluation_rows(runs):
    for run in runs:
        for step, loss, value in zip(run.evaluated_at, run.validation_loss, run.metric, strict=True):
            yield _identity(run) | {"updates": step, "val_loss": loss, run.job.workload.metric: value}


def _write_csv(path, rows):
    rows = list(rows)
    if not rows:  # `Journal` has written the header
        return
    columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))  # workloads differ in their metric
    lines = io.StringIO()
    writer = csv.DictWriter(lines, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _replace(path, lines.getvalue())


def draw(runs, path: Path):
    """One picture for a workload, a column a budget: learning rate, training and validation loss, and where they end."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    budgets = grouped(runs, lambda run: run.job.budget)
    labels = list(dict.fromkeys(run.job.label for run in runs))
    few = len(labels) <= 10
    colors = colormaps["tab10"](range(10)) if few else colormaps["turbo"](np.linspace(0, 1, len(labels)))
    heights = [2, 3, 3, 0.6 + 0.25 * len(labels)]
    figure = Figure(figsize=(1 + 4.5 * len(budgets), 1 + 1.1 * sum(heights)), layout="constrained")
    axes = figure.subplots(4, len(budgets), squeeze=False, height_ratios=heights)
    for (budget, group), (rate, training, validation, end) in zip(budgets, axes.T, strict=True):
        rate.set_title(f"{budget} updates")
        for label, same in grouped(group, lambda run: run.job.label):
            row = labels.index(label)
            rate.plot(same[0].learning_rate, color=colors[row], label=label)
            _band(training, np.arange(1, budget + 1), [_smoothed(run.loss) for run in same], colors[row])
            _band(validation, same[0].evaluated_at, [run.validation_loss for run in same], colors[row])
            final = [run.validation_loss[-1] for run in same]
            end.plot(final, [row] * len(final), "o", color=colors[row], alpha=0.5)
            end.plot(np.mean(final), row, "|", color=colors[row], markersize=14, markeredgewidth=2.5)
        for ax in (training, validation):
            ax.set_yscale("log")
            low, high = ax.get_ylim()
            ax.yaxis.set_major_formatter("{x:g}")  # 2.5 and not 2.5 x 10^0
            ax.yaxis.set_minor_formatter("{x:g}" if high / low < 10 else "")
        for ax in (rate, training, validation):
            ax.set_xlabel("update")
        end.set_xlabel("validation loss at the end: each seed, and the mean")
        end.set_yticks(range(len(labels)), labels)
        end.set_ylim(len(labels) - 0.5, -0.5)
        end.grid(axis="x", alpha=0.3)
        end.locator_params(axis="x", nbins=5)  # labels of four digits side by side
    for ax, title in zip(axes[:3, 0], ("learning rate", "training loss, smoothed", "validation loss"), strict=True):
        ax.set_ylabel(title)
    if few:  # else the bottom panel names the colors
        axes[0, 0].legend(fontsize="small", frameon=False)
    figure.suptitle(runs[0].job.workload.title)
    figure.savefig(path, dpi=110)


def _band(ax, x, curves, color):
    """The mean of the curves, and the range they span."""
    ax.plot(x, np.mean(curves, axis=0), color=color)
    ax.fill_between(x, np.min(curves, axis=0), np.max(curves, axis=0), color=color, alpha=0.12, lw=0)


def _smoothed(values, share=0.05):
    """Exponential moving average over about `share` of the run, without a bias to its start."""
    keep = 1 - 1 / max(1.0, share * len(values))
    smooth = np.empty(len(values))
    total = weight = 0.0
    for i, value in enumerate(values):
        total, weight = keep * total + value, keep * weight + 1
        smooth[i] = total / weight
    return smooth


def _write_events(run, folder: Path):
    from tensorboard.summary import Writer

    identity = [re.sub(r"[^\w.=-]", "_", str(part)) for part in _identity(run).values()]
    writer = Writer(str(folder.joinpath(*identity)))
    for step, (loss, rate) in enumerate(zip(run.loss, run.learning_rate, strict=True)):
        writer.add_scalar("loss", float(loss), step=step)
        writer.add_scalar("learning_rate", float(rate), step=step)
    for step, loss, value in zip(run.evaluated_at, run.validation_loss, run.metric, strict=True):
        writer.add_scalar("val_loss", float(loss), step=int(step))
        if run.job.workload.metric != "val_loss":
            writer.add_scalar(run.job.workload.metric, float(value), step=int(step))
    writer.close()

"""The pictures of the report, by Matplotlib."""

from typing import Any

import numpy as np

from keras_lrsched.study._report._data import Report, label
from keras_lrsched.study.figure import palette, png


def study(report: Report) -> bytes:
    """Return value against learning rate, curves and final values as PNG."""
    return png(report.results.plot())


def verdicts(report: Report) -> bytes:
    """Return the differences from the best, and the performance profile, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, max(4.2, 1.6 + 0.3 * len(report.table.rows))), layout="constrained")
    differences, profile = figure.subplots(1, 2)
    colors = palette(len(report.table.rows))
    _draw_differences(report, differences, colors)
    _draw_profile(report, profile, colors)
    figure.suptitle(_plain(report.results.label, 120))
    return png(figure)


def _draw_differences(report: Report, ax: Any, colors: list) -> None:
    """Each seed, the mean and its interval, a line for each pair but the best."""
    rows = [row for row in report.differences if row["mean"] is not None]
    ax.axvline(0, color="gray", linewidth=1)
    for place, row in enumerate(rows):
        color = colors[row["pair"]]
        if row["low"] is not None and row["high"] is not None:
            ax.plot([row["low"], row["high"]], [place, place], color=color, linewidth=3, alpha=0.5)
        values = [value for value in row["values"] if value is not None]
        ax.plot(values, [place] * len(values), "o", color=color, alpha=0.6, markersize=4)
        ax.plot(row["mean"], place, "|", color=color, markersize=14, markeredgewidth=2.5)
    names = [_plain(label(report.table.rows[row["pair"]].pair)) for row in rows]
    ax.set_yticks(range(len(rows)), names, fontsize="small")
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.3)
    ax.set_title(_plain(f"{report.metric} minus that of {label(report.table.rows[0].pair)}", 80), fontsize="medium")
    ax.set_xlabel("each seed, the mean, and its interval")


def _draw_profile(report: Report, ax: Any, colors: list) -> None:
    """Only those that reached the target at all."""
    profile = report.results.profile()
    for place, row in enumerate(report.table.rows):
        shares = profile.shares[row.pair]
        if np.any(shares > 0):
            ax.step(profile.multiples, shares, where="post", color=colors[place], label=_plain(label(row.pair)))
    ax.set_ylim(-0.03, 1.03)
    ax.grid(axis="y", alpha=0.3)
    ax.set_xlabel("steps to the target, relative to the fastest")
    ax.set_title(_plain(f"share of seeds that reach a {report.metric} of {profile.target:.4g}", 80), fontsize="medium")
    if ax.get_lines():
        ax.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    else:
        ax.text(0.5, 0.5, "never reached", transform=ax.transAxes, ha="center", color="gray")


def _plain(text: str, length: int = 45) -> str:
    """A text that is not too long, in one line, in which Matplotlib finds no formula."""
    line = " ".join(text.split())
    return (line if len(line) <= length else f"{line[: length - 1]}…").replace("$", r"\$")

"""Small pictures for the pages of methods, as SVG within the page: they follow the colors of the theme and any width.

`plot` draws lines and points on two axes; the other functions draw a method by the values of the package or by a committed
file of runs.
"""

import csv
import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from html import escape
from pathlib import Path

BENCHMARKS = Path(__file__).parent / "benchmarks"
WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 12, 46


@dataclass
class Series:
    """A line, or points, with its name in the legend."""

    x: list[float]
    y: list[float]
    label: str = ""
    style: str = "own"  # "own" and "alternative" stand out, "other" is what it is compared with
    points: bool = False


@dataclass
class Axis:
    """An axis with its label, linear or logarithmic, between the smallest and largest value."""

    label: str
    low: float
    high: float
    log: bool = False

    def place(self, value, start, end):
        low, high, value = (math.log10(each) if self.log else each for each in (self.low, self.high, value))
        return start + (value - low) / (high - low) * (end - start)

    def ticks(self):
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        rough = (self.high - self.low) / 4
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(step for step in (unit, 2 * unit, 2.5 * unit, 5 * unit, 10 * unit) if step >= 0.999 * rough)
        first = math.ceil(self.low / step - 1e-9)
        return [step * number for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def axis(label, values, *, start=None, log=False):
    low, high = min(values), max(values)
    low = low if start is None else min(start, low)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Axis(label, low, high + (0 if log else 0.04 * (high - low)), log)


def plot(series, x_label, y_label, *, y_start=None, x_log=False, caption=""):
    """A `figure` of HTML with the drawing and, where series have names, a legend."""
    x = axis(x_label, [value for each in series for value in each.x], log=x_log)
    y = axis(y_label, [value for each in series for value in each.y], start=y_start)
    inner = [*_axes(x, y), *(_drawn(each, x, y) for each in series)]
    named = list({(each.label, each.style): each for each in series if each.label}.values())
    legend = "".join(map(_key, named))
    text = f"<figcaption>{legend} {caption}</figcaption>" if legend or caption else ""
    label = f"{y_label} against {x_label}"
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(inner)}</svg>'
    return f'<figure class="plot">{svg}{text}</figure>'


def _key(series):
    points = " plot-points" if series.points else ""
    return f'<span class="plot-key plot-{series.style}{points}">{escape(series.label)}</span>'


def _axes(x, y):
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in y.ticks():
        place = y.place(value, bottom, TOP)
        yield f'<line class="plot-grid" x1="{LEFT}" x2="{right}" y1="{place:.1f}" y2="{place:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{_number(value)}</text>'
    for value in x.ticks():
        place = x.place(value, LEFT, right)
        yield f'<text x="{place:.1f}" y="{bottom + 17}" text-anchor="middle">{_number(value)}</text>'
    yield f'<line class="plot-axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>'
    middle = (TOP + bottom) / 2
    yield f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'


def _drawn(series, x, y):
    places = [
        (x.place(a, LEFT, WIDTH - RIGHT), y.place(b, HEIGHT - BOTTOM, TOP)) for a, b in zip(series.x, series.y, strict=True)
    ]
    if series.points:
        return "".join(f'<circle class="plot-{series.style}" cx="{a:.1f}" cy="{b:.1f}" r="4"/>' for a, b in places)
    return f'<polyline class="plot-{series.style}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in places)}"/>'


def _number(value):
    return f"{value:,.10g}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.0e}".replace("e-0", "e-")


def schedule(value, steps, y_label, style="own"):
    """The values of a schedule at every update."""
    marks = sorted({round(steps * number / 300) for number in range(301)})
    values = [float(each) for each in value.values(marks)]
    return plot([Series(marks, values, style=style)], "optimizer step", y_label, y_start=0.0)


def optimizer(name):
    """Loss by learning rate of an optimizer beside AdamW, or nothing if it was not run."""
    runs = defaultdict(lambda: defaultdict(list))
    for row in _rows("optimizers.csv"):
        if row["optimizer"] in (name, "keras AdamW"):
            runs[row["workload"], row["optimizer"]][float(row["factor"])].append(float(row["loss"]))
    figures = []
    for workload, title in (("digits", "Digits"), ("pydoc", "Character model")):
        lines = []
        for run, label, style in (("keras AdamW", "AdamW of Keras", "other"), (name, name, "own")):
            means = {factor: statistics.mean(losses) for factor, losses in sorted(runs[workload, run].items())}
            means = {factor: mean for factor, mean in means.items() if mean < 5}  # what has diverged is not drawn
            lines.append(Series(list(means), list(means.values()), label, style))
        if all(len(line.x) > 1 for line in lines):
            figures.append(plot(lines, "learning rate / default", f"{title}: loss", x_log=True))
    return "".join(figures)


def law(name):
    """Predicted and measured final losses of a law."""
    rows = [row for row in _rows("predict_before_run.csv") if row["law"] == name and row["predicted"]]
    if not rows:
        return ""
    measured, predicted = ([float(row[key]) for row in rows] for key in ("measured", "predicted"))
    ends = [min(measured), max(measured)]
    series = [Series(ends, ends, "exact", "other"), Series(measured, predicted, "a run", points=True)]
    return plot(series, "measured final loss", "predicted final loss")


def recipe(name):
    """The loss of a recipe and the cost of its products, among all others."""
    runs = defaultdict(list)
    exact = {}
    for row in _rows("lowprec_training.csv"):
        if row["workload"] == "pydoc":
            if row["recipe"] == "float32":
                exact[row["seed"]] = float(row["loss"])
            runs[row["recipe"]].append(row)
    if name not in runs:
        return ""

    def point(rows):
        gap = statistics.mean(100 * (float(row["loss"]) / exact[row["seed"]] - 1) for row in rows)
        return float(rows[0]["cost"]), gap

    others = [point(rows) for recipe, rows in runs.items() if recipe not in (name, "float32")]
    series = [
        Series(*map(list, zip(*others, strict=True)), "other recipes", "other", points=True),
        Series(*([each] for each in point(runs[name])), name, points=True),
    ]
    return plot(series, "cost of the products / that in bfloat16 (a model)", "loss above float32, %", y_start=0.0)


def _rows(name):
    with open(BENCHMARKS / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

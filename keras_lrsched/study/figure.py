"""The figure of a study: value against learning rate, curves, and where they end."""

import functools
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_lrsched.study.statistics import Pair

if TYPE_CHECKING:
    from keras_lrsched.study.results import Results


def draw(results: "Results") -> Any:
    """The figure of `Results.plot`, which a notebook shows without pyplot.

    Raises:
        ImportError: If Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("`plot` needs Matplotlib: pip install 'keras-lrsched[plot]'") from error
    ranked = results.ranked()
    colors = dict(zip(ranked, palette(len(ranked)), strict=True))
    figure = Figure(figsize=(16, max(4.8, 1.5 + 0.28 * len(ranked))), layout="constrained")
    against_rate, curves, ends = figure.subplots(1, 3)
    _draw_rates(results, against_rate, ranked, colors)
    _draw_curves(results, curves, ranked, colors)
    _draw_ends(results, ends, ranked, colors)
    figure.suptitle(results.label)
    vars(figure)["_repr_png_"] = functools.partial(png, figure, dpi=90)
    return figure


def _draw_rates(results: "Results", ax: Any, ranked: Sequence[Pair], colors: dict[Pair, Any]) -> None:
    """Value against learning rate, of whole runs and of the widest grid: best peak as a star, basin as a thick line."""
    widest, whole = results.widest_budget, results.budget
    for pair in ranked:
        rates, values = _means(results, pair, widest)
        ax.plot(rates, values, ".-" if widest == whole else ".:", color=colors[pair], alpha=0.7)
        low, high = results.basin(pair)
        if math.isfinite(low):
            inside, finite = np.geomspace(low, high, 50), np.isfinite(values)
            path = np.interp(np.log(inside), np.log(rates)[finite], values[finite])
            ax.plot(inside, path, color=colors[pair], alpha=0.25, linewidth=7, solid_capstyle="round")
        rates, values = _means(results, pair, whole)
        ax.plot(rates, values, ".-", color=colors[pair], label=", ".join(pair))
        ax.plot(
            rates[rates == results.peak(pair)], values[rates == results.peak(pair)], "*", color=colors[pair], markersize=11
        )
    ax.set_xscale("log")
    tried = sorted({outcome.trial.learning_rate for outcome in results.outcomes})
    if len(tried) <= 8:  # a grid of few octaves has one power of ten, or none
        ax.set_xticks(tried, [f"{rate:.2g}" for rate in tried])
        ax.minorticks_off()
    _log_if_positive(ax)
    for pair in ranked:
        lost = [rate for rate, values in results.by_rate(pair).items() if not np.all(np.isfinite(values))]
        ax.plot(lost, [0.98] * len(lost), "x", color=colors[pair], transform=ax.get_xaxis_transform())
    dotted = "" if widest == whole else f" (dotted: {widest})"
    ax.set_xlabel("peak learning rate\nthick: basin; star: best peak; cross: diverged")
    ax.set_ylabel(f"{results.metric} after {whole} steps{dotted}")
    if len(ranked) <= 10:  # else the last panel names the colors
        ax.legend(fontsize="small", frameon=False)


def _means(results: "Results", pair: Pair, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Learning rates of a budget, and the mean over seeds at each; NaN where a run did not finish."""
    curve = results.by_rate(pair, budget)
    means = np.array([np.mean(values) for values in curve.values()])
    return np.array(list(curve)), np.where(np.isfinite(means), means, math.nan)


def _draw_curves(results: "Results", ax: Any, ranked: Sequence[Pair], colors: dict[Pair, Any]) -> None:
    """The metric during training at the chosen peak: mean and range over the seeds that finished."""
    for pair in ranked:
        finished = [outcome for outcome in results.at_peak(pair) if outcome.status == "finished"]
        if not finished:
            continue
        curves = np.stack([outcome.evaluations[results.metric] for outcome in finished])
        steps = finished[0].evaluated_at
        ax.plot(steps, curves.mean(axis=0), color=colors[pair])
        ax.fill_between(steps, curves.min(axis=0), curves.max(axis=0), color=colors[pair], alpha=0.15, linewidth=0)
    _log_if_positive(ax)
    ax.set_xlabel("optimizer step")
    ax.set_ylabel(results.metric)


def _draw_ends(results: "Results", ax: Any, ranked: Sequence[Pair], colors: dict[Pair, Any]) -> None:
    """The final value of each seed, and the mean."""
    for row, pair in enumerate(ranked):
        values = [value for value in results.values(pair).values() if math.isfinite(value)]
        ax.plot(values, [row] * len(values), "o", color=colors[pair], alpha=0.5)
        if values:
            ax.plot(np.mean(values), row, "|", color=colors[pair], markersize=14, markeredgewidth=2.5)
    names = [f"{', '.join(pair)}\n{results.peak(pair):.3g}" for pair in ranked]
    ax.set_yticks(range(len(ranked)), names, fontsize="small")
    ax.set_ylim(len(ranked) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.3)
    ax.set_xlabel(f"{results.metric} at the end: each seed, and the mean")


def palette(count: int) -> list[Any]:
    """Colors, for the pairs from the best on."""
    from matplotlib import colormaps

    return list(colormaps["tab10"](range(count)) if count <= 10 else colormaps["turbo"](np.linspace(0, 1, count)))


def _log_if_positive(ax: Any) -> None:
    """A logarithmic axis where all that is drawn is above zero."""
    values = [np.asarray(line.get_ydata(), float) for line in ax.get_lines()]
    finite = np.concatenate([data[np.isfinite(data)] for data in values]) if values else np.array([])
    if finite.size and finite.min() > 0 and finite.max() > 2 * finite.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")  # 0.5 and not 5 x 10^-1
        ax.yaxis.set_minor_formatter("{x:g}" if finite.max() < 10 * finite.min() else "")


def png(figure: Any, dpi: int = 110) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()

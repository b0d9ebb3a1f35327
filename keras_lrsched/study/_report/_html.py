"""The HTML page: one file with its data, style and script, which requests nothing from anywhere.

Labels come from users. In the markup they are escaped; in the data each `<`, `>` and `&` is an escape sequence of JSON, and
the script only sets text. The content security policy admits the one script by its hash.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable
from html import escape

from keras_lrsched.study._report._data import TOLERANCE, Report, label
from keras_lrsched.study._report._numbers import plain
from keras_lrsched.study._report._script import SCRIPT
from keras_lrsched.study._report._style import STYLE


def page(report: Report) -> str:
    """Return the page as a text."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; base-uri 'none'"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(report.title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *_head(report),
            *_verdicts(report),
            *_explorer(report),
            *_problems(report),
            *_settings(report),
            "</main>",
            f'<script type="application/json" id="data">{_embedded(report.payload())}</script>',
            f"<script>{SCRIPT}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _embedded(data: object) -> str:
    """JSON that cannot end the element it is in, nor open a comment."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _head(report: Report) -> Iterable[str]:
    yield f"<h1>{escape(report.title)}</h1>"
    yield f'<p class="answer">{escape(report.answer)}</p>'
    yield f'<p class="soft">{escape(report.conditions)}</p>'
    for warning in report.warnings:
        yield f'<p class="warning">{escape(warning)}</p>'


def _verdicts(report: Report) -> Iterable[str]:
    yield '<h2 id="verdicts">Verdicts</h2>'
    yield f"<p>{escape(report.caption)}</p>"
    yield '<div class="frame" tabindex="0" role="region" aria-labelledby="verdicts"><table><thead><tr>'
    for name in report.columns:
        yield f'<th scope="col"{_text(name)}>{escape(name)}</th>'
    yield "</tr></thead><tbody>"
    for row, cells in zip(report.table.rows, report.rows, strict=True):
        yield _row(row.group == 1 and math.isfinite(row.mean), report.columns, cells)
    yield "</tbody></table></div>"


def _row(is_best: bool, columns: list[str], cells: list[str]) -> str:
    first, *others = [escape(cell) for cell in cells]
    marked = [f"<td{_text(name, cell)}>{cell}</td>" for name, cell in zip(columns[1:], others, strict=True)]
    row = '<tr class="best">' if is_best else "<tr>"
    return f'{row}<th scope="row">{first}</th>{"".join(marked)}</tr>'


def _text(name: str, cell: str = "") -> str:
    if name != "verdict":
        return ""
    return f' class="text {cell}"' if cell in ("better", "worse") else ' class="text"'


def _explorer(report: Report) -> Iterable[str]:
    yield '<noscript><p class="warning">The charts need JavaScript.</p></noscript>'
    yield '<section id="explore" hidden aria-labelledby="charts"><h2 id="charts">Charts</h2>'
    yield '<fieldset class="chooser"><legend>Shown</legend><div class="row">'
    yield '<button type="button" data-do="best">the best</button>'
    yield '<button type="button" data-do="all">all</button>'
    yield '<button type="button" data-do="none">none</button>'
    for name in ("optimizer", "schedule"):
        yield f'<label>{name} <select name="{name}"></select></label>'
    yield '</div><div class="pairs"></div></fieldset><div class="charts">'
    yield from _rates(report)
    yield from _curves(report)
    if report.has_differences:
        yield from _differences(report)
    if report.has_profile:
        yield from _profile(report)
    yield "</div></section>"


def _figure(name: str, title: str, options: Iterable[str], caption: str) -> Iterable[str]:
    """A chart; the arrow keys move through it as through a slider, whose value is what stands below it."""
    yield f'<figure id="{name}"><h3 id="{name}-title">{escape(title)}</h3>'
    switches = "".join(options)
    if switches:
        yield f'<div class="options">{switches}</div>'
    slider = f'role="slider" aria-labelledby="{name}-title" aria-valuemin="0" aria-valuemax="0" aria-valuenow="0"'
    yield f'<div class="plot" tabindex="0" {slider}></div>'
    yield f'<div class="readout"></div><figcaption>{escape(caption)}</figcaption></figure>'


def _switch(name: str, text: str, checked: bool) -> str:
    return f'<label><input type="checkbox" name="{name}"{" checked" if checked else ""}> {text}</label>'


def _select(name: str, text: str, values: Iterable[tuple[str, str]]) -> str:
    choices = "".join(f'<option value="{escape(value)}">{escape(shown)}</option>' for value, shown in values)
    return f'<label>{text} <select name="{name}">{choices}</select></label>'


def _rates(report: Report) -> Iterable[str]:
    budgets = [(str(budget), f"{budget} steps") for budget in report.budgets]
    return _figure(
        "rates",
        f"{report.metric} at the end, by peak learning rate",
        [
            *([_select("budget", "runs of", budgets)] if len(budgets) > 1 else []),
            _switch("logx", "logarithmic rate", True),
            _switch("logy", "logarithmic value", True),
        ],
        "Dots are runs, the line is their mean, a ring is the chosen peak, a cross above is a peak at which a run diverged "
        f"or failed. Bars below are the basins: peaks whose value is at most {TOLERANCE:.0%} worse than the best, in the "
        f"runs of {report.results.widest_budget} steps.",
    )


def _curves(report: Report) -> Iterable[str]:
    return _figure(
        "curves",
        "Curves at the chosen peak",
        [
            _select("metric", "of", [(name, "training loss" if name == "loss" else name) for name in report.curve_names]),
            _switch("logx", "logarithmic step", False),
            _switch("logy", "logarithmic value", True),
        ],
        "The line is the mean over seeds, the band reaches from the least to the largest value. Training loss is smoothed.",
    )


def _differences(report: Report) -> Iterable[str]:
    return _figure(
        "differences",
        f"Difference from the best: {label(report.table.rows[0].pair)}",
        [],
        "Dots are differences of two runs with the same seed, the upright line is their mean, the bar its interval. With a "
        f"probability of {report.table.level:.3g}, all intervals hold the true mean.",
    )


def _profile(report: Report) -> Iterable[str]:
    return _figure(
        "profile",
        f"Performance profile: {report.metric} of {plain(report.results.target)}",
        [_switch("logx", "logarithmic time", False)],
        "The share of seeds with which a pair reached this value within a multiple of the steps of the fastest. The score "
        "is the area under the line up to four times, relative to that of a pair which is always the fastest.",
    )


def _problems(report: Report) -> Iterable[str]:
    if not report.problems:
        return
    yield '<h2 id="problems">Runs that did not finish</h2>'
    yield '<div class="frame" tabindex="0" role="region" aria-labelledby="problems"><table><thead><tr>'
    yield '<th scope="col">optimizer, schedule</th><th scope="col" class="text">what happened</th>'
    yield '<th scope="col">runs</th><th scope="col" class="text">peaks</th></tr></thead><tbody>'
    for pair, reason, number, peaks in report.problems:
        yield f'<tr><th scope="row">{escape(pair)}</th><td class="text long">{escape(reason)}</td>'
        yield f'<td>{number}</td><td class="text">{escape(peaks)}</td></tr>'
    yield "</tbody></table></div>"


def _settings(report: Report) -> Iterable[str]:
    if not report.settings:
        return
    yield "<h2>Settings</h2><dl>"
    for name, value in report.settings:
        yield f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"

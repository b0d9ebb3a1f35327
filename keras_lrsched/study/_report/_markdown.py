"""The report as Markdown."""

import re
from collections.abc import Iterable

from keras_lrsched.study._report._data import Report


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line.

    Example:

    >>> escaped("a|b <i> *c*")
    'a\\\\|b &lt;i&gt; \\\\*c\\\\*'
    """
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", line)


def markdown(report: Report, pictures: Iterable[str] = (), page: str = "") -> str:
    """Return the text.

    Args:
        report: The content.
        pictures: The names of pictures beside it.
        page: The name of the HTML page beside it, if there is one.
    """
    lines = [f"# {escaped(report.title)}", "", escaped(report.answer), "", escaped(report.conditions), ""]
    for warning in report.warnings:
        lines += [f"> {escaped(warning)}", ""]
    if page:
        lines += [f"Charts to explore: [{page}]({page}).", ""]
    lines += ["## Verdicts", "", escaped(report.caption), "", *_table(report.columns, report.rows), ""]
    for name in pictures:
        lines += [f"![{name.removesuffix('.png')}]({name})", ""]
    if report.problems:
        lines += [
            "## Runs that did not finish",
            "",
            *_table(["optimizer, schedule", "what happened", "runs", "peaks"], report.problems),
            "",
        ]
    if report.settings:
        lines += ["## Settings", "", *_table(["setting", "value"], report.settings), ""]
    return "\n".join(lines)


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterable[str]:
    header = [escaped(cell) for cell in header]
    lines = [header, ["---"] * len(header), *([escaped(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]

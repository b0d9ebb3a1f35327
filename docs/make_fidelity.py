"""The fidelity table: of each method its paper, the official code, how it was checked, against what, and where it differs.

All of it comes from the registry: from what the decorator of each method gives.
"""

import importlib
import re

from keras_lrsched._core import registry

ROOMS = ("schedules", "laws", "transfer", "data", "callbacks", "optimizers", "precision")
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
COLUMNS = ("method", "paper", "code", "checked", "against", "deviations, and what is not certain")


def page():
    yield "---\nhide: [navigation, toc]\n---\n\n# Fidelity\n"
    yield "Where each method comes from, how it was checked, and where it differs or is not certain.\n"
    yield from (f"- *{level}*: {meaning}." for level, meaning in registry.CHECKED.items())
    yield ""
    for room in ROOMS:
        importlib.import_module(f"keras_lrsched.{room}")
        entries = sorted(registry.entries(room), key=lambda entry: (entry.target.__name__.lower(), entry.name or ""))
        rows = [_row(entry) for entry in entries if entry.paper or entry.code or entry.checked]
        others = [f"`{entry.target.__name__}`" for entry in entries if not (entry.paper or entry.code or entry.checked)]
        if rows:
            yield f"## {room.capitalize()}\n"
            yield f"| {' | '.join(COLUMNS)} |"
            yield f"| {' | '.join('---' for _ in COLUMNS)} |"
            yield from rows
            yield f"\nWithout a paper: {', '.join(others)}.\n" if others else ""


def _row(entry):
    target = entry.target.__name__
    link = f"[`{target}`]({entry.room}/{target}.md)"
    several = len([each for each in registry.entries(entry.room) if each.target is entry.target]) > 1
    method = f"{link} `{entry.name}`" if several and entry.name else link
    code = ", ".join(map(_code, entry.code))
    cells = method, _paper(entry.paper), code, entry.checked or "", entry.against, entry.deviations
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _paper(paper):
    if paper and paper.startswith("https://"):
        return f"[{paper.split('/')[2].removeprefix('www.')}]({paper})"
    return ARXIV.sub(r"[\1](https://arxiv.org/abs/\1)", paper or "")


def _code(code):
    return code if code.startswith("https://") else f"[{code}](https://github.com/{code})"

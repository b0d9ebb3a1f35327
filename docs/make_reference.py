"""The reference: a page for each public name, with paper, code, how it was checked, deviations, a picture and the docstring.

The names are those of the rooms' `__all__` and of the registry, by kind; mkdocstrings fills in the docstrings.
"""

import argparse
import importlib
import inspect
import re
import sys
from dataclasses import dataclass, field
from html import escape
from types import ModuleType

import figures
import make_gallery
import numpy as np

from keras_lrsched import schedules
from keras_lrsched._core import registry

ROOMS = (
    "schedules",
    "laws",
    "transfer",
    "data",
    "callbacks",
    "optimizers",
    "precision",
    "distributed",
    "tune",
    "kernels",
    "study",
    "study.workloads",
)
TITLES = {"study.workloads": "Workloads"}
OTHER_KINDS = ("classes", "functions", "modules", "constants", "warnings and errors")  # of what is not registered, and last

# What has no name, for it is made from other schedules or its arguments, is shown by an example.
LINE = schedules.LinearDecay(1.0, 1000)
COMBINED = {
    "Chain": schedules.Chain([1.0, schedules.LinearDecay(1.0, 500)], boundaries=[500]),
    "CyclicalLearningRate": schedules.CyclicalLearningRate(0.1, 1.0, 125, scale_fn="triangular"),
    "ExponentialCyclicalLearningRate": schedules.ExponentialCyclicalLearningRate(0.1, 1.0, 125, gamma=0.998),
    "LearningRateRewinding": schedules.LearningRateRewinding(schedules.LinearDecay(1.0, 400), 400, 200, cycles=3),
    "OneCycleMomentum": schedules.OneCycle(1.0, 1000).momentum(),
    "PerUpdate": schedules.PerUpdate(schedules.LinearDecay(1.0, 10), accumulation_steps=100),
    "PiecewiseConstant": schedules.PiecewiseConstant([300, 600, 900], [1.0, 0.5, 0.2, 0.1]),
    "Product": LINE * schedules.TriangularCyclicalLearningRate(0.5, 1.0, 100),
    "Scale": 0.5 * LINE,
    "Tabulated": schedules.Tabulated(1 - 0.5 * np.sin(np.arange(1001) / 80) ** 2),
    "Warmup": schedules.Warmup(LINE, warmup_steps=100),
}


@dataclass
class Method:
    """A public name with its entries of the registry."""

    room: str
    name: str
    value: object
    entries: list = field(default_factory=list)

    @property
    def kind(self):
        return next((each.kind for each in self.entries if each.kind), self._kind_of_value())

    @property
    def anchor(self):
        """The public path, which other pages link to."""
        return f"keras_lrsched.{self.room}.{self.name}"

    @property
    def path(self):
        """Where mkdocstrings, which reads the source, finds it: in the module that defines it."""
        of_value = getattr(self.value, "__module__", None)
        if of_value and of_value.startswith("keras_lrsched.") and hasattr(sys.modules[of_value], self.name):
            return f"{of_value}.{self.name}"
        return self.anchor

    @property
    def summary(self):
        """The title of its entry, or the first sentence of its docstring."""
        if self.entries:
            return self.entries[0].title
        if isinstance(self.value, ModuleType) or inspect.isclass(self.value) or inspect.isfunction(self.value):
            first = (inspect.getdoc(self.value) or "").partition("\n\n")[0]
            return re.split(r"(?<=[.:;]) ", " ".join(first.split()))[0].rstrip(".:;")
        return ""

    def _kind_of_value(self):
        if isinstance(self.value, ModuleType):
            return "modules"
        if inspect.isclass(self.value):
            return "warnings and errors" if issubclass(self.value, Exception) else "classes"
        return "functions" if inspect.isroutine(self.value) else "constants"


def pages():
    """Address and Markdown of each page."""
    for room in ROOMS:
        methods = methods_of(room)
        yield address(room), "\n".join(_room(room, methods))
        for method in methods:
            yield address(room, method.name), "\n".join(_page(method))
    yield "methods/cli.md", "\n".join(_command_line())


def address(room, name="index"):
    return f"methods/{room.replace('.', '/')}/{name}.md"


def title_of(room):
    return TITLES.get(room, room.capitalize())


def nav(room):
    """Entries of the navigation: the page of the room, and its methods by kind."""
    parts = [{kind.capitalize(): [{each.name: address(room, each.name)} for each in some]} for kind, some in by_kind(room)]
    methods = next(iter(parts[0].values())) if len(parts) == 1 else parts
    return {title_of(room): [address(room), *methods]}


def by_kind(room, methods=None):
    kinds: dict = {}
    for method in methods or methods_of(room):
        kinds.setdefault(method.kind, []).append(method)
    last = {kind: number for number, kind in enumerate(OTHER_KINDS, 1)}
    return sorted(kinds.items(), key=lambda item: (last.get(item[0], 0), -len(item[1]), item[0]))


def methods_of(room):
    """All public names of a room, and what its subpackages register, in alphabetical order."""
    module = importlib.import_module(f"keras_lrsched.{room}")
    entries: dict = {}
    for entry in _entries(room):
        entries.setdefault(entry.target.__name__, []).append(entry)
    names = {name: getattr(module, name) for name in module.__all__} | {
        name: some[0].target for name, some in entries.items() if some[0].target.__module__.startswith("keras_lrsched.")
    }
    return [Method(room, name, names[name], entries.get(name, [])) for name in sorted(names, key=str.lower)]


def _entries(room):
    """Those of the room, without those of a room within it that has a page of its own."""
    return [entry for entry in registry.entries(room.partition(".")[0]) if _innermost_room(entry.target.__module__) == room]


def _innermost_room(module):
    return max((room for room in ROOMS if f"{module}.".startswith(f"keras_lrsched.{room}.")), key=len, default="")


def _room(room, methods):
    yield f"# {title_of(room)}\n\n{_as_markdown(importlib.import_module(f'keras_lrsched.{room}').__doc__)}\n"
    for kind, some in by_kind(room, methods):
        yield f"## {kind.capitalize()}\n"
        cards = "".join(
            f'<a class="method" href="{each.name}.html">{picture(each)}<b>{each.name}</b> {escape(each.summary)}</a>'
            for each in some
        )
        yield f'<div class="methods">{cards}</div>\n'


def _page(method):
    """Provenance and picture, then the docstring."""
    title = method.entries[0].title if method.entries else method.name
    yield f"# {title[:1].upper()}{title[1:]}\n"
    rows = list(_provenance(method))
    if rows:
        yield '<table class="provenance"><tbody>'
        yield from (f"<tr><th>{head}</th><td>{text}</td></tr>" for head, text in rows)
        yield "</tbody></table>\n"
    drawn = picture(method)
    if drawn:
        yield f'<div class="pictures">{drawn}</div>\n'
    if method.path != method.anchor:
        yield f'<a id="{method.anchor}"></a>\n'
    yield f"::: {method.path}\n"


def _provenance(method):
    """Rows of HTML: by which name it is found, paper, code, how it was checked, deviations."""
    names = [_call(method, each) for each in method.entries if each.name]
    if names:
        yield "Name", ", ".join(names)
    papers = list(dict.fromkeys(each.paper for each in method.entries if each.paper))
    if papers:
        yield "Paper", ", ".join(map(_paper, papers))
    entry = method.entries[0] if method.entries else None
    if entry and entry.code:
        yield "Code", ", ".join(map(_code, entry.code))
    if entry and entry.checked:
        against = f"; {_inline(entry.against)}" if entry.against else ""
        yield "Checked", f"{registry.CHECKED[entry.checked]}{against}"
    if entry and entry.deviations:
        yield "Deviations", _inline(entry.deviations)


def _call(method, entry):
    options = ", ".join(f"{key}={value!r}" for key, value in entry.options.items() if key != "name")
    return f"<code>{escape(repr(entry.name))}</code>" + (f" ({escape(options)})" if options else "")


def _paper(paper):
    number = re.fullmatch(r"arXiv:(\S+)", paper)
    if number:
        return f'<a href="https://arxiv.org/abs/{number[1]}">{paper}</a>'
    return f'<a href="{paper}">{paper.partition("://")[2]}</a>' if "://" in paper else _inline(paper)


def _code(code):
    if "://" in code:
        return f'<a href="{code}">{code.partition("://")[2]}</a>'
    return f'<a href="https://github.com/{code}">{code}</a>' if re.fullmatch(r"[\w.-]+/[\w.-]+", code) else _inline(code)


def _inline(text):
    """Text with `code` and arXiv ids as HTML."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>', text)


def _as_markdown(doc):
    """A docstring of a module: what is indented is code."""
    return inspect.cleandoc(doc or "")


def picture(method):
    """HTML of the picture of a method; empty if there is none."""
    if method.room == "schedules":
        return "".join(picture_of(each) for each in method.entries[:1])
    names = [each.name for each in method.entries if each.name]
    if method.room == "optimizers":
        return "".join(figures.optimizer(name) for name in names[:1])
    if method.room == "laws":
        return figures.law(_law_name(method.name))
    if method.room == "precision":
        return "".join(figures.recipe(name) for name in names[:1])
    return ""


def picture_of(entry):
    """The curve of a schedule."""
    value, steps = make_gallery.drawn(entry) if entry.name else (COMBINED[entry.target.__name__], 1000)
    if entry.kind in ("learning rate", "combinator"):
        return figures.schedule(value, steps, "learning rate / peak")
    return figures.schedule(value, steps, entry.kind, style="alternative")


def _law_name(name):
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.removesuffix("Law")).lower().replace("convex-bound", "convex bound")


def _command_line():
    import keras_lrsched.cli

    parser = keras_lrsched.cli._parser()
    yield f"# Command line\n\n{keras_lrsched.cli.__doc__}\n"
    yield from _command("keras-lrsched", parser)
    yield "::: keras_lrsched.cli.main\n    options: {show_if_no_docstring: true}\n"


def _command(title, parser):
    yield f"## {title}\n\n```text\n{parser.format_help()}```\n"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, each in action.choices.items():
                yield from _command(f"{title} {name}", each)

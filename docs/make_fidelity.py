"""The fidelity table: of each method its paper, the code it was compared with, how, and where it differs.

All of it is taken from the `Reference:` of the docstring, sentence by sentence; nothing is written here.
"""

import importlib
import inspect
import re

ROOMS = ("schedules", "laws", "callbacks", "optimizers", "precision")
ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")
LINK = re.compile(r"https://github\.com/([\w.-]+/[\w.-]*\w)")
CODE = re.compile(r"(?<![\w/.:-])([A-Za-z][\w-]+/[A-Za-z][\w.-]*\w)")

# What a sentence must say, after what it denies is taken out, for its method to count as compared, or as read.
DENIED = re.compile(r"\b(?:not|neither|nor|no|never)\b[^.;,)]*")
COMPARED = re.compile(
    r"trajector|values are those|learning rates are those|\bagrees? with|was run|run end to end|reproduces|checked against",
    re.IGNORECASE,
)
READ = re.compile(r"\bread\b|\bseen\b|from reading|those of (?:the authors' repository|three|its|fastai)")
DIFFERS = re.compile(
    r"\b(?:ours|our own|us|not|no|neither|here|another)\b|differ|unverified|(?:from|by) memory|left out|leaves out"
)


def page():
    yield "---\nhide: [navigation, toc]\n---\n\n# Fidelity\n"
    yield "Where each method comes from, how it was checked, and where it differs or is not certain, as its docstring says."
    yield "The column *checked* sums up: *numbers compared* with other code that was run or with published values; *read*:"
    yield "code or paper; *formula*: neither of them is claimed.\n"
    for room in ROOMS:
        module = importlib.import_module(f"keras_lrsched.{room}")
        rows = [(name, _reference(getattr(module, name))) for name in sorted(module.__all__, key=str.lower)]
        yield f"## {room.capitalize()}\n"
        yield "| method | paper | code | checked | what was checked | deviations, and what is not certain |"
        yield "| --- | --- | --- | --- | --- | --- |"
        yield from (_row(room, name, reference) for name, reference in rows if reference)
        others = [f"`{name}`" for name, reference in rows if reference == ""]
        yield f"\nWithout a reference: {', '.join(others)}.\n" if others else ""


def checked(reference):
    """`numbers compared`, `read` or `formula`: the most that one of its sentences claims."""
    claims = [DENIED.sub("", each) for each in sentences(reference)]
    read = [each for each in claims if READ.search(each)]
    compared = [each for each in claims if COMPARED.search(each) and each not in read]
    return "numbers compared" if compared else "read" if read else "formula"


def sentences(reference):
    """The sentences and their parts between semicolons; what is in brackets stays whole, as do abbreviations."""
    hidden = re.sub(r"\([^()]*\)|et al\.", lambda match: "x" * len(match[0]), reference)
    ends = [match.start() for match in re.finditer(r"(?<=[.;]) ", hidden)]
    return [reference[start:end].strip() for start, end in zip([0, *ends], [*ends, None], strict=True)]


def _reference(value):
    """The text under `Reference:` in one line; empty if there is none, `None` for what is no class or function."""
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return None
    found = (inspect.getdoc(value) or "").partition("\nReference:")[2].partition("\n\n")[0]
    return " ".join(found.split())


def _row(room, name, reference):
    papers = [f"[{number}](https://arxiv.org/abs/{number})" for number in dict.fromkeys(ARXIV.findall(reference))]
    differs = [each for each in sentences(reference) if DIFFERS.search(each)]
    rest = [each for each in sentences(reference) if not DIFFERS.search(each)]
    method = f"[`{name}`](../reference/{room}.md#keras_lrsched.{room}.{name})"
    cells = method, ", ".join(papers), _code(reference), checked(reference), _text(rest), _text(differs)
    return f"| {' | '.join(cells)} |"


def _code(reference):
    names = [*LINK.findall(reference), *CODE.findall(LINK.sub("", reference))]
    return ", ".join(f"[{name}](https://github.com/{name})" for name in dict.fromkeys(names))


def _text(parts):
    parts = [part[0].upper() + part[1:].removesuffix(";").removesuffix(".") + "." for part in parts]
    return ARXIV.sub(r"arXiv:\1", " ".join(parts).replace("ArXiv", "arXiv")).replace("|", "\\|")

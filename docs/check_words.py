"""Checks the words of the documentation: terms of the field, no personification, docstrings that open with a noun or a verb.

`WORDS` are not used in pages and docstrings; a docstring does not open with one of `OPENINGS`. There are no exceptions: a
pattern is here only if every place that it finds is a mistake.

Run: python docs/check_words.py
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)", re.DOTALL)

WORDS = {
    r"few bits": "low precision",
    r"few-bit": "low-precision",
    r"(?:an|the) (?:error|warning|message) (?:says|tells)": "the error names, lists, gives",
    r"insists?|insisted": "requires",
    r"tells?|told": "returns, names, gives",
    r"docstrings? says?": "the docstring gives, lists",
    r"go(?:es)? without": "falls back, uses plain operations",
    r"fp4_zhou2025|fp4_msr2025|nvfp4_2025|pareto_resnet_int4": "fp4_target_precision, fp4_dge, nvfp4, aqt_int4",
}
OPENINGS = ("What", "How", "Which", "Why", "Who")
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/index.md",
    "docs/guides/*.md",
    "docs/benchmarks/*.md",
    "docs/internals/*.md",
)
GENERATED = {"results.md"}
FOLDERS = ("keras_lrsched", "tests", "benchmarks", "docs", "release")
"""Of modules whose docstrings are read."""


def problems():
    """Each place with its mistake and what to write instead."""
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            if path.name not in GENERATED:
                text = path.read_text(encoding="utf-8")
                yield from _words(path, CODE.sub(_blank, text), 1)
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from _docstrings(path)


def _docstrings(path):
    """Those of modules, classes and functions, and the strings below attributes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                opening = next(iter(text.split()), "")
                if opening in OPENINGS:
                    yield f"{_place(path, node.lineno)}: opens with {opening!r}: use a noun phrase or an imperative"
                yield from _words(path, CODE.sub(_blank, text), node.lineno)


def _words(path, text, line):
    for pattern, instead in WORDS.items():
        for match in re.finditer(rf"\b(?:{pattern})\b", text, flags=re.IGNORECASE):
            at = line + text.count("\n", 0, match.start())
            yield f"{_place(path, at)}: {' '.join(match[0].split())!r}: {instead}"


def _blank(match):
    """As many lines, so that places stay right."""
    return "\n" * match[0].count("\n")


def _place(path, line):
    return f"{path.relative_to(ROOT).as_posix()}:{line}"


def main():
    found = list(problems())
    print("\n".join(found) or "words: nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""Excerpts of the source in pages: `<!-- excerpt: FILE SYMBOL -->` becomes the code of that symbol when the site is built.

A symbol is `Class.method` or a function in Python, without its docstring; in C++ it is the beginning of a line.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"^<!-- excerpt: (\S+) (.+?) -->$", re.MULTILINE)


def inserted(markdown):
    """The page with code at its marks."""
    return MARK.sub(lambda match: _fence(match[1], excerpt(match[1], match[2])), markdown)


def excerpt(file, symbol):
    """The lines of a symbol.

    Raises:
        LookupError: If the file has no such symbol.
    """
    text = (ROOT / file).read_text(encoding="utf-8")
    lines = _python(text, symbol.split(".")) if file.endswith(".py") else _cpp(text.splitlines(), symbol)
    if not lines:
        raise LookupError(f"{file} has no {symbol}")
    return lines


def _python(text, names):
    node = ast.parse(text)
    for name in names:
        node = next((each for each in getattr(node, "body", []) if getattr(each, "name", None) == name), None)
    if node is None:
        return []
    lines = text.splitlines()
    found = lines[node.lineno - 1 : node.end_lineno]
    if ast.get_docstring(node) is not None:
        doc = node.body[0]
        found = lines[node.lineno - 1 : doc.lineno - 1] + lines[doc.end_lineno : node.end_lineno]
    return [line[node.col_offset :] for line in found]


def _cpp(lines, beginning):
    """From a line that begins so to the next one that closes it."""
    first = next((number for number, line in enumerate(lines) if line.startswith(beginning)), None)
    if first is None:
        return []
    last = next(number for number, line in enumerate(lines) if number > first and line.startswith("}"))
    return lines[first : last + 1]


def _fence(file, lines):
    language = "python" if file.endswith(".py") else "cpp"
    return "\n".join([f'```{language} title="{file}"', *lines, "```"])

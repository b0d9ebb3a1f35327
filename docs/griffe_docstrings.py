"""Prepares docstrings for the site: references become paragraphs with links, doctests blocks; completes signatures."""

import importlib
import inspect
import re

import griffe

ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")


class Docstrings(griffe.Extension):
    """Changes every docstring before it is parsed."""

    def on_object(self, *, obj, **others):
        if obj.docstring:
            obj.docstring.value = with_code(with_links(with_reference(obj.docstring.value)))

    def on_class_members(self, *, cls, **others):
        """Put arguments that a constructor takes by `**options: Unpack[...]` into its signature, as `inspect` has it."""
        init = cls.members.get("__init__")
        if init is None or init.is_alias:
            return
        for options in [each for each in init.parameters if "Unpack" in str(each.annotation or "")]:
            del init.parameters[options.name]
            value = getattr(importlib.import_module(cls.module.path), cls.name)
            for name, each in inspect.signature(value).parameters.items():
                if each.kind is each.KEYWORD_ONLY and name not in init.parameters:
                    kind = griffe.ParameterKind.keyword_only
                    init.parameters.add(griffe.Parameter(name, kind=kind, default=repr(each.default)))


def with_reference(text):
    """`Reference:` and `Example:`, which are no sections of Google's style, as words in bold."""
    text = re.sub(r"^Reference:\s*(.*?)(?=\n\n|\Z)", _paragraph, text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^Example:", "**Example:**", text, flags=re.MULTILINE)


def with_links(text):
    return ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def with_code(text):
    """Doctests, each with what it prints until the next blank line, between fences."""
    return re.sub(r"^( *)>>> .*?(?=\n\s*\n|\Z)", r"\1```pycon\n\g<0>\n\1```", text, flags=re.DOTALL | re.MULTILINE)


def _paragraph(match):
    return "**Reference:** " + " ".join(match[1].split())

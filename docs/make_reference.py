"""The reference: a page for each room, with every name of its `__all__`, and one for the command line."""

import argparse
import importlib

ROOMS = (
    "schedules",
    "laws",
    "data",
    "callbacks",
    "optimizers",
    "precision",
    "distributed",
    "tune",
    "kernels",
    "study.workloads",
)


def pages():
    """Name and Markdown of each page; mkdocstrings fills in the docstrings."""
    for room in ROOMS:
        yield f"reference/{room.partition('.')[0]}.md", "\n".join(_room(importlib.import_module(f"keras_lrsched.{room}")))
    yield "reference/cli.md", "\n".join(_command_line())


def _room(module):
    title = module.__name__.rpartition(".")[2].capitalize()
    yield f"# {title}\n\n{module.__doc__}\n"
    for name in sorted(module.__all__, key=str.lower):
        yield f"::: {module.__name__}.{name}\n"


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

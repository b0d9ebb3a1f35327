"""Helpers of all commands: reading arguments, and one line for a mistake of the user."""

import argparse
import contextlib
import difflib
import importlib.util
import io
import itertools
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from keras_lrsched._core import registry


class UsageError(Exception):
    """A request of the user that cannot be fulfilled; the message is the one line with the reason."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line. It takes no options that it does not have, and no abbreviated ones."""

    def __init__(self, examples=(), **options):
        epilog = "\n".join(["examples:", *(f"  keras-lrsched {each}" for each in examples)]) if examples else None
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(**options, allow_abbrev=False, epilog=epilog, formatter_class=formatter)
        self.examples = examples

    def error(self, message):
        print(f"{self.prog}: {' '.join(message.split())}", file=sys.stderr)
        raise SystemExit(2)

    def parse_known_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else list(args)
        # What begins the line is looked at before: the value of an unknown option would be taken for a command.
        leading = itertools.takewhile(lambda word: word.startswith("--"), words)
        self._refuse([word for word in leading if word.partition("=")[0] not in {"--", *self._option_string_actions}])
        namespace, unknown = super().parse_known_args(words, namespace)
        self._refuse(unknown)
        return namespace, unknown

    def _refuse(self, unknown):
        if unknown:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
            suggestion = f" Did you mean {near[0]}?" if near else ""
            self.error(f"There is no option {unknown[0]!r}.{suggestion} Options: {', '.join(sorted(known))}.")


def positive(kind):
    def parse(text):
        with argument_errors(f"must be {NAMES[kind]}", text):
            value = kind(text)
            if not 0 < value < float("inf"):
                raise ValueError
        return value

    return parse


NAMES = {int: "a positive integer", float: "a positive number"}


def list_of(kind):
    parse = positive(kind)

    def parse_all(text):
        with argument_errors(f"must be {NAMES[kind]}, or several separated by commas", text):
            return [parse(part) for part in text.split(",")]

    return parse_all


def share(text):
    with argument_errors("must be at least 0 and below 1", text):
        value = float(text)
        if not 0 <= value < 1:
            raise ValueError
    return value


@contextlib.contextmanager
def argument_errors(message, text):
    """Turns whatever is wrong with the text of an option into one message."""
    try:
        yield
    except (ValueError, OverflowError, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(f"{message}. Received: {text}") from error


def add_output(command, default, what):
    """The option `--out` for a file that the command writes, and `--force`."""
    command.add_argument("-o", "--out", default=default, help=f"{what} (default: {default})")
    command.add_argument("--force", action="store_true", help="replace a file that is there")


def check_output(out, inputs, force):
    """Refuses to write over a file that the command reads, and over any other one without `--force`."""
    path = Path(out).expanduser()
    if not path.exists():
        return
    for name in inputs:
        source = Path(name).expanduser()
        if source.exists() and path.samefile(source):
            raise UsageError(f"The output {out!r} is an input, which would be lost: give another one by --out.")
    if not force:
        raise UsageError(f"The output {out!r} exists: give another one by --out, or replace it by --force.")


def check_picture(out):
    """Refuses a picture of a type that Matplotlib does not write; without a type, it would write to another file."""
    from matplotlib.backend_bases import FigureCanvasBase

    types = sorted(FigureCanvasBase.get_supported_filetypes())
    if Path(out).suffix.removeprefix(".").lower() not in types:
        raise UsageError(
            f"The picture must be of a type that Matplotlib writes: .{', .'.join(types)}. Received: --out {out}"
        )


def check_names(what, room, texts, kind=None):
    """Refuse names that the registry does not have, without importing a framework."""
    known = [row["name"] for row in registry.read(room) if row["name"] and kind in (None, row.get("kind"))]
    for text in texts:
        if text not in known:
            raise UsageError(f"Unknown {what} {text!r}. {registry.did_you_mean(text, known)}")


def check_schedules(texts):
    """Refuse schedules with unknown names; what is wrong with their options is found when they are built."""
    others = {row["name"] for row in registry.read("schedules") if row.get("kind") != "learning rate"}
    names = [text.partition(":")[0] for text in texts if not text.startswith("file:")]
    check_names("schedule", "schedules", [name for name in names if name not in others], "learning rate")


def files_of(schedules):
    """The files among the schedules that a user named."""
    return [name.removeprefix("file:") for name in schedules if name.startswith("file:")]


def show(title, header, rows):
    """Prints a table: drawn on a terminal, else separated by tabs. No cell is cut.

    Args:
        title: A line above it.
        header: The names of the columns; `None` if they have none.
        rows: Lists of texts.
    """
    rows = [[" ".join(str(cell).split()) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        print(f"# {title}")
        for row in rows if header is None else [header, *rows]:
            print("\t".join(row))
        print()
        return
    table = Table(title=title, title_justify="left", show_header=header is not None)
    for i, name in enumerate(header or rows[0]):
        whole = max((len(row[0]) for row in rows), default=0) if i == 0 else None  # what one copies stays in one line
        table.add_column(name if header else "", overflow="fold", min_width=whole)
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table, crop=False)


def print_in_any_encoding():
    """Lets stdout and stderr print what their encoding lacks as escape sequences."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def usage_errors(*kinds):
    """Turns errors of these kinds, which name a mistake of the user, into one line."""
    try:
        yield
    except kinds as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def silent_stderr():
    """Keeps what TensorFlow's libraries write to the file descriptor itself, before they can be silenced."""
    try:
        kept = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def require(package, extra):
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"This needs {package}: pip install 'keras-lrsched[{extra}]'")


def devices():
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    if keras.backend.backend() == "jax":
        import jax

        return [str(device) for device in jax.devices()]
    import torch

    return ["cpu", *(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))]

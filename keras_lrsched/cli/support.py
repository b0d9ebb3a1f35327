"""What all commands share: how arguments are read, and how a mistake of the user becomes one line."""

import argparse
import contextlib
import importlib.util
import os
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")


class UsageError(Exception):
    """What the user asked for cannot be done; the message is the one line that says why."""


def positive(kind):
    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be positive: {text}")
        return value

    parse.__name__ = kind.__name__
    return parse


def list_of(kind):
    parse = positive(kind)
    return lambda text: [parse(part) for part in text.split(",")]


def share(text):
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1: {text}")
    return value


def add_output(command, default, what):
    """The option `--out` for a file that the command writes, and `--force`."""
    command.add_argument("-o", "--out", default=default, help=f"{what} (default: {default})")
    command.add_argument("--force", action="store_true", help="replace a file that is there")


def check_output(out, inputs, force):
    """Refuses to write over a file that the command reads, and over any other one without `--force`."""
    path = Path(out)
    if not path.exists():
        return
    for name in inputs:
        if Path(name).exists() and path.samefile(name):
            raise UsageError(f"The output {out!r} is an input, which would be lost: give another one by --out.")
    if not force:
        raise UsageError(f"The output {out!r} exists: give another one by --out, or replace it by --force.")


def files_of(schedules):
    """The files among the schedules that a user named."""
    return [name.removeprefix("file:") for name in schedules if name.startswith("file:")]


@contextlib.contextmanager
def usage_errors(*kinds):
    """Turns errors of these kinds, which name a mistake of the user, into one line."""
    try:
        yield
    except kinds as error:
        raise UsageError(str(error)) from error


@contextlib.contextmanager
def silent_stderr():
    """Keeps what TensorFlow's libraries write to the file descriptor itself, before they can be told not to."""
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

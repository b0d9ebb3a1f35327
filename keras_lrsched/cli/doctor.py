"""`keras-lrsched doctor`: versions, backend, devices, and what is compiled."""

import importlib.metadata
import platform

from rich.console import Console
from rich.table import Table

from keras_lrsched.cli.support import BACKENDS, devices
from keras_lrsched.version import __version__


def add(commands):
    command = commands.add_parser("doctor", help="versions, backend, devices, and what is compiled")
    command.set_defaults(run=doctor)


def doctor(arguments) -> int:
    import keras

    from keras_lrsched import kernels

    table = Table(show_header=False, title="keras-lrsched doctor", title_justify="left")
    table.add_row("keras-lrsched", __version__)
    table.add_row("Python", f"{platform.python_version()} on {platform.platform()}")
    for package in ("keras", *BACKENDS, "numpy", "scipy", "scikit-learn", "matplotlib", "pillow", "tensorboard"):
        table.add_row(package, _version(package))
    table.add_row("backend", keras.backend.backend())
    table.add_row("devices", ", ".join(devices()))
    table.add_row("float type", keras.config.floatx())
    for name, state in kernels.status().items():
        table.add_row(f"kernels: {name}", state)
    Console().print(table)
    return 0


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

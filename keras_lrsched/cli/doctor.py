"""`keras-lrsched doctor`: versions, backend, devices, and what is compiled."""

import importlib.metadata
import platform

from keras_lrsched._core.backend_choice import BACKENDS
from keras_lrsched.cli.support import UsageError, devices, show
from keras_lrsched.version import __version__

EXAMPLES = ("doctor", "--backend jax doctor", "doctor --build")


def add(commands):
    command = commands.add_parser("doctor", help="versions, backend, devices, and what is compiled", examples=EXAMPLES)
    command.add_argument(
        "--build", action="store_true", help="compile all libraries ahead, also those whose compilation failed before"
    )
    command.set_defaults(run=doctor, needs_keras=False, needs_backend=False)


def doctor(arguments) -> int:
    rows = [
        ["keras-lrsched", __version__],
        ["Python", f"{platform.python_version()} on {platform.platform()}"],
    ]
    for package in ("keras", *BACKENDS, "numpy", "scipy", "scikit-learn", "matplotlib", "pillow", "tensorboard"):
        rows.append([package, _version(package)])
    try:
        arguments.load_keras()
        rows += _of_the_backend()
        code = 0
    except UsageError as error:
        rows.append(["backend", f"none that works: {error}"])
        code = 1
    show("keras-lrsched doctor", None, rows)
    if arguments.build and code == 0:
        code = _build()
    return code


def _build() -> int:
    """Prints a line as each library is there; returns 1 if one cannot be built."""
    from keras_lrsched import kernels

    code = 0
    for name, result, is_built in kernels.build_all():
        print(f"{name}\t{result}", flush=True)
        code = code if is_built else 1
    return code


def _of_the_backend():
    import keras

    from keras_lrsched import kernels

    yield ["backend", keras.backend.backend()]
    yield ["devices", ", ".join(devices())]
    yield ["float type", keras.config.floatx()]
    for name, state in kernels.status().items():
        yield [f"kernels: {name}", state]


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

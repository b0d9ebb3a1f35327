"""The command line: `keras-lrsched list | plot | compare | study | predict | doctor`.

Wrong input ends with one line on stderr and exit code 2, before anything is written. Keras is imported late, since that
takes seconds and depends on the backend that is asked for.
"""

import importlib
import os
import sys
import warnings

from keras_lrsched._core.backend_choice import BACKENDS, installed_backends, use_installed_backend
from keras_lrsched.cli import compare, doctor, listing, plot, predict, study
from keras_lrsched.cli.support import (
    Parser,
    UsageError,
    devices,
    print_in_any_encoding,
    silent_stderr,
    usage_errors,
)
from keras_lrsched.version import __version__


def main(argv=None) -> int:
    print_in_any_encoding()
    arguments = _parser().parse_args(argv)
    arguments.words = sys.argv[1:] if argv is None else argv
    arguments.load_keras = lambda: _load_keras(arguments.backend)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            if arguments.needs_keras:
                arguments.load_keras()
            elif arguments.needs_backend:
                _choose_backend(arguments.backend)
            code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except UsageError as error:
        print(f"keras-lrsched: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would fail again as it ends
        return 128 + 13  # that of SIGPIPE


def _show_warning(message, category, filename, lineno, file=None, line=None):
    if issubclass(category, UserWarning):  # those that concern the user; others speak to programmers
        print(f"keras-lrsched: warning: {message}", file=sys.stderr)


def _parser():
    parser = Parser(prog="keras-lrsched", description="Which learning rate, which schedule?")
    parser.set_defaults(needs_keras=True, needs_backend=True)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help=f"one of {', '.join(BACKENDS)} (default: KERAS_BACKEND, what Keras is set to, or what is installed)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (listing, plot, compare, study, predict, doctor):
        module.add(commands)
    return parser


def _choose_backend(backend):
    """Set `KERAS_BACKEND` to the backend that was asked for, or to one that is installed. Imports nothing.

    Raises:
        UsageError: If it is unknown or not installed.
    """
    backend = backend or os.environ.get("KERAS_BACKEND") or None  # Keras takes an empty one for none, too
    if backend is not None:
        if backend not in BACKENDS:
            raise UsageError(f"Unknown backend {backend!r}. Known: {', '.join(BACKENDS)}.")
        if backend not in installed_backends():
            raise UsageError(f"The backend {backend!r} is not installed: pip install 'keras-lrsched[{backend}]'")
        os.environ["KERAS_BACKEND"] = backend
    with usage_errors(ImportError):
        use_installed_backend()
    return backend


def _load_keras(backend):
    """Import Keras on the backend that was asked for, or that Keras is set to."""
    backend = _choose_backend(backend)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with usage_errors(ImportError, RuntimeError, ValueError), silent_stderr():
        import keras

        importlib.import_module("keras_lrsched.schedules")
        devices()  # looking for a GPU is when CUDA complains that there is none
    if backend not in (None, keras.backend.backend()):
        raise UsageError(
            f"Keras already runs on {keras.backend.backend()!r}: {backend!r} must be set before it is imported."
        )
    importlib.import_module("keras_lrsched._core.keras_versions").warn_if_untested()

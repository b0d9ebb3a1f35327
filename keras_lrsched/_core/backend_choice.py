"""The backend that Keras will run on, found before Keras is imported: an installed one, unless the user has set another."""

import importlib.util
import json
import os
import sys
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")
INSTALL = "pip install 'keras-lrsched[tensorflow]', 'keras-lrsched[jax]' or 'keras-lrsched[torch]'"


def configured_backend() -> str | None:
    """The setting of the user: `KERAS_BACKEND`, else the `backend` of `~/.keras/keras.json`; `None` if it is neither."""
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"]
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return json.loads((home / "keras.json").read_text(encoding="utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):
        return None


def installed_backends() -> list[str]:
    """The backends that can be imported, the default of Keras first."""
    return [name for name in BACKENDS if importlib.util.find_spec(name) is not None]


def use_installed_backend() -> None:
    """Set `KERAS_BACKEND` to an installed backend if the user has set none and the default of Keras is not installed.

    Does nothing if Keras is imported already.

    Raises:
        ImportError: If the backend that the user has set is not installed, or none is.
    """
    if "keras" in sys.modules:
        return
    configured = configured_backend()
    if configured is not None and configured not in BACKENDS:  # Keras has others, which are not supported here
        return
    installed = installed_backends()
    if configured in installed or (configured is None and installed[:1] == ["tensorflow"]):
        return
    # Keras writes its default into keras.json, so that a file which names TensorFlow is not a choice of the user.
    source = "KERAS_BACKEND" if os.environ.get("KERAS_BACKEND") else "The backend in keras.json"
    is_of_user = source == "KERAS_BACKEND" or configured not in (None, "tensorflow")
    if is_of_user or not installed:
        missing = f"{source} is {configured!r}, which is not installed" if installed else "Keras needs a backend"
        raise ImportError(f"{missing}: install one of {', '.join(BACKENDS)} by {INSTALL}, and set KERAS_BACKEND to it.")
    os.environ["KERAS_BACKEND"] = installed[0]

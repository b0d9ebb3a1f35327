"""keras_lrsched decides how a Keras model is trained: its learning rate, its update rule, its precision."""

import importlib
import sys
from types import ModuleType

from keras_lrsched._core.backend_choice import use_installed_backend
from keras_lrsched._core.garbage import pause_garbage_collection
from keras_lrsched._core.registry import register
from keras_lrsched.version import __version__

_REGISTERED = ("optimizers", "precision", "schedules")
"""Rooms whose classes are in saved models: imported at once, so that `keras.saving` finds them."""

_ON_FIRST_USE = ("callbacks", "data", "distributed", "kernels", "laws", "study", "transfer", "tune")

__all__ = ["__version__", "callbacks", "data", "laws", "optimizers", "precision", "register", "schedules", "transfer"]


def __getattr__(name: str) -> ModuleType:
    if name in _REGISTERED + _ON_FIRST_USE:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_REGISTERED, *_ON_FIRST_USE})


# Not so in our own command, which chooses the backend first, and needs none for its help.
if "keras_lrsched_command" not in sys.modules:
    use_installed_backend()
    importlib.import_module("keras_lrsched._core.keras_versions").warn_if_untested()
    with pause_garbage_collection():
        for _room in _REGISTERED:
            importlib.import_module(f"{__name__}.{_room}")

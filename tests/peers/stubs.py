"""Imports of packages that load others for a version check or an 8-bit variant only."""

import importlib
import sys
from types import ModuleType
from unittest.mock import MagicMock

import pytest

STUBS = {
    "transformers": {},
    "transformers.integrations": {},
    "transformers.integrations.deepspeed": {"is_deepspeed_zero3_enabled": lambda: False},
    "transformers.utils": {"logging": MagicMock()},
    "transformers.utils.versions": {"require_version": lambda requirement: None},
    "bitsandbytes": {},
    "bitsandbytes.functional": {},
    "bitsandbytes.optim": {},
    "bitsandbytes.optim.optimizer": {"Optimizer2State": object},
}


def official(name, monkeypatch):
    """The module of this name, imported beside stand-ins for what its functions here do not need."""
    for path, content in STUBS.items():
        module = ModuleType(path)
        vars(module).update(content, __path__=[])
        monkeypatch.setitem(sys.modules, path, module)
    pytest.importorskip(name.partition(".")[0], reason="needs the environment of `make test-peers`")
    return importlib.import_module(name)

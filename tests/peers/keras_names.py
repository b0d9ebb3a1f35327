"""A plugin of pytest for Keras' own tests, with this package's classes in the place of Keras' classes of the same name."""

import functools
import sys
import types
from pathlib import Path

import keras
import pytest

from keras_lrsched import optimizers
from keras_lrsched.precision import LossScaleOptimizer
from keras_lrsched.schedules import ProfileDecay

from .keras_differences import differences

FOLDER = Path(keras.src.__file__).parent
NAMES = ("Adafactor", "AdamW", "Lamb", "Lion", "Muon", "ScheduleFreeAdamW", "SGD")
CLASSES = {**{name: getattr(optimizers, name) for name in NAMES}, "LossScaleOptimizer": LossScaleOptimizer}

SCHEDULES = {"CosineDecay": functools.partial(ProfileDecay, profile="cosine")}
"""Keras' schedules that are a case of one here."""


def pytest_configure(config):
    config.addinivalue_line("markers", "requires_trainable_backend: of Keras: a backend that trains, as all here do")
    config.addinivalue_line("markers", "multi_device: of Keras")
    sys.modules["conftest"] = keras_conftest()
    replace_classes()


def keras_conftest():
    """The names that Keras' tests import from the `conftest.py` of its repository, which is not installed."""
    module = types.ModuleType("conftest")
    backend = keras.backend.backend()
    vars(module)["skip_if_backend"] = lambda name, reason: pytest.mark.skipif(backend == name, reason=reason)
    return module


def replace_classes():
    """In all modules of Keras, and in what `keras.optimizers.get` finds by name."""
    if keras.backend.backend() == "torch":
        keep_updates_of_torch()
    replaced = {getattr(keras.optimizers, name): each for name, each in CLASSES.items()}
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "keras":
            for name, value in list(vars(module).items()):
                if isinstance(value, type) and value in replaced:
                    setattr(module, name, replaced[value])
    for name, make in SCHEDULES.items():
        setattr(keras.src.optimizers.schedules, name, make)
    keras.src.optimizers.ALL_OBJECTS_DICT.update({name.lower(): each for name, each in CLASSES.items()})


def keep_updates_of_torch():
    """Keras has updates in PyTorch's own operations for some of its classes, by name: they stay with these classes."""
    from keras.src.backend.torch.optimizers import torch_optimizer

    keras.optimizers.SGD()  # imports them
    torch_optimizer.optimizers = types.SimpleNamespace(**vars(keras.src.optimizers))


def pytest_collection_modifyitems(items):
    """A test that is listed must fail, and must be there."""
    listed = differences(keras.backend.backend())
    items = {name_of(item): item for item in items}
    files = {name.partition("::")[0] for name in items}
    missing = [name for name in listed if name not in items and name.partition("::")[0] in files]
    if missing:
        raise pytest.UsageError(f"keras_differences.py lists tests that do not exist: {', '.join(missing)}")
    for name in items.keys() & listed.keys():
        items[name].add_marker(pytest.mark.xfail(reason=listed[name], strict=True))


def name_of(item):
    """Such as `optimizers/sgd_test.py::SGDTest::test_config`."""
    return "::".join([str(item.path.relative_to(FOLDER)), *item.nodeid.split("::")[1:]])

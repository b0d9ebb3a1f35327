"""One name, one default: what has the name of a Keras class takes its arguments, in its order, with its defaults."""

import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest
from keras import ops

import keras_lrsched

BEFORE_3_12 = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 12)

SPACES = (keras, keras.optimizers, keras.optimizers.schedules, keras.callbacks, keras.layers, keras.models)
KINDS = (
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.callbacks.Callback,
    keras.layers.Layer,
)
"""Two classes of one name are compared if they are of one kind: `schedules.Constant` is no initializer."""

OF_A_FRAMEWORK = ("keras_lrsched.kernels.", "keras_lrsched._core.backends.")
"""Modules that each need their framework."""

DIFFERENCES: dict[tuple[str, str], str] = {}
"""(class, argument) -> why it differs from Keras'. There is none."""


def classes():
    """The classes here, by name, that have the name of a Keras class of the same kind, and that class."""
    theirs = {
        (kind, name): each
        for space in SPACES
        for name, each in vars(space).items()
        for kind in KINDS
        if inspect.isclass(each) and issubclass(each, kind)
    }
    found = {}
    lacking = () if hasattr(keras.layers, "ReversibleEmbedding") else ("keras_lrsched.precision.layers.embedding",)
    for module in pkgutil.walk_packages(keras_lrsched.__path__, "keras_lrsched."):
        if module.name.endswith("__main__") or module.name.startswith(OF_A_FRAMEWORK) or module.name in lacking:
            continue
        for name, each in vars(importlib.import_module(module.name)).items():
            kinds = [kind for kind in KINDS if inspect.isclass(each) and issubclass(each, kind)]
            if kinds and each.__module__ == module.name and (kinds[0], name) in theirs:
                found[name] = each, theirs[kinds[0], name]
    return found


PAIRS = classes()


def arguments(kind):
    """(name, default) of what a constructor takes by place or name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [(it.name, it.default) for it in inspect.signature(kind.__init__).parameters.values() if it.kind in by_name][1:]


def test_all_are_found():
    names = {"Adafactor", "AdamW", "Lamb", "Lion", "LossScaleOptimizer", "Muon", "Optimizer", "ScheduleFreeAdamW", "SGD"}
    assert {name for name in names if name in vars(keras.optimizers)} <= set(PAIRS)


@pytest.mark.parametrize("name", PAIRS)
def test_arguments_are_those_of_keras(name):
    if BEFORE_3_12 and issubclass(PAIRS[name][0], keras.optimizers.Optimizer):
        pytest.skip("arguments of optimizers are those of Keras 3.12 and newer")
    ours, theirs = map(arguments, PAIRS[name])
    if name == "Optimizer":
        theirs = arguments(keras.src.optimizers.base_optimizer.BaseOptimizer)
    differing = {mine[0] for mine, yours in zip(ours, theirs, strict=False) if mine != yours}
    differing |= {argument for argument, _ in theirs[len(ours) :]}
    assert differing == {argument for kind, argument in DIFFERENCES if kind == name}


@pytest.mark.parametrize("name", sorted(set(PAIRS) - {"Optimizer", "LossScaleOptimizer"}))
def test_their_configuration_is_taken(name):
    """All of Keras' arguments are taken at their defaults, and kept."""
    ours, theirs = PAIRS[name]
    config = theirs().get_config()
    assert (
        config.items() <= {**ours.from_config(config).get_config(), "exclude_layers": config.get("exclude_layers")}.items()
    )


GRADIENTS = np.random.default_rng(0).normal(size=(40, 4, 3)).astype("float32")
EXACT = {
    "SGD": ({}, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "Lion": ({}, {"learning_rate": 0.1, "beta_1": 0.8, "weight_decay": 0.1}),
    # of the first updates, Keras adds epsilon before the correction of the bias: 1e-7 of gradients of about 1
    "AdamW": ({}, {"learning_rate": 0.1, "beta_2": 0.9, "weight_decay": 0.1}, {"beta_2": 0.9, "amsgrad": True}),
    "Lamb": ({}, {"learning_rate": 0.1, "beta_2": 0.9}),
    "Adafactor": ({}, {"learning_rate": 0.7}, {"epsilon_2": 0.1, "clip_threshold": 0.5, "relative_step": True}),
    "Muon": (
        {},
        {"weight_decay": None, "momentum": 0.5},
        {"nesterov": False, "rms_rate": None, "ns_steps": 3, "muon_a": 3.0},
    ),
}


@pytest.mark.parametrize(("name", "options"), [(name, each) for name, lists in EXACT.items() for each in lists])
def test_trajectory_is_that_of_keras(name, options):
    """At equal arguments, as far as the formulas are the same; each docstring names what is not."""
    if BEFORE_3_12 and name == "Muon":
        pytest.skip("Muon is that of Keras 3.12 and newer")
    ours, theirs = (each(**options) for each in PAIRS[name])
    weights = [keras.Variable(np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3), name="kernel") for _ in range(2)]
    for gradient in GRADIENTS:
        for optimizer, weight in zip((ours, theirs), weights, strict=True):
            optimizer.apply([ops.convert_to_tensor(gradient)], [weight])
    mine, yours = (ops.convert_to_numpy(weight) for weight in weights)
    np.testing.assert_allclose(mine, yours, rtol=1e-5, atol=1e-5)


def test_registered_names_are_those_of_keras():
    """A bare name is Keras' class; the package's name in front of it is the class here."""
    not_found = ("Lamb", "Muon") if BEFORE_3_12 else ("Lamb",)  # by their names, by Keras
    for name, (ours, theirs) in PAIRS.items():
        if name not in ("Optimizer", "LossScaleOptimizer"):
            if name not in not_found:
                assert isinstance(keras.optimizers.get(name), theirs)  # under PyTorch of a subclass
            config = {"class_name": f"keras_lrsched>{name}", "config": {}}
            assert type(keras.optimizers.get(config)) is ours

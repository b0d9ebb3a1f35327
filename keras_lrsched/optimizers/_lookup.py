"""Optimizers by name: those of the registry with the values of their papers, and Keras' own."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from keras_lrsched._core import registry
from keras_lrsched.optimizers.adamw import AdamW
from keras_lrsched.optimizers.wrapper import Wrapper


def names() -> list[str]:
    """The names of all optimizers of this package, sorted."""
    return registry.names("optimizers")


def get(identifier: str | Mapping[str, Any] | keras.optimizers.Optimizer, **options: Any) -> keras.optimizers.Optimizer:
    """Return an optimizer by its name, from a config, or as it is.

    A name of this package stands for the method with the values of its paper or of the authors' code, where the defaults of
    the class are Keras'. The name of a wrapper, such as `"lookahead"`, stands for one around `AdamW`, which takes the
    options that the wrapper has no argument for. Names that this package does not have are looked up by
    `keras.optimizers.get`: `"sgd"` is `SGD` of this package with a momentum of 0.9, `"SGD"` and `"adam"` are Keras'.

    Args:
        identifier: `"name"` or `"name:option=value:option=value"`, where values are JSON or plain words; a config as for
            `keras.optimizers.get`; or an optimizer.
        **options: Constructor arguments, beside a name.

    Raises:
        ValueError: If the name is unknown, with the nearest names; if an option is unknown or out of its range; if there are
            options beside a config or an optimizer.

    Example:

    >>> get("lion").learning_rate.numpy().item() < 2e-4  # of the paper
    True
    >>> get("lion:beta_2=0.98").get_config()["beta_2"]
    0.98
    >>> get("lookahead", sync_period=10, learning_rate=0.1).inner_optimizer.__class__.__name__
    'AdamW'
    """
    if not isinstance(identifier, str):
        if options:
            raise ValueError(f"Options belong to a name. Received: identifier={identifier!r}, options={options!r}")
        if identifier is None:  # for which Keras returns `None`
            raise ValueError("`identifier` must be a name, a config or an optimizer. Received: identifier=None")
        return keras.optimizers.get(dict(identifier) if isinstance(identifier, Mapping) else identifier)
    name, in_name = registry.parse(identifier)
    options = {**in_name, **options}
    if name not in names():
        return _of_keras(name, options)
    entry = registry.find("optimizers", name)
    known = _options(entry)
    unknown = [option for option in options if option not in known]
    if unknown:
        hint = registry.did_you_mean(unknown[0], known)
        raise ValueError(f"{name!r} has no option {unknown[0]!r}. {hint} Received: {identifier!r}, options={options!r}")
    return build(entry, **options)


def build(entry: registry.Entry, **options: Any) -> keras.optimizers.Optimizer:
    """The optimizer of a row of the registry, with these options."""
    options = {**entry.options, **options}
    if issubclass(entry.target, Wrapper):
        return entry.target.around(_inner(entry), **options)
    return entry.target(**options)


def _of_keras(name: str, options: dict[str, Any]) -> keras.optimizers.Optimizer:
    known = {each.lower() for each, kind in vars(keras.optimizers).items() if isinstance(kind, type)} - {"optimizer"}
    if name.lower() not in known:
        raise ValueError(f"Unknown optimizer {name!r}. {registry.did_you_mean(name, names())}")
    return keras.optimizers.get({"class_name": name, "config": options})


def _options(entry: registry.Entry) -> list[str]:
    """The names of the arguments that a name takes; for a wrapper, those of `AdamW` inside of it as well."""
    known = [*inspect.signature(entry.target).parameters]
    if issubclass(entry.target, Wrapper):
        known.remove("optimizer")
        known += [name for name in inspect.signature(_inner(entry)).parameters if name not in known]
    return known


def _inner(entry: registry.Entry) -> type[keras.optimizers.Optimizer]:
    """The class that a wrapper's name puts inside: `AdamW` for those that take any."""
    return entry.target.inner_kind or AdamW

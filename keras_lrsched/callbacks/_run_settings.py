"""The settings that a script gives to a run, as plain values, so that two scripts can be compared."""

import hashlib
import inspect
import json
import sys
import types
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_lrsched._core import keras_private, plain, training_loop
from keras_lrsched._core.user_code import is_of_user


def describe(model: keras.Model, data: Any) -> dict[str, Any]:
    """A dictionary from dotted paths, such as `"optimizer.weight_decay"`, to plain values.

    Args:
        model: A compiled model.
        data: The settings of the data, as plain values (`data_of_fit.description`).
    """
    settings = _of_layers(model) | {"python": list(sys.version_info[:2]), "seed": keras_private.random_seed()}
    for name, optimizer in optimizers_of(model).items():
        settings |= _of_object(name, optimizer, leave_out=("optimizer", "inner_optimizer"))
    arguments = keras_private.compile_arguments(model)
    for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
        settings[name] = _plain(arguments.get(name))
    return settings | {f"data.{name}": _plain(value) for name, value in data.items()}


def of_callback(callback: Any) -> dict[str, Any]:
    """The arguments of a callback that it keeps under their own names, as plain values."""
    names = inspect.signature(type(callback)).parameters
    return {name: _plain(value) for name, value in vars(callback).items() if name in names and not callable(value)}


def optimizers_of(model: keras.Model) -> dict[str, Any]:
    """The optimizers of a model by their paths, with those that they are wrapped around: `"optimizer.inner_optimizer"`."""
    found = {}
    for name, optimizer in training_loop.optimizers_of(model).items():
        found[name] = optimizer
        while hasattr(optimizer, "inner_optimizer"):
            name, optimizer = f"{name}.inner_optimizer", optimizer.inner_optimizer
            found[name] = optimizer
    return found


def differences(now: dict[str, Any], then: dict[str, Any], allow_changes: Iterable[str] = ()) -> list[str]:
    """The paths whose values differ, in the order of the script, without those that may."""
    paths = dict.fromkeys([*now, *then])
    if now.get("python") != then.get("python"):  # which compiles functions to other code
        paths = {
            path: None for path in paths if path != "python" and not _is_code(now.get(path)) and not _is_code(then.get(path))
        }
    return [path for path in paths if now.get(path) != then.get(path) and not is_allowed(path, allow_changes)]


def is_allowed(path: str, allow_changes: Iterable[str]) -> bool:
    """Whether a path, or one that leads to it, may have changed."""
    return any(path == allowed or path.startswith(f"{allowed}.") for allowed in allow_changes)


def check(now: dict[str, Any], then: dict[str, Any], allow_changes: Iterable[str]) -> None:
    """Compare the settings of a script with those of the saved run.

    Raises:
        ValueError: If they differ, with the first difference.
    """
    for path in differences(now, then, allow_changes):
        raise ValueError(
            f"`{path}` is not what it was in the saved run: {_shown(then, path)}. Received: {_shown(now, path)}. "
            f'To continue with the new one, use TrainingState(..., allow_changes=["{path}"]); to train from the start, '
            "remove the file"
        )


def _shown(settings: dict[str, Any], path: str) -> str:
    return f"{settings[path]!r:.200}" if path in settings else "nothing"


def _of_layers(model: keras.Model) -> dict[str, Any]:
    layers = [layer for layer in keras_private.layers_of(model) if not isinstance(layer, keras.layers.InputLayer)]
    settings: dict[str, Any] = {}
    for number, layer in enumerate(layers):
        name = "model" if layer is model else f"model.layers.{number}"
        settings |= _of_object(name, layer, leave_out=_PARTS if isinstance(layer, keras.Model) else ())
        settings[f"{name}.dtype"] = layer.dtype_policy.name
        settings[f"{name}.trainable"] = bool(layer.trainable)
    settings["model.wiring"] = _wiring(model)
    return settings


_PARTS = ("layers", "input_layers", "output_layers", "build_input_shape", "dtype", "module")
"""Parts of a model's configuration that describe its layers, which are compared by themselves."""

_LEFT_OUT = (
    *(
        "name",
        "seed",
        "shared_object_id",
        "build_config",
        "compile_config",
        "registered_name",
        "module",
        "dtype",
        "trainable",
    ),
    *("batch_shape", "batch_input_shape"),
)


def _of_object(path: str, thing: Any, leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """The class of an object, its configuration, and a digest of the functions in its class if that is the user's."""
    settings = {f"{path}.class": f"{type(thing).__module__}.{type(thing).__name__}"}
    if type(thing).__module__.startswith("keras."):
        settings[f"{path}.class"] = f"keras.{type(thing).__name__}"
    try:
        config = thing.get_config()
    except (NotImplementedError, TypeError, AttributeError, ValueError):  # a layer of the user's that cannot be saved
        config = {}
    for name, value in config.items():
        if name == "function" and isinstance(thing, keras.layers.Lambda):
            value = thing.function  # its configuration depends on where in a file the function is
        if name not in _LEFT_OUT and name not in leave_out:
            settings[f"{path}.{name}"] = _plain(value)
    code = [_code(each) for base in type(thing).__mro__ if is_of_user(base) for each in vars(base).values()]
    if any(code):
        settings[f"{path}.code"] = "code " + plain.digest([each for each in code if each])
    return settings


def _plain(value: Any) -> Any:
    """A plain value that is equal for equal settings, in another process, too."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if key not in _LEFT_OUT}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, int, str, type(None))):
        return value
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray):
        return "array " + plain.digest(value)
    if isinstance(value, types.FunctionType) and is_of_user(value):
        return "code " + _code(value)
    if hasattr(value, "get_config") and not isinstance(value, type):
        return _of_object("", value)
    return getattr(value, "__name__", None) or type(value).__name__


def _is_code(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("code ")


def _code(value: Any) -> str:
    """A digest of a Python function: of its instructions, constants, defaults, and of plain values in its closure."""
    for name in ("__func__", "fget", "func"):
        value = getattr(value, name, value)
    if not isinstance(value, types.FunctionType):
        return ""
    value = inspect.unwrap(value)
    cells = [cell.cell_contents for cell in value.__closure__ or () if _has_content(cell)]
    kept = [each for each in [*cells, *(value.__defaults__ or ())] if plain.is_plain(each) and plain.nbytes(each) < 2**16]
    return plain.digest([_instructions(value.__code__), kept])


def _instructions(code: types.CodeType) -> list:
    """The parts of compiled code that do not depend on where it lies in a file."""
    constants = [_instructions(each) if isinstance(each, types.CodeType) else repr(each) for each in code.co_consts]
    return [code.co_code, constants, list(code.co_names), list(code.co_varnames)]


def _has_content(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _wiring(model: keras.Model) -> str | None:
    """A digest of how the layers of a functional model are connected; `None` for other models."""
    try:
        config = model.get_config()
    except (NotImplementedError, TypeError, AttributeError, ValueError):
        return None
    layers = config.get("layers") if isinstance(config, dict) else None
    if not layers or "input_layers" not in config:
        return None
    places = {layer["name"]: number for number, layer in enumerate(layers)}
    nodes = [_renamed(layer.get("inbound_nodes"), places) for layer in layers]
    ends = [_renamed(config[name], places) for name in ("input_layers", "output_layers")]
    return hashlib.sha256(json.dumps([nodes, ends], sort_keys=True, default=str).encode()).hexdigest()[:16]


def _renamed(value: Any, places: Any) -> Any:
    """Names of layers, which Keras numbers anew in each process, replaced by their places."""
    if isinstance(value, dict):
        return {key: _renamed(item, places) for key, item in value.items() if key != "name"}
    if isinstance(value, (list, tuple)):
        return [_renamed(item, places) for item in value]
    return places.get(value, value) if isinstance(value, str) else value

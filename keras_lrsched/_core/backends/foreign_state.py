"""State in objects that are not Keras': generators, variables and tensors of NumPy, TensorFlow, JAX and PyTorch.

A program may use several of these at once. None is imported here: objects of a package that is not imported do not exist.
"""

import itertools
import random
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def access_to_state(value: Any, assign: Callable | None = None) -> Any:
    """The kind of state that an object holds, and how to read and write it as a plain value; `None` if it holds none.

    Args:
        value: Any object.
        assign: A function that replaces the object where it is held, or `None`.
    """
    for find in (_numpy, _python, _tensorflow, _torch):
        access = find(value, assign)
        if access is not None:
            return access
    return _tensor(value, assign)


def is_dataset(value: Any) -> bool:
    """Return `True` if it is a `tf.data.Dataset`."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(value, tf.data.Dataset)


def is_torch_data(value: Any) -> bool:
    """Return `True` if it is a PyTorch data loader, sampler or data set."""
    return "torch" in sys.modules and type(value).__module__.startswith("torch.utils.data")


def _numpy(value: Any, assign: Callable | None) -> tuple | None:
    if isinstance(value, np.random.Generator):
        generator: Any = value.bit_generator
        return "generator", lambda: generator.state, lambda new: setattr(generator, "state", new)
    if isinstance(value, np.random.RandomState):
        return "generator", lambda: value.get_state(legacy=False), value.set_state
    return None


def _python(value: Any, assign: Callable | None) -> tuple | None:
    if isinstance(value, random.Random):
        return "generator", value.getstate, value.setstate
    if isinstance(value, itertools.count) and assign is not None:
        return "generator", lambda: value.__reduce__()[1], lambda new: assign(itertools.count(*new))
    return None


def _tensorflow(value: Any, assign: Callable | None) -> tuple | None:
    tf = sys.modules.get("tensorflow")
    if tf is None:
        return None
    if isinstance(value, tf.Variable):
        return "variables", lambda: np.array(value.numpy()), value.assign
    if isinstance(value, tf.random.Generator):
        return "generator", lambda: np.array(value.state.numpy()), value.state.assign
    return None


def _torch(value: Any, assign: Callable | None) -> tuple | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if isinstance(value, torch.Generator):
        return "generator", lambda: value.get_state().numpy(), lambda new: value.set_state(torch.from_numpy(np.array(new)))
    if isinstance(value, torch.nn.Module) and not isinstance(value, keras.Layer):
        return "variables", lambda: _buffers(value), lambda new: _set_buffers(value, new)
    return None


def _buffers(module: Any) -> dict:
    return {name: buffer.detach().cpu().numpy() for name, buffer in module.named_buffers()}


def _set_buffers(module: Any, values: Any) -> None:
    torch = sys.modules["torch"]
    for name, buffer in module.named_buffers():
        buffer.copy_(torch.from_numpy(np.array(values[name])))


def _tensor(value: Any, assign: Callable | None) -> tuple | None:
    """A tensor that an attribute holds, which another one replaces."""
    if assign is None or not keras.ops.is_tensor(value) or isinstance(value, keras.KerasTensor):
        return None
    try:
        array = np.array(keras.ops.convert_to_numpy(value))
    except Exception:  # a tensor of a graph, or one that is being traced
        return None
    return "value", lambda: array, lambda new: assign(keras.ops.convert_to_tensor(new))

"""All state of a model in training, kept aside and put back."""

import itertools
import random

import keras
import numpy as np

from keras_lrsched._core import keras_private

KINDS = ("model", "optimizer", "metrics")


class Snapshot:
    """A copy of the weights, of the state of random layers, and of the optimizer; `restore()` puts it back, bit for bit.

    It holds `model.variables`, which include BatchNorm's moving statistics and the seeds of dropout, and
    `optimizer.variables`: the counter, the learning rate, moments, averages, accumulated gradients, the loss scale. It may
    be taken and restored inside of `fit`, by any callback. An optimizer without state yet is built.

    Args:
        model: A compiled model whose weights exist.
        metrics: Whether the metrics are held too. Defaults to `False`: the means in Keras' logs go on over what was
            trained, whether it is kept or not.

    Raises:
        ValueError: If the model has no weights yet; from `restore`, if the model has other variables than it had.

    Example:

    >>> model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    >>> model.compile("adam", loss="mse")
    >>> before = Snapshot(model)
    >>> history = model.fit(np.ones((2, 1)), np.ones((2, 1)), verbose=0)
    >>> before.restore()
    >>> float(model.get_weights()[0].item()), int(model.optimizer.iterations)
    (0.0, 0)
    """

    def __init__(self, model, metrics=False):
        _prepare(model)
        self._model = model
        kinds = KINDS if metrics else KINDS[:2]
        self._values = {kind: [_copy(variable) for variable in _variables(model, kind)] for kind in kinds}
        self._of_callbacks = [(each, _copy(each)) for each in _optimizer_variables(model) if _is_of_callback(each)]

    @classmethod
    def from_state(cls, model, state):
        """A snapshot that was taken of the same model, maybe in another process."""
        snapshot = cls.__new__(cls)
        snapshot._model, snapshot._values, snapshot._of_callbacks = model, state, []
        return snapshot

    def state(self):
        """The copies: a dictionary of lists of NumPy arrays, not to be changed."""
        return self._values

    def restore(self):
        _prepare(self._model)
        places = {kind: _variables(self._model, kind) for kind in self._values}
        for kind, values in self._values.items():
            _check(kind, places[kind], values)
        for kind, values in self._values.items():
            for variable, value in zip(places[kind], values, strict=True):
                variable.assign(value)
        for variable, value in self._of_callbacks:
            variable.assign(value)


def random_state():
    """The state of the random numbers that belong to no layer: Python's, NumPy's, PyTorch's, and Keras' without a seed."""
    version, numbers, gauss = random.getstate()
    generator = keras_private.existing_global_seed_generator()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": np.random.get_state(legacy=False),
        "keras": None if generator is None else _copy(generator.state),
        "torch": _torch_random_state(),
    }


def restore_random_state(state):
    version, numbers, gauss = state["python"]
    if state["keras"] is None:
        keras_private.forget_global_seed_generator()
    else:
        keras_private.global_seed_generator().state.assign(state["keras"])  # making it may draw from Python's numbers
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state["numpy"])
    restore_torch_random_state(state["torch"])


def _prepare(model):
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # JAX keeps all state inside the compiled step
    if not model.built:
        raise ValueError(f"Call the model on data first: it has no weights yet. Received: model={model.name!r}, not built")
    if model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _variables(model, kind):
    if kind == "model":
        return model.variables
    if kind == "optimizer":
        return [each for each in _optimizer_variables(model) if not _is_of_callback(each)]
    return model.metrics_variables


def _optimizer_variables(model):
    return [] if model.optimizer is None else model.optimizer.variables


def _is_of_callback(variable):
    """Whether it is there for a callback while `fit` runs, in whose state it is saved."""
    return getattr(variable, "of_callback", False)


def _copy(variable):
    return np.array(variable.numpy())


def _check(kind, variables, values):
    now = [f"{_name(variable.dtype)} {list(variable.shape)}" for variable in variables]
    then = [f"{_name(value.dtype)} {list(value.shape)}" for value in values]
    for number, (one, other) in enumerate(itertools.zip_longest(now, then, fillvalue="missing")):
        if one != other:
            path = f", {variables[number].path!r}," if number < len(variables) else ""
            raise ValueError(f"The {kind} has changed since. Its variable {number}{path} is {one}. Received: {other}")


def _name(dtype):
    return keras.backend.standardize_dtype(dtype)


def _torch_random_state():
    """What dropout without a seed draws from on PyTorch: the generator of the CPU, and those of all GPUs."""
    if keras.backend.backend() != "torch":
        return []
    import torch

    return [torch.get_rng_state().numpy(), *(state.numpy() for state in torch.cuda.get_rng_state_all())]


def restore_torch_random_state(states):
    if keras.backend.backend() == "torch" and states:
        import torch

        cpu, *gpus = (torch.from_numpy(np.array(state)) for state in states)
        torch.set_rng_state(cpu)
        torch.cuda.set_rng_state_all(gpus)

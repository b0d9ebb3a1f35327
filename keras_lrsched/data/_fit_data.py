"""The data that a running `fit` draws from: what their order depends on, and which batch comes first."""

import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_lrsched._core import keras_private, plain, training_loop
from keras_lrsched._core.random_state import random_state, restore_random_state
from keras_lrsched._core.tracked_state import TrackedState

ROWS = 64
"""Number of rows of an array, evenly spaced, in a digest."""


def description(iterator: Any) -> dict[str, Any]:
    """The settings of the data of an `EpochIterator`, as plain values."""
    adapter = iterator.data_adapter
    kind, data = keras_private.data_of_adapter(adapter)
    return {
        "kind": type(data).__name__ if kind == "PyDataset" else kind,
        "batches": iterator.num_batches if iterator.steps_per_epoch is None else adapter.num_batches,
        "batch_size": adapter.batch_size,
        "shuffle": keras_private.shuffle_of_adapter(adapter),
        "steps_per_epoch": iterator.steps_per_epoch,
        "first_batch": _digest_of_first_batch(kind, data),
    }


def unsaved_order(iterator: Any) -> dict[str, str]:
    """State that the order of the data depends on and no file can hold: a dictionary from a path to the reason.

    It is of interest for data that cannot be resumed by themselves.
    """
    kind, data = keras_private.data_of_adapter(iterator.data_adapter)
    if kind == "generator":
        return {"data": "the position of a Python generator"}
    if kind == "tf.data":
        found = _unsaved_in_pipeline("data", data)
        endless = iterator.data_adapter.num_batches is None and iterator.steps_per_epoch
        if iterator.steps_per_epoch and (endless or iterator.steps_per_epoch != iterator.data_adapter.num_batches):
            found["data"] = "the position in a pass over `tf.data`, which `steps_per_epoch` does not end with the epoch"
        return found
    batches = iterator.data_adapter.num_batches
    if iterator.steps_per_epoch and iterator.steps_per_epoch != batches:
        return {"data": "the position in a pass over the data, which `steps_per_epoch` does not end with the epoch"}
    if kind == "PyDataset" and data.workers > 1 and TrackedState({"data": data}).paths().get("generator"):
        return {"data": f"random numbers that {data.workers} workers draw in no fixed order"}
    if kind == "other":
        return {"data": "the state of these data"}
    return {}


def _unsaved_in_pipeline(path: str, dataset: Any) -> dict[str, str]:
    found = {}
    inputs, functions = keras_private.parts_of_dataset(dataset)
    if keras_private.shuffles_anew(dataset):
        found[path] = (
            "the order of `shuffle`, which is another one in each pass (`reshuffle_each_iteration=False` keeps one)"
        )
    for number, (_, graph, _) in enumerate(functions):
        if _operations(graph) & {"PyFunc", "EagerPyFunc"}:
            found[f"{path}.function{number}"] = "the state of a Python function or generator in `tf.data`"
    for index, each in enumerate(inputs):
        found |= _unsaved_in_pipeline(f"{path}.input{index}", each)
    return found


def changed_by_a_pass(adapter: Any) -> dict[str, str]:
    """State that a further pass over the data of `fit` changes: a dictionary from a path to the reason.

    Random operations of TensorFlow in the functions of a pipeline are not there: each pass has its own.
    """
    kind, data = keras_private.data_of_adapter(adapter)
    return _changed_in_pipeline("data", data) if kind == "tf.data" else {}


def _changed_in_pipeline(path: str, dataset: Any) -> dict[str, str]:
    found = _unsaved_in_pipeline(path, dataset)
    inputs, functions = keras_private.parts_of_dataset(dataset)
    for number, (_, _, variables) in enumerate(functions):
        if variables:
            found[f"{path}.function{number}"] = f"the variables {', '.join(each.name for each in variables):.100}"
    for index, each in enumerate(inputs):
        found |= _changed_in_pipeline(f"{path}.input{index}", each)
    return found


def _digest_of_first_batch(kind: str, data: Any) -> str | None:
    """A fingerprint of the first batch, if it can be had without a trace; else `None`."""
    with contextlib.suppress(Exception):  # data of the user's, which may fail at what Keras does not require of them
        if kind == "arrays":
            return _digest(tree.map_structure(lambda array: array[:: max(1, len(array) // ROWS)][:ROWS], data))
        if kind == "generator":
            return _digest(data[0])
        if kind == "PyDataset":
            return _digest(_without_a_trace(data, lambda: data.peek(0) if hasattr(data, "peek") else data[0]))
        if kind == "DataLoader":
            return _digest(_without_a_trace(data, lambda: data.dataset[0]))
        if kind == "tf.data" and _is_pure(data):
            return _digest(next(iter(data.take(1))))
    return None


def _digest(batch: Any) -> str:
    return plain.digest([np.asarray(ops.convert_to_numpy(each)) for each in tree.flatten(batch) if each is not None])


def _without_a_trace(data: Any, draw: Callable[[], Any]) -> Any:
    state, numbers = TrackedState({"data": data}), random_state()
    before = state.state()
    try:
        return draw()
    finally:
        state.restore(before)
        restore_random_state(numbers)


def _is_pure(dataset: Any) -> bool:
    """Whether a pipeline has nothing in it that a further pass would change."""
    if _unsaved_in_pipeline("data", dataset):
        return False
    inputs, functions = keras_private.parts_of_dataset(dataset)
    if any(_operations(graph) & RANDOM or variables for _, graph, variables in functions):
        return False
    return all(map(_is_pure, inputs))


RANDOM = {
    *("Multinomial", "ParameterizedTruncatedNormal", "RandomGamma", "RandomPoisson", "RandomPoissonV2", "RandomShuffle"),
    *("RandomStandardNormal", "RandomUniform", "RandomUniformInt", "TruncatedNormal"),
}
"""The operations of TensorFlow that draw from a generator within themselves."""


def random_operations(model: keras.Model) -> list[str]:
    """The names of TensorFlow's random operations in the compiled step of a model that draw from no generator of Keras."""
    return sorted({operation for graph in keras_private.graphs_of_step(model) for operation in _operations(graph) & RANDOM})


def _operations(graph: Any) -> set[str]:
    """The names of the operations in a graph, and in the functions that it calls."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return {node.op for node in nodes}


def data_adapter(name: str) -> Any:
    """The data adapter of the running `fit`.

    Args:
        name: The name of the callback that needs it.

    Raises:
        ValueError: If the data can be read only once, or there is no `fit`.

    Warns:
        UserWarning: If the data are a `tf.data` pipeline that a further pass changes.
    """
    adapter = getattr(training_loop.epoch_iterator(), "data_adapter", None)
    if adapter is None:
        raise ValueError(
            f"{name} trains on the data of `fit`, so it cannot be used in a custom training loop: call `model.fit`. "
            "Received: no running `fit`"
        )
    if type(adapter).__name__ == "GeneratorDataAdapter":
        raise ValueError(
            f"{name} reads the data several times, which a generator's cannot be: give `fit` arrays or a dataset. "
            "Received: a generator"
        )
    changed = changed_by_a_pass(adapter)
    if changed:
        listed = "; ".join(f"`{path}`, {reason}" for path, reason in changed.items())
        warnings.warn(
            f"{name} makes further passes over the data, which change the batches that `fit` trains on afterwards, as "
            f"another seed would: {listed}",
            stacklevel=4,
        )
    return adapter


def batches_ahead(adapter: Any) -> Iterator[Any]:
    """An endless iterator: of the very batches that come next, if these are `ScheduledBatches`, else of new passes."""
    dataset = getattr(adapter, "py_dataset", None)
    if dataset is None:
        return itertools.chain.from_iterable(adapter.get_numpy_iterator() for _ in itertools.count())
    if hasattr(dataset, "peek"):
        return (keras_private.standardize_batch(adapter, dataset.peek(i)) for i in itertools.count())
    size = dataset.num_batches  # `None` for endless data
    return (keras_private.standardize_batch(adapter, dataset[i % size if size else i]) for i in itertools.count())

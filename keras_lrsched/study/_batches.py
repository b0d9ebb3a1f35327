"""Batches of a run from the data of a study: a function of the seeds of the study and of the run, without end."""

import copy
import functools
import inspect
import itertools
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import keras
import numpy as np

Kind = Literal["arrays", "py_dataset", "tf_dataset", "loader", "iterable", "function"]


def kind_of(name: str, data: Any) -> Kind:
    """The kind of data that a study was given.

    Args:
        name: The argument, for errors.
        data: Its value.

    Raises:
        ValueError: If it is none that a study trains on.
    """
    if isinstance(data, keras.utils.PyDataset):
        return "py_dataset"
    if isinstance(data, _class("tensorflow", "data", "Dataset")):
        return "tf_dataset"
    if isinstance(data, _class("torch.utils.data", "DataLoader")):
        return "loader"
    if isinstance(data, (tuple, dict)) or hasattr(data, "__array__"):
        return "arrays"
    if callable(data):
        return "function"
    if hasattr(data, "__iter__") and not isinstance(data, (str, bytes, list)):
        return "iterable"
    hint = " A list stands for several inputs in Keras: give a tuple, `(x, y)`." if isinstance(data, list) else ""
    raise ValueError(
        f"`{name}` must be a tuple of arrays, a PyDataset, a tf.data.Dataset, a torch DataLoader, or a function of the seed "
        f"that returns one.{hint} Received: {name} of {type(data)}"
    )


def resolved(name: str, data: Any, seed: int) -> Any:
    """The data of a seed: what a function returns for it, or the data themselves."""
    if kind_of(name, data) != "function":
        return data
    made = data(seed) if _takes_seed(data) else data()
    if kind_of(name, made) == "function":
        raise ValueError(f"`{name}` is a function that returns another function. Received: {name}={data!r:.200}")
    return made


def as_arrays(name: str, data: Any) -> tuple:
    """The parts of data in memory, `(x,)`, `(x, y)` or `(x, y, sample_weight)`, with NumPy arrays as leaves.

    Raises:
        ValueError: If there are more parts, an array has no examples, or lengths differ.
    """
    parts = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"`{name}` must be (x, y) or (x, y, sample_weight). Received: {name} of {len(parts)} parts")
    while parts[-1] is None:
        parts = parts[:-1]
    converted = tuple(keras.tree.map_structure(_array, part) for part in parts)
    leaves = keras.tree.flatten(converted)
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(sizes) != 1 or 0 in sizes:
        shapes = ", ".join(str(leaf.shape) for leaf in leaves)
        raise ValueError(f"The arrays in `{name}` must have the same number of examples, at least one. Received: {shapes}")
    return converted


def named_leaves(name: str, parts: tuple) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays with names for errors, such as `train: x['image']`."""
    for letter, part in zip(("x", "y", "sample_weight"), parts, strict=False):
        for path, leaf in keras.tree.flatten_with_path(part):
            yield f"{name}: {letter}{''.join(f'[{key!r}]' for key in path)}", leaf


def steps_per_epoch(data: Any, batch_size: int) -> int | None:
    """Batches in one pass over data that are no function; `None` if that is not known."""
    kind = kind_of("train", data)
    if kind == "arrays":
        return -(-len(keras.tree.flatten(as_arrays("train", data))[0]) // batch_size)
    if kind == "py_dataset":
        return data.num_batches
    if kind == "tf_dataset":
        size = int(data.cardinality())
        return size if size >= 0 else None
    return len(data) if hasattr(data, "__len__") else None


def endless(name: str, data: Any, batch_size: int, study_seed: int, seed: int, keras_seed: int) -> Any:
    """The batches of a run, to be given to `fit` with `steps_per_epoch`.

    Args:
        name: The argument of the study.
        data: Its value.
        batch_size: Examples in a batch of arrays.
        study_seed: The seed of the study.
        seed: The number of the run's seed.
        keras_seed: The argument of a function of the seed.
    """
    made = resolved(name, data, keras_seed)
    kind = kind_of(name, made)
    if kind == "arrays":
        batches = ArrayBatches(as_arrays(name, made), batch_size, (study_seed, seed))
        return batches.in_graph() if keras.backend.backend() == "tensorflow" else batches
    if kind == "py_dataset":
        return DatasetBatches(made, (study_seed, seed))
    if kind == "tf_dataset":
        return made if int(made.cardinality()) == -1 else made.repeat()
    if kind == "loader":
        return _loader_batches(made, (study_seed, seed))
    return _again(made, functools.partial(resolved, name, data, keras_seed) if data is not made else None, name)


def first(batches: Any) -> Any:
    """The first batch."""
    return batches[0] if isinstance(batches, keras.utils.PyDataset) else next(iter(batches))


class _Endless(keras.utils.PyDataset):
    """Batches without a last one, in passes over data whose order is a function of the seeds and of the pass.

    Args:
        length: Batches in a pass.
        count: What is put in order, examples or batches.
        seeds: The seeds of study and run.
    """

    def __init__(self, length: int, count: int, seeds: tuple[int, int]) -> None:
        super().__init__()
        self.steps_per_epoch, self._count, self._seeds = length, count, seeds
        self._orders: dict[int, np.ndarray] = {}

    @property
    def num_batches(self) -> None:
        return None

    def order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            order = np.random.default_rng([*self._seeds, epoch]).permutation(self._count)
            self._orders = {epoch: order}
        return self._orders[epoch]


class ArrayBatches(_Endless):
    """Batches of arrays, which are gone through once an epoch, each epoch in a new order; the last one may be smaller."""

    def __init__(self, arrays: tuple, batch_size: int, seeds: tuple[int, int]) -> None:
        examples = len(keras.tree.flatten(arrays)[0])
        super().__init__(-(-examples // batch_size), examples, seeds)
        self._arrays, self._batch_size = arrays, batch_size

    def __getitem__(self, step: int) -> tuple:
        epoch, position = divmod(step, self.steps_per_epoch)
        rows = self.order(epoch)[position * self._batch_size : (position + 1) * self._batch_size]
        return tuple(keras.tree.map_structure(lambda array: array[rows], part) for part in self._arrays)

    def in_graph(self) -> Any:
        """The same batches as a `tf.data.Dataset`: its graph gathers the rows, and NumPy makes the order of each epoch."""
        import tensorflow as tf

        tensors = tuple(keras.tree.map_structure(_constant, part) for part in self._arrays)

        def batch(rows: Any) -> tuple:
            return tuple(keras.tree.map_structure(lambda tensor: tf.gather(tensor, rows), part) for part in tensors)

        orders = tf.data.Dataset.from_generator(
            lambda: map(self.order, itertools.count()), output_signature=tf.TensorSpec([self._count], "int64")
        )
        rows = orders.flat_map(lambda order: tf.data.Dataset.from_tensor_slices(order).batch(self._batch_size))
        return rows.map(batch).prefetch(2)


class DatasetBatches(_Endless):
    """Batches of a `PyDataset`, each epoch in a new order, as `fit` takes them; those of an endless one in its own order."""

    def __init__(self, dataset: keras.utils.PyDataset, seeds: tuple[int, int]) -> None:
        size = dataset.num_batches
        super().__init__(size or sys.maxsize, size or 0, seeds)
        self._dataset = _own_copy(dataset)
        self._epoch, self._is_endless = 0, size is None

    def __getitem__(self, step: int) -> Any:
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch > self._epoch:
            self._dataset.on_epoch_end()
            self._epoch = epoch
            self._dataset.on_epoch_begin()
        return self._dataset[position if self._is_endless else int(self.order(epoch)[position])]


_constants: dict[int, tuple[Any, Any]] = {}


def _constant(array: np.ndarray) -> Any:
    """An array as a tensor of TensorFlow, which all runs of a process share."""
    import tensorflow as tf

    key = id(array)
    if key not in _constants:
        with tf.device("CPU"):
            _constants[key] = weakref.ref(array, lambda _: _constants.pop(key, None)), tf.constant(array)
    return _constants[key][1]


def _own_copy(dataset: keras.utils.PyDataset) -> keras.utils.PyDataset:
    """A copy of a dataset that changes between epochs, so that each run begins with the same one."""
    kind = type(dataset)
    if all(getattr(kind, name) is getattr(keras.utils.PyDataset, name) for name in ("on_epoch_end", "on_epoch_begin")):
        return dataset
    try:
        return copy.deepcopy(dataset)
    except Exception as error:
        raise ValueError(
            "`train` changes between epochs and cannot be copied for each run: give a function of the seed that returns it. "
            f"Received: train of {kind}, {error!r:.200}"
        ) from error


def _loader_batches(loader: Any, seeds: tuple[int, int]) -> Iterator[Any]:
    """Batches of a DataLoader, whose random numbers are a function of the seeds and do not touch those of the model."""
    import torch

    numbers = np.random.default_rng(seeds).integers(2**62, size=2).tolist()
    if getattr(loader, "generator", None) is not None:
        loader.generator.manual_seed(numbers[0])
    state: Any = None

    def step(iterator: Callable[[], Any]) -> Any:
        nonlocal state
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(numbers[1]) if state is None else torch.set_rng_state(state)
            value = iterator()
            state = torch.get_rng_state()
        return value

    for _ in itertools.count():
        iterator = step(lambda: iter(loader))
        while (batch := step(functools.partial(next, iterator, None))) is not None:
            yield _plain(batch)


def _plain(batch: Any) -> Any:
    """A batch of tensors of PyTorch with arrays instead, which all backends take."""
    batch = tuple(batch) if isinstance(batch, list) else batch
    return keras.tree.map_structure(lambda leaf: leaf.numpy(force=True) if hasattr(leaf, "numpy") else leaf, batch)


def _again(batches: Iterable, make: Callable[[], Iterable] | None, name: str) -> Iterator[Any]:
    """Batches of an iterable, pass after pass; what cannot be gone through twice is made again."""
    while True:
        is_empty = True
        for batch in batches:
            is_empty = False
            yield _plain(batch)
        if is_empty or (isinstance(batches, Iterator) and make is None):
            raise ValueError(f"`{name}` has no more batches: give a function of the seed that returns an iterable.")
        if isinstance(batches, Iterator) and make is not None:
            batches = make()


def _takes_seed(function: Callable) -> bool:
    try:
        inspect.signature(function).bind(0)
    except TypeError:
        return False
    except ValueError:  # a built-in function without a signature
        pass
    return True


def _array(leaf: Any) -> np.ndarray:
    leaf = leaf.to_numpy() if hasattr(leaf, "to_numpy") else leaf
    array = keras.ops.convert_to_numpy(leaf) if keras.ops.is_tensor(leaf) else np.asarray(leaf)
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" and array.dtype.itemsize > 4 else array


def _class(module: str, *path: str) -> Any:
    """A class of a package that may not be imported, or none."""
    found: Any = sys.modules.get(module)
    for part in path:
        found = getattr(found, part, None)
    return found or ()

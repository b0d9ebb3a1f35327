"""Data on their way to the step: adapters and epoch iterators."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters import array_slicing, data_adapter_utils
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter


def element_spec(iterator: Any) -> Any:
    """TensorFlow's specification of the batches of an `EpochIterator`.

    Relies on `TFEpochIterator._distributed_dataset`. Seen in Keras 3.10 to 3.15.
    """
    return iterator._distributed_dataset.element_spec


def packed_arrays(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """The arguments of `fit` as its adapter has them: x, (x,), (x, y) or (x, y, sample_weight), a weight for each output.

    Relies on `ArrayDataAdapter` and its `_inputs`. Seen in Keras 3.10 to 3.15.

    Raises:
        ValueError: If they are no arrays, differ in length, or `sample_weight` does not fit to `y`.
    """
    return ArrayDataAdapter(x, y, sample_weight)._inputs


def sliceable(array: Any) -> Any:
    """An array of any kind that `fit` takes, of the dtype in which `fit` hands it over, for `rows_of`.

    Relies on `array_slicing`: `convert_to_sliceable` and its classes for sparse tensors. Seen in Keras 3.10 to 3.15.
    """
    array = array_slicing.convert_to_sliceable(array, target_backend=keras.backend.backend())
    if isinstance(array, array_slicing.TensorflowSparseWrapper):  # which has several arrays
        return array_slicing.TensorflowSparseSliceable(array.sparse)
    return array


def rows_of(array: Any, rows: Any) -> Any:
    """The rows of what `sliceable` returned, of the kind in which the array adapter hands them over.

    Relies on `array_slicing.TensorflowSliceable` and the methods of `Sliceable`. Seen in Keras 3.10 to 3.15.
    """
    if isinstance(array, np.ndarray):
        return array[rows]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        array = array if isinstance(array, array_slicing.Sliceable) else array_slicing.TensorflowSliceable(array)
        return array[rows]
    return getattr(array, f"convert_to_{backend}_compatible")(array[rows])


def hand_over_unchanged(adapter: Any) -> None:
    """Let a `PyDatasetAdapter` hand over batches as its dataset returns them: x by itself, and tuples as tuples.

    Class weights are added as before, and refused where they would have no effect or a wrong one.

    Relies on `PyDatasetAdapter._standardize_batch`, `get_torch_dataloader` and `class_weight`, and on PyTorch's
    `DataLoader.collate_fn`, whose default turns tuples into lists. Seen in Keras 3.10 to 3.15.
    """
    if "_standardize_batch" in vars(adapter):
        return
    with_class_weights, make_loader = adapter._standardize_batch, adapter.get_torch_dataloader

    def standardized(batch: Any) -> Any:
        if adapter.class_weight is None:
            return batch
        if not isinstance(batch, tuple) or len(batch) == 1 or keras.tree.is_nested(batch[1]):
            raise ValueError(
                f"`class_weight` needs data with targets of a single output. Received: class_weight={adapter.class_weight}"
            )
        return with_class_weights(batch)

    def loader() -> Any:
        made = make_loader()
        made.collate_fn = lambda batch: batch
        return made

    adapter._standardize_batch, adapter.get_torch_dataloader = standardized, loader


def watch_batches(iterator: Any, function: Callable) -> None:
    """Call a function with each batch that an `EpochIterator` of JAX or PyTorch takes from its data, right before its step.

    Relies on `EpochIterator._get_iterator`, which is called at the beginning of each epoch. Seen in Keras 3.10 to 3.15.
    """
    original = iterator._get_iterator

    def get_iterator() -> Iterator:
        for batch in original():
            function(batch)
            yield batch

    vars(get_iterator)["watcher"] = function
    iterator._get_iterator = get_iterator


def batch_watcher(iterator: Any) -> Any:
    """The function that `watch_batches` has been called with; `None` if it has not."""
    return getattr(getattr(iterator, "_get_iterator", None), "watcher", None)


def data_of_adapter(adapter: Any) -> tuple:
    """The data of `fit` as its adapter has them: their kind, and the object or the arrays.

    The kinds are `"arrays"`, `"PyDataset"`, `"generator"` (with the batches that Keras has drawn ahead), `"tf.data"`,
    `"DataLoader"`, and `"other"`. Relies on the attributes `_inputs`, `py_dataset`, `_first_batches`, `_dataset` and
    `_dataloader` of the adapters. Seen in Keras 3.10 to 3.15.
    """
    names = {
        "arrays": "_inputs",
        "PyDataset": "py_dataset",
        "generator": "_first_batches",
        "tf.data": "_dataset",
        "DataLoader": "_dataloader",
    }
    for kind, name in names.items():
        if hasattr(adapter, name) and not (kind == "tf.data" and not hasattr(adapter._dataset, "element_spec")):
            return kind, getattr(adapter, name)
    return "other", None


def shuffle_of_adapter(adapter: Any) -> Any:
    """The `shuffle` of `fit`, as far as a data adapter uses it; relies on `_shuffle` and `shuffle`. Keras 3.10 to 3.15."""
    return getattr(adapter, "_shuffle", getattr(adapter, "shuffle", None))


def tensor_spec(batch: Any) -> Any:
    """TensorFlow's specification of batches like this one, of any number of samples.

    Relies on `data_adapter_utils.get_tensor_spec`. Seen in Keras 3.10 to 3.15.
    """
    return data_adapter_utils.get_tensor_spec([batch])


def at_epoch_begin(adapter: Any, function: Callable) -> None:
    """Let a data adapter call a function when an `EpochIterator` begins an epoch, before it looks for its number of batches.

    Relies on `EpochIterator._enumerate_iterator` calling `data_adapter.on_epoch_begin` first. Seen in Keras 3.10 to 3.15.
    """
    adapter.on_epoch_begin = function


def end_epoch_after(iterator: Any, batches: int, at_end: Callable[[], int]) -> None:
    """Let the epoch of an `EpochIterator` that is running end after some batches, and call `at_end` then, once an epoch.

    `at_end` returns the number of batches in the next epoch.

    Relies on `EpochIterator._num_batches`, which each epoch reads at its begin and, if there is a number, before each step;
    and on `data_adapter.on_epoch_end` being called at its end. Seen in Keras 3.10 to 3.15.
    """
    adapter = iterator.data_adapter
    iterator._num_batches = batches
    if "on_epoch_end" not in vars(adapter):

        def on_epoch_end() -> None:
            iterator._num_batches = at_end()

        adapter.on_epoch_end = on_epoch_end


def standardize_batch(adapter: Any, batch: Any) -> Any:
    """A batch of a `PyDataset` as its adapter hands it over.

    Relies on `PyDatasetAdapter._standardize_batch`. Seen in Keras 3.10 to 3.15.
    """
    return adapter._standardize_batch(batch)


def number_of_batches(iterator: Any) -> int | None:
    """The number of batches in an epoch of an `EpochIterator`, or `None`.

    Relies on `EpochIterator._num_batches`. Seen in Keras 3.10 to 3.15.
    """
    return iterator._num_batches


def set_number_of_batches(iterator: Any, number: int) -> None:
    """Let the epoch that begins have this number of batches. Relies on the same as `number_of_batches`."""
    iterator._num_batches = number


def replicas_of_iterator(iterator: Any) -> int:
    """The number of replicas that the batches of an `EpochIterator` are for.

    Relies on `TFEpochIterator._distribute_strategy`. Seen in Keras 3.10 to 3.15.
    """
    return getattr(getattr(iterator, "_distribute_strategy", None), "num_replicas_in_sync", 1)

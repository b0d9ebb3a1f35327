"""Batches of samples from arrays of any kind, in an order that is another one in each pass."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree

from keras_lrsched._core import keras_private
from keras_lrsched.data._batch_stream import Entry


class Samples:
    """The samples of arrays, of which each pass has an order that only the seed and the number of the pass determine.

    Args:
        arrays: A structure of arrays, with `None` where there is nothing.
        num_samples: Length of the arrays.
        shuffle: Whether the order of a pass is random.
        seed: A non-negative integer.
    """

    def __init__(self, arrays: Any, num_samples: int, shuffle: bool, seed: int) -> None:
        self._arrays = _sliceable(arrays)
        self._num_samples, self._shuffle, self._seed = num_samples, shuffle, seed
        self._orders: dict[int, np.ndarray] = {}

    def batch(self, entry: Entry) -> Any:
        """The samples of a batch."""
        number, offset = divmod(entry.start, self._num_samples)
        rows: slice | np.ndarray = slice(offset, offset + entry.size)
        if self._shuffle:
            rows = self._order(number)[rows]
        return _map(lambda array: keras_private.rows_of(array, rows), self._arrays)

    def _order(self, number: int) -> np.ndarray:
        order = self._orders.get(number)
        if order is None:
            order = np.random.default_rng([self._seed, number]).permutation(self._num_samples)
            self._orders = {number: order}
        return order


def _sliceable(arrays: Any) -> Any:
    if keras.backend.backend() == "tensorflow":
        arrays = tree.lists_to_tuples(arrays)  # as `fit` does with arrays there
    return _map(keras_private.sliceable, arrays)


def _map(function: Callable, arrays: Any) -> Any:
    """The structure with the function applied to its arrays; `None` stays."""
    return tree.map_structure(lambda array: None if array is None else function(array), arrays)


def common_length(arrays: Any) -> int:
    """The number of samples that all arrays have.

    Raises:
        ValueError: If they differ, or there are none.
    """
    shapes = [tuple(getattr(array, "shape", ())) for array in tree.flatten(arrays) if array is not None]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or not (length := lengths.pop()):
        raise ValueError(f"All arrays must have the same number of samples, at least one. Received: shapes {shapes}")
    return int(length)

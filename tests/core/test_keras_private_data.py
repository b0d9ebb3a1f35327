"""What is relied on in Keras' data adapters."""

import keras
import numpy as np
import pytest

from keras_lrsched._core import keras_private

X = np.arange(6.0)


def test_packed_arrays():
    assert keras_private.packed_arrays(X) is X
    assert isinstance(keras_private.packed_arrays([X, X]), tuple)
    x, y, weights = keras_private.packed_arrays(X, [X, X], X)
    assert x is X
    assert [each is X for each in [*y, *weights]] == [True] * 4
    with pytest.raises(ValueError, match="array-like"):
        keras_private.packed_arrays("text")


def test_rows_of_what_is_sliceable():
    for array in (X, keras.ops.convert_to_tensor(X)):
        for rows in (slice(1, 3), np.array([1, 2])):
            part = keras_private.rows_of(keras_private.sliceable(array), rows)
            assert keras.ops.convert_to_numpy(part).tolist() == [1, 2]
            assert keras.backend.standardize_dtype(part.dtype) == "float32"


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, i):
        return (X, [X, X]) if self.targets else X


@pytest.mark.parametrize("targets", [False, True])
def test_batches_are_handed_over_unchanged(targets):
    adapter = adapter_of(targets)
    wrapped = next(iter(adapter.get_numpy_iterator()))
    assert isinstance(wrapped, tuple)
    keras_private.hand_over_unchanged(adapter)
    keras_private.hand_over_unchanged(adapter)
    batch = next(iter(adapter.get_numpy_iterator()))
    assert isinstance(batch, tuple) == targets
    if keras.backend.backend() == "torch":
        batch = next(iter(adapter.get_torch_dataloader()))
        assert isinstance(batch, tuple) == targets


def adapter_of(targets):
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    dataset = Batches()
    dataset.targets = targets
    return PyDatasetAdapter(dataset)

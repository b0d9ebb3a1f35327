"""The internals of Keras' data adapters that the package relies on."""

import keras
import numpy as np
import pytest

from keras_lrsched._core import keras_private, training_loop
from tests.core.keras_changes import relies_on

X = np.arange(6.0)


@relies_on("packed_arrays")
def test_packed_arrays():
    assert keras_private.packed_arrays(X) is X
    assert isinstance(keras_private.packed_arrays([X, X]), tuple)
    x, y, weights = keras_private.packed_arrays(X, [X, X], X)
    assert x is X
    assert [each is X for each in [*y, *weights]] == [True] * 4
    with pytest.raises(ValueError, match="array-like"):
        keras_private.packed_arrays("text")


@relies_on("sliceable", "rows_of")
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
@relies_on("hand_over_unchanged", "standardize_batch")
def test_batches_are_handed_over_unchanged(targets):
    adapter = adapter_of(targets)
    wrapped = next(iter(adapter.get_numpy_iterator()))
    assert isinstance(wrapped, tuple)
    keras_private.hand_over_unchanged(adapter)
    keras_private.hand_over_unchanged(adapter)
    batch = next(iter(adapter.get_numpy_iterator()))
    assert isinstance(batch, tuple) == targets
    assert isinstance(keras_private.standardize_batch(adapter, batch), tuple) == targets
    if keras.backend.backend() == "torch":
        batch = next(iter(adapter.get_torch_dataloader()))
        assert isinstance(batch, tuple) == targets


def adapter_of(targets):
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    dataset = Batches()
    dataset.targets = targets
    return PyDatasetAdapter(dataset)


@relies_on("tensor_spec")
def test_tensor_spec():
    pytest.importorskip("tensorflow")
    x, y = keras_private.tensor_spec((np.ones((2, 3), "float32"), np.ones(2, "int32")))
    assert x.shape.as_list() == [None, 3]
    assert y.dtype == "int32"


class Counts(keras.callbacks.Callback):
    """Lets each epoch end after a number of batches, the first by what is called at its begin."""

    def __init__(self, first, later):
        super().__init__()
        self.first, self.later, self.batches = first, later, []

    def on_train_begin(self, logs=None):
        iterator = training_loop.epoch_iterator()

        def begin():
            if len(self.batches) == 1:  # callbacks have been called before
                keras_private.set_number_of_batches(iterator, self.first)

        keras_private.at_epoch_begin(iterator.data_adapter, begin)
        keras_private.end_epoch_after(iterator, 5, lambda: self.later)

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.append(0)

    def on_train_batch_end(self, batch, logs=None):
        self.batches[-1] += 1


@relies_on("at_epoch_begin", "end_epoch_after")
def test_epochs_end_after_a_number_of_batches():
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    counts = Counts(3, 2)
    model.fit(np.ones((5, 1)), np.ones((5, 1)), batch_size=1, epochs=3, verbose=0, callbacks=[counts])
    assert counts.batches == [3, 2, 2]

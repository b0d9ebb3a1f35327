"""The batches that a running `fit` will train on, for training that is tried out before."""

import itertools

from keras_lrsched._core import training_loop


def data_adapter():
    """What stands between `fit` and its data.

    Raises:
        ValueError: If the data can be read only once.
    """
    adapter = training_loop.epoch_iterator().data_adapter
    if type(adapter).__name__ == "GeneratorDataAdapter":
        raise ValueError("The data are read several times, which a generator's cannot be: give `fit` arrays or a dataset.")
    return adapter


def batches_ahead(adapter):
    """An endless iterator: of the very batches that come next, if these are `ScheduledBatches`, else of new passes."""
    dataset = getattr(adapter, "py_dataset", None)
    if dataset is None:
        return itertools.chain.from_iterable(adapter.get_numpy_iterator() for _ in itertools.count())
    if hasattr(dataset, "peek"):
        return (adapter._standardize_batch(dataset.peek(i)) for i in itertools.count())
    size = dataset.num_batches  # `None` for endless data
    return (adapter._standardize_batch(dataset[i % size if size else i]) for i in itertools.count())

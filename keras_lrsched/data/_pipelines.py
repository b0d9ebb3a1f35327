"""`ScheduledBatches` as a `tf.data.Dataset` and as a `grain.IterDataset`, for pipelines that take nothing else."""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import keras
import numpy as np
from keras import tree

from keras_lrsched._core import keras_private
from keras_lrsched.data._batch_stream import BatchStream, Entry


def tf_dataset(batches: Any, length: int) -> Any:
    """A `tf.data.Dataset` of `length` batches, each iteration over which is an epoch."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError("`to_tf_dataset` needs TensorFlow: pip install 'keras-lrsched[tensorflow]'") from error

    def epoch() -> Iterator[Any]:
        reading = batches.begin_reading(length)
        for i in range(length):  # if less is left of a pass after a resumption, Keras stops earlier
            yield _for_tensorflow(reading.batch(i))
        reading.is_at_end = True

    spec = keras_private.tensor_spec(_for_tensorflow(batches.peek(0)))
    dataset = tf.data.Dataset.from_generator(epoch, output_signature=spec)
    return dataset.apply(tf.data.experimental.assert_cardinality(length))


def grain_dataset(batches: Any) -> Any:
    """A `grain.IterDataset` of batches, each iteration over which is an epoch."""
    try:
        import grain
    except ImportError as error:
        raise ImportError("`to_grain` needs Grain: pip install 'keras-lrsched[grain]'") from error

    class Iterator(grain.DatasetIterator):
        """The batches of one epoch; begun by the first of them, for Keras makes iterators that it does not use."""

        def __init__(self) -> None:
            super().__init__()
            self._reading: Any = None
            self._next = 0

        def __next__(self) -> Any:
            if self._reading is None:
                self._reading, self._next = batches.begin_reading(), 0
            if self._next >= self._reading.length:
                self._reading.is_at_end = True
                raise StopIteration
            self._next += 1
            return tree.map_structure(_numpy, self._reading.batch(self._next - 1))

        def get_state(self) -> dict[str, Any]:
            return batches.state() if self._reading is None else self._reading.state(self._next)

        def set_state(self, state: dict[str, Any]) -> None:
            batches.restore_state(state)
            self._reading = None

    class Batches(grain.IterDataset):
        def __iter__(self) -> Any:
            return Iterator()

        def __reduce__(self) -> NoReturn:
            raise ValueError(
                "Batches that follow the training cannot be read in another process: prefetch them by threads "
                "(`grain.experimental.ThreadPrefetchIterDataset`) instead of `mp_prefetch`."
            )

    return Batches()


class Reading:
    """One iteration over the batches from some place on, unaffected by what happens to the stream meanwhile.

    Args:
        samples: The function that makes a batch of an entry of the stream.
        stream: A `BatchStream` of its own.
        length: Batches in this iteration.
        state: The function (stream, done, left) that describes a place.

    Attributes:
        length: Batches in this iteration.
        is_at_end: Whether all of them have been read.
    """

    def __init__(
        self,
        samples: Callable[[Entry], Any],
        stream: BatchStream,
        length: int,
        state: Callable[[BatchStream, int, int], dict[str, Any]],
    ) -> None:
        self._samples, self._stream, self.length, self._state = samples, stream, length, state
        self.is_at_end = False

    def batch(self, i: int) -> Any:
        return self._samples(self._stream.entry(i))

    def state(self, done: int) -> dict[str, Any]:
        return self._state(self._stream, done, self.length - done)


def _for_tensorflow(batch: Any) -> Any:
    if keras.backend.backend() == "tensorflow":
        return batch
    return tree.map_structure(_numpy, tree.lists_to_tuples(batch))


def _numpy(leaf: Any) -> Any:
    if leaf is None or isinstance(leaf, np.ndarray) or not keras.ops.is_tensor(leaf):
        return leaf
    return leaf if type(leaf).__name__ in ("RaggedTensor", "SparseTensor") else keras.ops.convert_to_numpy(leaf)

"""Batches whose size may change during `fit`, and whose position can be saved."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import keras

from keras_lrsched._core import keras_private, training_loop, validation
from keras_lrsched._core.registry import register
from keras_lrsched.data import _pipelines
from keras_lrsched.data._batch_stream import BatchStream, Entry
from keras_lrsched.data._samples import Samples, common_length

LEAD = 4
"""Number of batches until a new size takes effect within an epoch: TensorFlow has fetched the next ones already."""

PATIENCE = 20.0
"""Seconds after which a batch is handed out although training has not come near it: the `fit` has been interrupted."""


@register(
    title="Resumable batches of scheduled size",
    kind="data",
)
class ScheduledBatches(keras.utils.PyDataset):
    """Shuffled batches of arrays, of a size that follows a schedule or is set by a callback during `fit`.

    The data are a stream of passes, each in an order that only `seed` and the number of the pass decide. A batch ends with
    its pass. So batch t is determined before it is made, and a run can be resumed at any batch (`TrainingState`).

    An epoch of `fit` is one pass, as many batches as that takes, or `steps_per_epoch` batches, after which the next epoch
    continues. (`fit` itself is not given `steps_per_epoch`.)

    `fit(ScheduledBatches(x, y, sample_weight))` gives the training step what `fit(x, y, sample_weight)` gives it: x by
    itself where there are no targets, the same dictionaries, lists and tuples, the same dtypes, one weight for each output.

    Args:
        x: An array, or a list, tuple or dictionary of such, with the samples along the first axis. All kinds that `fit`
            takes: NumPy arrays, tensors of any backend (also ragged and sparse ones), pandas' and SciPy's.
        y: Targets, of the same kinds. Defaults to `None`.
        sample_weight: Weights of the samples; for several outputs, one array for all or one for each. Defaults to `None`.
        batch_size: A positive integer; or a schedule, or any function of the number of batches before, whose value is
            rounded. Defaults to `32`.
        shuffle: Whether each pass has an order of its own. Defaults to `True`.
        seed: A non-negative integer. Defaults to `0`.
        steps_per_epoch: Batches in an epoch of `fit`. Defaults to `None`, for one pass.

    Raises:
        ValueError: If the arrays differ in length, weights do not fit to targets, or a batch is larger than the data; the
            latter also later on. When `fit` begins, if it is given `steps_per_epoch`, or `class_weight` without targets of a
            single output.

    Example:

    >>> batches = ScheduledBatches(np.arange(10.0), batch_size=4, shuffle=False)
    >>> len(batches), [len(x) for x in batches]
    (3, [4, 4, 2])
    >>> batches.set_batch_size(10)
    >>> len(batches)
    1
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        batch_size: int | Callable[[int], float] = 32,
        shuffle: bool = True,
        seed: int = 0,
        steps_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        if y is None and sample_weight is not None:
            raise ValueError("`sample_weight` needs `y`: `fit` drops the weights of data without targets.")
        self.num_samples = common_length((x, y, sample_weight))
        self.shuffle = bool(shuffle)
        self.seed = validation.non_negative_int("seed", seed)
        self._source = Samples(keras_private.packed_arrays(x, y, sample_weight), self.num_samples, self.shuffle, self.seed)
        self.steps_per_epoch = steps_per_epoch and validation.positive_int("steps_per_epoch", steps_per_epoch)
        self._stream = BatchStream(self.num_samples, batch_size)
        self._changed = threading.Condition()  # batches are fetched by another thread than the one that trains
        self._within = self._is_limited = self._to_be_limited = False
        self._trained: int | None = None
        self._length = self._left = 0
        self._counts = False  # whether the epoch counts as a whole, when it ends, without calls of `trained`
        self._reading: Any = None  # of the epoch, if it is read in another form than by index

    def __len__(self) -> int:
        """The number of batches in this epoch, or, between two, in the next."""
        with self._changed:
            return self._length if self._within else self._left or self._full_length()

    def __getitem__(self, i: int) -> Any:
        with self._changed:
            if self._is_limited:
                self._changed.wait_for(lambda: not self._is_limited or i < (self._trained or 0) + LEAD, PATIENCE)
            if i >= len(self):
                raise IndexError(f"This epoch has {len(self)} batches. Received: i={i}")
            entry = self._stream.entry(i)
        return self._samples(entry)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_changed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _changed=threading.Condition())

    def peek(self, i: int) -> Any:
        """The batch that is trained i batches after the next one, also beyond this epoch, as planned by now."""
        with self._changed:
            entry = self._stream.entry(self._done() + i)
        return self._samples(entry)

    def size_of(self, batch: int) -> int:
        """The number of samples that batch number `batch` of this epoch has, for use in batch callbacks."""
        with self._changed:
            return self._stream.entry(batch).size

    def requested_size_of(self, batch: int) -> int:
        """The size that was requested for batch number `batch` of this epoch, which has fewer samples if its pass ends."""
        with self._changed:
            return self._stream.entry(batch).requested

    # Other forms

    def to_tf_dataset(self) -> Any:
        """A `tf.data.Dataset` of these batches, for programs that take or map over nothing else, such as KerasHub's tasks.

        Each iteration over it is an epoch. Within `fit`, the place in the data is exactly that of `fit(batches)`: `peek`,
        `state`, `restore_state` and `trained` mean the same, so `TrainingState(path, data=batches)` resumes at any batch.
        Transformations must pass on the batches one by one (`map`, `prefetch`). An epoch must have the same number of
        batches each time: where the size may change, give `steps_per_epoch`.

        Without calls of `trained`, an epoch of `fit` that has begun counts as a whole. Outside of `fit`, one counts when its
        end has been read.

        Raises:
            ValueError: If the size follows a schedule and `steps_per_epoch` is not given. Before the first batch of an
                epoch, as an error of TensorFlow with the message of this one: if the epoch has another number of batches,
                if `fit` is given `steps_per_epoch`, or on several replicas of `tf.distribute`.

        Example:

        >>> batches = ScheduledBatches(np.arange(4.0), batch_size=2, shuffle=False)
        >>> [x.numpy().tolist() for x in batches.to_tf_dataset().map(lambda x: 2 * x)]
        [[0.0, 2.0], [4.0, 6.0]]
        """
        self._refuse_epochs_of_other_lengths("to_tf_dataset")
        return _pipelines.tf_dataset(self, self._full_length())

    def to_grain(self) -> Any:
        """A `grain.IterDataset` of these batches, otherwise as `to_tf_dataset`.

        The iterators have Grain's `get_state` and `set_state`, whose states are those of `state` and `restore_state`. The
        batches cannot be read in other processes (`mp_prefetch`).
        """
        self._refuse_epochs_of_other_lengths("to_grain")
        return _pipelines.grain_dataset(self)

    @property
    def __array_interface__(self) -> NoReturn:
        """Raise instead of making an array of these batches, as `fit` of KerasHub's tasks does."""
        raise ValueError(
            "Batches are no array. To a program that makes a dataset of what it is given, give `to_tf_dataset()` or "
            "`to_grain()` of ScheduledBatches. Received: the ScheduledBatches themselves"
        )

    def begin_reading(self, length: int | None = None) -> Any:
        """Begin an epoch in another form, or only a preview of it, where Keras reads one: an iteration over batches.

        Args:
            length: The number of batches in an epoch that the form was made for. Defaults to `None`, for any.
        """
        iterator = training_loop.waiting_epoch_iterator()
        with self._changed:
            if iterator is None and training_loop.is_looking_ahead():
                if (adapter := training_loop.probing_adapter()) is not None:
                    keras_private.at_epoch_begin(adapter, self._plan_epoch)
                stream, left = self._stream.behind(self._done()), self._length - self._done() if self._within else self._left
                return _pipelines.Reading(self._samples, stream, left or self._full_length(), self._state)
            self._close_epoch()
            full, self._length = self._full_length(), self._left or self._full_length()
            if length not in (None, full):
                raise ValueError(
                    "The number of batches in an epoch has changed since the dataset was made: give `steps_per_epoch` to "
                    f"ScheduledBatches. Received: {full} instead of {length}"
                )
            if iterator is not None:
                self._refuse_other_epochs(iterator, length)
                keras_private.end_epoch_after(iterator, self._length, self._end_of_epoch)
            self._begin_epoch(counts=iterator is not None)
            self._reading = _pipelines.Reading(self._samples, self._stream.behind(0), self._length, self._state)
            return self._reading

    # What callbacks do

    def limit_prefetch(self) -> None:
        """Limit prefetching: the batches of the next epoch are fetched at most a few ahead of the count that `trained` sets.

        Then `set_batch_size` and `rewind` have an effect within the epoch, `LEAD` batches later, in every run alike. To be
        called in `on_epoch_begin`.
        """
        self._to_be_limited = True

    def trained(self, batches: Any) -> None:
        """Set how many batches of this epoch have been trained, in `on_train_batch_end`."""
        with self._changed:
            self._trained = max(self._trained or 0, batches)
            self._changed.notify_all()

    @property
    def batch_size(self) -> int:
        """The size that was requested last, or that the schedule has when the epoch begins."""
        with self._changed:
            return self._stream.batch_size

    def set_batch_size(self, batch_size: int) -> None:
        """Change the size: `LEAD` batches from now if prefetching is limited, else from the next epoch on."""
        if self._stream.schedule is not None:
            raise ValueError("The batch size follows a schedule, so it cannot be set: construct with an integer.")
        size = self._stream.checked(batch_size)
        with self._changed:
            self._stream.change(
                (self._done() + LEAD if self._is_limited else self._length) if self._within else 0, size=size
            )

    def follow(self, schedule: Callable[[int], float]) -> None:
        """Follow a schedule of the size, or a function of the number of batches before, from the next epoch on."""
        with self._changed:
            if self._within:
                raise ValueError("Within an epoch, the batch size cannot begin to follow a schedule.")
            self._stream.follow(schedule)

    def mark(self) -> list[int]:
        """The place in the data of the batch that is trained next, for `rewind`: plain values."""
        with self._changed:
            entry = self._stream.entry(self._done())
            return [entry.start, entry.number]

    def rewind(self, mark: Sequence[int], after: int = 0) -> None:
        """Continue at a mark, `after` batches from now: at least `LEAD` within an epoch, where prefetching is limited."""
        with self._changed:
            if self._within and not (self._is_limited and after >= LEAD):
                raise ValueError(
                    f"Within an epoch, `limit_prefetch` must come before it, and `after` be at least {LEAD}: batches are "
                    f"fetched in advance. Received: after={after}"
                )
            self._stream.change(self._done() + after, to=list(mark))

    def state(self) -> dict[str, Any]:
        """The position in the stream, as plain values."""
        with self._changed:
            return self._state(self._stream, self._done(), self._length - self._done() if self._within else self._left)

    def restore_state(self, state: dict[str, Any]) -> None:
        """Continue from where `state` was called; what was left of that epoch is the next epoch."""
        for name in ("seed", "num_samples"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"The saved run had other data, with {name}={state[name]}. Received: {name}={getattr(self, name)}"
                )
        with self._changed:
            self._stream.restore_state(state)
            self._within, self._trained, self._left = False, None, state["left"]

    # What Keras calls

    @property
    def num_batches(self) -> int:
        adapter = training_loop.data_adapter(self)
        if adapter is not None:
            keras_private.hand_over_unchanged(adapter)
        return len(self)

    def on_epoch_begin(self) -> None:
        if training_loop.is_building():
            return  # no epoch: a pass would be skipped
        with self._changed:
            self._length = self._left or self._full_length()
            self._begin_epoch(counts=True)
            self._is_limited, self._to_be_limited = self._to_be_limited, False
        iterator = training_loop.epoch_iterator()
        if iterator is not None:
            _refuse_steps_per_epoch(iterator)
            keras_private.set_number_of_batches(iterator, self._length)  # Keras counts the batches once, when `fit` begins,
            iterator.data_adapter.shuffle = False  # and takes them in random order, unless `fit` gets `shuffle=False`

    def on_epoch_end(self) -> None:
        with self._changed:
            self._close_epoch()

    def _begin_epoch(self, counts: bool) -> None:
        self._within, self._trained, self._left, self._counts, self._reading = True, None, 0, counts, None

    def _close_epoch(self) -> None:
        """End the epoch, if one has begun; without calls of `trained`, it counts as a whole or not at all."""
        if self._within:
            self._stream.advance(self._length if self._counts and self._trained is None else self._done())
            self._within = self._is_limited = False
            self._trained = self._reading = None
            self._changed.notify_all()

    def _plan_epoch(self) -> None:
        """Set the number of batches of an epoch of `fit` whose length is unknown to Keras, so that it ends with the last."""
        with self._changed:
            keras_private.set_number_of_batches(training_loop.epoch_iterator(), self._left or self._full_length())

    def _end_of_epoch(self) -> int:
        """End an epoch that `fit` has read in another form; return the number of batches in the next."""
        self.on_epoch_end()
        return self._full_length()

    def _done(self) -> int:
        if not self._within:
            return 0
        if self._trained is None and not self._counts and self._reading.is_at_end:
            return self._length
        return self._trained or 0

    def _state(self, stream: BatchStream, done: int, left: int) -> dict[str, Any]:
        return {"seed": self.seed, "num_samples": self.num_samples, "left": left, **stream.state(done)}

    def _refuse_epochs_of_other_lengths(self, method: Any) -> None:
        if self._stream.schedule is not None and not self.steps_per_epoch:
            raise ValueError(
                f"`{method}` needs epochs of the same number of batches each: give `steps_per_epoch` to ScheduledBatches, "
                "whose size follows a schedule. Received: steps_per_epoch=None"
            )

    def _refuse_other_epochs(self, iterator: Any, length: int | None) -> None:
        _refuse_steps_per_epoch(iterator)
        replicas = keras_private.replicas_of_iterator(iterator)
        if replicas > 1:
            raise ValueError(f"On several replicas, give `fit` ScheduledBatches. Received: num_replicas_in_sync={replicas}")
        if length is not None and keras_private.number_of_batches(iterator) != length:
            raise ValueError(
                "What is made of the dataset must pass on its batches one by one, by `map` and `prefetch`. "
                f"Received: {keras_private.number_of_batches(iterator)} batches instead of {length}"
            )

    def _full_length(self) -> int:
        return self.steps_per_epoch or self._stream.batches_in_a_pass()

    def _samples(self, entry: Entry) -> Any:
        return self._source.batch(entry)


def _refuse_steps_per_epoch(iterator: Any) -> None:
    if iterator.steps_per_epoch:
        raise ValueError(
            "Give `steps_per_epoch` to ScheduledBatches, not to `fit`, which would let the batches that it has fetched in "
            f"advance leak into the next epoch. Received: steps_per_epoch={iterator.steps_per_epoch}"
        )

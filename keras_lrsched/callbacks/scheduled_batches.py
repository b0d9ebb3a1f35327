"""Batches whose size may change during `fit`, and which know where they are."""

import threading

import keras
import numpy as np
from keras import tree

from keras_lrsched._core import keras_private, training_loop
from keras_lrsched.callbacks.batch_stream import BatchStream
from keras_lrsched.schedules import checks

LEAD = 4
"""How many batches from now a new size takes effect within an epoch: TensorFlow has fetched the next ones already."""

PATIENCE = 20.0
"""Seconds after which a batch is handed out although training has not come near it: the `fit` has been interrupted."""


class ScheduledBatches(keras.utils.PyDataset):
    """Shuffled batches of arrays, of a size that follows a schedule or is set by a callback during `fit`.

    The data are a stream of passes, each in an order that only `seed` and the number of the pass decide. A batch ends with
    its pass. So batch t is known before it is made, and a run can be resumed at any batch (`TrainingState`).

    An epoch of `fit` is one pass, as many batches as that takes, or `steps_per_epoch` batches, after which the next epoch
    goes on. (`fit` itself is not given `steps_per_epoch`.)

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

    def __init__(self, x, y=None, sample_weight=None, batch_size=32, shuffle=True, seed=0, steps_per_epoch=None):
        super().__init__()
        if y is None and sample_weight is not None:
            raise ValueError("`sample_weight` needs `y`: `fit` drops the weights of data without targets.")
        self.num_samples = _common_length((x, y, sample_weight))
        self._arrays = _sliceable(keras_private.packed_arrays(x, y, sample_weight))
        self.shuffle = bool(shuffle)
        self.seed = checks.non_negative_int("seed", seed)
        self.steps_per_epoch = steps_per_epoch and checks.positive_int("steps_per_epoch", steps_per_epoch)
        self._stream = BatchStream(self.num_samples, batch_size)
        self._orders: dict[int, np.ndarray] = {}
        self._changed = threading.Condition()  # batches are fetched by another thread than the one that trains
        self._within = self._held = self._to_be_held = False
        self._trained: int | None = None
        self._length = self._left = 0

    def __len__(self):
        """The number of batches in this epoch, or, between two, in the next."""
        with self._changed:
            return self._length if self._within else self._left or self._full_length()

    def __getitem__(self, i):
        with self._changed:
            if self._held:
                self._changed.wait_for(lambda: not self._held or i < (self._trained or 0) + LEAD, PATIENCE)
            if i >= len(self):
                raise IndexError(f"This epoch has {len(self)} batches. Received: i={i}")
            entry = self._stream.entry(i)
        return self._samples(entry)

    def peek(self, i):
        """The batch that is trained i batches after the next one, also beyond this epoch, as planned by now."""
        with self._changed:
            entry = self._stream.entry(self._done() + i)
        return self._samples(entry)

    def size_of(self, batch):
        """The number of samples that batch number `batch` of this epoch has, for use in batch callbacks."""
        with self._changed:
            return self._stream.entry(batch).size

    def asked_size_of(self, batch):
        """The size that was asked for batch number `batch` of this epoch, which has fewer samples if its pass ends."""
        with self._changed:
            return self._stream.entry(batch).wanted

    # What callbacks do

    def hold_back(self):
        """Lets the batches of the next epoch be fetched no more than a few ahead of what `trained` tells.

        Then `set_batch_size` and `rewind` have an effect within the epoch, `LEAD` batches later, in every run alike. To be
        called in `on_epoch_begin`.
        """
        self._to_be_held = True

    def trained(self, batches):
        """Tells how many batches of this epoch have been trained, in `on_train_batch_end`."""
        with self._changed:
            self._trained = max(self._trained or 0, batches)
            self._changed.notify_all()

    @property
    def batch_size(self):
        """The size that was asked for last, or that the schedule has when the epoch begins."""
        with self._changed:
            return self._stream.batch_size

    def set_batch_size(self, batch_size):
        """Changes the size: `LEAD` batches from now if the epoch is held back, else from the next epoch on."""
        if self._stream.schedule is not None:
            raise ValueError("The batch size follows a schedule, so it cannot be set: construct with an integer.")
        size = self._stream.checked(batch_size)
        with self._changed:
            self._stream.change((self._done() + LEAD if self._held else self._length) if self._within else 0, size=size)

    def follow(self, schedule):
        """Lets the size follow a schedule, or a function of the number of batches before, from the next epoch on."""
        with self._changed:
            if self._within:
                raise ValueError("Within an epoch, the batch size cannot begin to follow a schedule.")
            self._stream.follow(schedule)

    def mark(self):
        """The place in the data of the batch that is trained next, for `rewind`: plain values."""
        with self._changed:
            entry = self._stream.entry(self._done())
            return [entry.start, entry.number]

    def rewind(self, mark, after=0):
        """Lets the data go on at a mark, `after` batches from now: at least `LEAD` within an epoch, which is held back."""
        with self._changed:
            if self._within and not (self._held and after >= LEAD):
                raise ValueError(
                    f"Within an epoch, `hold_back` must come before it, and `after` be at least {LEAD}: batches are fetched "
                    f"in advance. Received: after={after}"
                )
            self._stream.change(self._done() + after, to=list(mark))

    def state(self):
        """Where the stream is, as plain values."""
        with self._changed:
            left = self._length - self._done() if self._within else self._left
            place = self._stream.state(self._done())
        return {"seed": self.seed, "num_samples": self.num_samples, "left": left, **place}

    def restore_state(self, state):
        """Goes on from where `state` was called; what was left of that epoch is the next epoch."""
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
    def num_batches(self):
        adapter = training_loop.data_adapter(self)
        if adapter is not None:
            keras_private.hand_over_unchanged(adapter)
        return len(self)

    def on_epoch_begin(self):
        if training_loop.is_building():
            return  # no epoch: a pass would be skipped
        with self._changed:
            self._length, self._left = self._left or self._full_length(), 0
            self._held, self._to_be_held = self._to_be_held, False
            self._within, self._trained = True, None
        iterator = training_loop.epoch_iterator()
        if iterator is not None:
            if iterator.steps_per_epoch:
                raise ValueError(
                    "Give `steps_per_epoch` to ScheduledBatches, not to `fit`, which would let the batches that it has "
                    f"fetched in advance leak into the next epoch. Received: steps_per_epoch={iterator.steps_per_epoch}"
                )
            iterator._num_batches = self._length  # Keras counts the batches once, when `fit` begins,
            iterator.data_adapter.shuffle = False  # and takes them in random order, unless `fit` is told not to

    def on_epoch_end(self):
        with self._changed:
            if self._within:
                self._stream.advance(self._length if self._trained is None else self._trained)
                self._within = self._held = False
                self._trained = None
                self._changed.notify_all()

    def _done(self):
        return (self._trained or 0) if self._within else 0

    def _full_length(self):
        return self.steps_per_epoch or self._stream.batches_in_a_pass()

    def _samples(self, entry):
        number, offset = divmod(entry.start, self.num_samples)
        rows = slice(offset, offset + entry.size)
        if self.shuffle:
            rows = self._order(number)[rows]
        return _map(lambda array: keras_private.rows_of(array, rows), self._arrays)

    def _order(self, number):
        order = self._orders.get(number)
        if order is None:
            order = np.random.default_rng([self.seed, number]).permutation(self.num_samples)
            self._orders = {number: order}
        return order


def _sliceable(arrays):
    if keras.backend.backend() == "tensorflow":
        arrays = tree.lists_to_tuples(arrays)  # as `fit` does with arrays there
    return _map(keras_private.sliceable, arrays)


def _map(function, arrays):
    """The structure with the function applied to its arrays; `None` stays."""
    return tree.map_structure(lambda array: None if array is None else function(array), arrays)


def _common_length(arrays):
    shapes = [tuple(getattr(array, "shape", ())) for array in tree.flatten(arrays) if array is not None]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or not (length := lengths.pop()):
        raise ValueError(f"All arrays must have the same number of samples, at least one. Received: shapes {shapes}")
    return int(length)

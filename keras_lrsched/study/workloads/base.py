"""The base of every workload: a small real task with fixed data, splits, model, optimizer and target."""

import functools
from pathlib import Path

import keras
import numpy as np

from keras_lrsched._core import registry


class Workload:
    """A task to compare ways of training on. It loads its data when it is made.

    Everything random is a function of a seed, and batch t of a run is a function of (seed, t) alone: two schedules are
    compared on the same initial weights and the same batches.

    A subclass is registered by a name and a title, sets the class attributes below, loads data in `__init__(data_dir=None)`,
    and implements `build_model`, `train_batch` and `optimizer`.
    """

    batch_size: int
    peak_learning_rate: float
    """The peak that all schedules share unless another is asked for."""
    budgets: tuple[int, ...]
    """Numbers of updates that `compare` trains for by default."""
    metric: str
    """The metric that is reported next to the validation loss: a key of `evaluate`'s result, such as `val_accuracy`."""
    target: float
    """A value of `metric` that a good run reaches."""
    larger_is_better: bool = True
    needs_data_dir: bool = False

    validation: tuple[np.ndarray, np.ndarray]
    """Inputs and labels that no run trains on."""

    def __init__(self, data_dir: str | None = None):
        """Load the data, from a folder if `needs_data_dir`."""

    @property
    def name(self) -> str:
        """The name that it is registered by, or the class that it inherits from."""
        return str(registry.entry_of(type(self)).name)

    @property
    def title(self) -> str:
        """A short description: data and model."""
        return registry.entry_of(type(self)).title

    def train_batch(self, step: int, seed: int):
        """The inputs and labels of batch `step`, counted from 0."""
        raise NotImplementedError

    def build_model(self) -> keras.Model:
        """A fresh model that returns logits; its weights come from Keras' global seed."""
        raise NotImplementedError

    def optimizer(self, learning_rate) -> keras.optimizers.Optimizer:
        """The optimizer that the task is usually trained with."""
        raise NotImplementedError

    def compiled_model(self, learning_rate, seed: int, jit_compile="auto") -> keras.Model:
        """The model, ready for `fit`, with the initial weights of this seed."""
        keras.utils.set_random_seed(seed)
        model = self.build_model()
        model.compile(
            optimizer=self.optimizer(learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=jit_compile,
        )
        return model

    def stream(self, seed: int) -> "Stream":
        """The batches of a run, without end."""
        return Stream(self, seed)

    def reached(self, value: float) -> bool:
        """Whether a value of `metric` is at the target or beyond."""
        return value >= self.target if self.larger_is_better else value <= self.target


class Stream(keras.utils.PyDataset):
    """The batches of one run of a workload; give `fit` a `steps_per_epoch`, since there is no last one."""

    def __init__(self, workload: Workload, seed: int):
        super().__init__()
        self.workload, self.seed = workload, seed

    @property
    def num_batches(self):
        return None

    def __getitem__(self, step):
        return self.workload.train_batch(step, self.seed)


class ShuffledEpochs:
    """Arrays that are gone through once an epoch, each epoch in a new order."""

    def __init__(self, inputs, labels, batch_size):
        self.inputs, self.labels, self.batch_size = inputs, labels, batch_size
        self.steps_per_epoch = len(inputs) // batch_size
        self._order = functools.lru_cache(maxsize=2)(self._order)  # type: ignore[method-assign]

    def batch(self, step, seed):
        epoch, position = divmod(step, self.steps_per_epoch)
        rows = self._order(seed, epoch)[position * self.batch_size : (position + 1) * self.batch_size]
        return self.inputs[rows], self.labels[rows]

    def _order(self, seed, epoch):
        return np.random.default_rng([seed, epoch]).permutation(len(self.inputs))


def required_file(workload: str, data_dir, *names: str) -> Path:
    """The first of `names` that exists in `data_dir`.

    Raises:
        FileNotFoundError: If no folder was given, it is missing, or holds none of the files.
    """
    if data_dir is None:
        raise FileNotFoundError(f"The workload {workload!r} needs data: give a folder that has {' or '.join(names)}.")
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"The data folder {str(data_dir)!r} does not exist.")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"The data folder {str(data_dir)!r} has no {' or '.join(names)}, which {workload!r} needs.")

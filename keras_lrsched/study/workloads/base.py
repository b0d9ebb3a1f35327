"""The base of every workload: a small real task with fixed data, splits, model, optimizer and target."""

import functools
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from keras_lrsched._core import registry

VALIDATION_BATCH = 512


class Workload:
    """A task to compare ways of training on. It loads its data when it is made.

    Everything random is a function of a seed, and batch t of a run is a function of (seed, t) alone: two schedules are
    compared on the same initial weights and the same batches.

    A subclass is registered by a name and a title, sets the class attributes below, loads data in `__init__(data_dir=None)`,
    and implements `build_model`, `train_batch` and `optimizer`; where it is no classification, also `loss` and `metrics`.

    Example:

    >>> import numpy as np
    >>> class Line(Workload):
    ...     batch_size, peak_learning_rate, budgets = 4, 0.1, (20,)
    ...     metric, target, larger_is_better = "val_loss", 0.01, False
    ...     def __init__(self, data_dir=None):
    ...         self.validation = np.ones((2, 1)), np.full((2, 1), 3.0)
    ...     def train_batch(self, step, seed):
    ...         x = np.random.default_rng([seed, step]).random((self.batch_size, 1))
    ...         return x, 3 * x
    ...     def build_model(self):
    ...         return keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    ...     def loss(self):
    ...         return keras.losses.MeanSquaredError()
    ...     def metrics(self):
    ...         return []
    ...     def optimizer(self, learning_rate):
    ...         return keras.optimizers.Adam(learning_rate)
    >>> line = Line()
    >>> model = line.compiled_model(0.5, seed=0)
    >>> history = model.fit(line.stream(0), steps_per_epoch=100, shuffle=False, verbose=0)
    >>> line.reached(model.evaluate(*line.validation, verbose=0))
    True
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
    use_xla: bool = True
    """Whether TensorFlow compiles a step by XLA: what is faster over 4,000 steps on a CPU (`benchmarks/workloads.py`)."""

    validation: tuple[Any, Any]
    """Inputs and labels that no run trains on. Inputs are an array, or a dictionary of arrays."""

    def __init__(self, data_dir: str | None = None) -> None:
        """Load the data, from a folder if `needs_data_dir`."""

    @property
    def name(self) -> str:
        """The name that it is registered by, or the class that it inherits from."""
        return str(registry.entry_of(type(self)).name)

    @property
    def title(self) -> str:
        """A short description: data and model."""
        return registry.entry_of(type(self)).title

    def train_batch(self, step: int, seed: int) -> tuple[Any, Any]:
        """The inputs and labels of batch `step`, counted from 0."""
        raise NotImplementedError

    def build_model(self) -> keras.Model:
        """A fresh model; its weights come from Keras' global seed. It returns logits, where the loss takes some."""
        raise NotImplementedError

    def loss(self) -> keras.losses.Loss:
        """The loss: the cross-entropy of logits and the numbers of classes, unless a subclass has another."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def metrics(self) -> list[Any]:
        """The metrics that are evaluated beside the loss, fresh ones: the accuracy, unless a subclass has others."""
        return ["accuracy"]

    def optimizer(self, learning_rate: Any) -> keras.optimizers.Optimizer:
        """The optimizer that the task is usually trained with."""
        raise NotImplementedError

    def jit_compile(self) -> bool:
        """The value of `compile`'s argument that is fastest here: always on JAX, by `use_xla` on TensorFlow.

        `torch.compile` takes minutes for what runs for seconds.
        """
        backend = keras.backend.backend()
        return backend == "jax" or (backend == "tensorflow" and self.use_xla)

    def compiled_model(self, learning_rate: Any, seed: int, jit_compile: bool | str = "auto") -> keras.Model:
        """The model, ready for `fit`, with the initial weights of this seed."""
        keras.utils.set_random_seed(seed)
        model = self.build_model()
        model.compile(
            optimizer=self.optimizer(learning_rate), loss=self.loss(), metrics=self.metrics(), jit_compile=jit_compile
        )
        return model

    def problem(self) -> dict[str, Any]:
        """The arguments of `Study` that make up the task: `Study(**workload.problem(), budget=200, schedules=["cosine"])`.

        The optimizer is that of the task, and its learning rate the middle of the first grid.
        """
        return {
            "build_model": self.build_model,
            "train": self.stream,
            "validation": self.validation,
            "loss": self.loss(),
            "metrics": self.metrics(),
            "batch_size": VALIDATION_BATCH,
            "optimizers": {type(self.optimizer(1.0)).__name__: self.optimizer},
            "grid_center": self.peak_learning_rate,
            "compile_options": {"jit_compile": self.jit_compile()},
        }

    def stream(self, seed: int) -> "Stream":
        """The batches of a run, without end."""
        return Stream(self, seed)

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether lower or higher values of `metric` are better."""
        return "max" if self.larger_is_better else "min"

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

    def batch(self, step, seed):
        epoch, position = divmod(step, self.steps_per_epoch)
        order = _permutation(len(self.inputs), seed, epoch)
        rows = order[position * self.batch_size : (position + 1) * self.batch_size]
        return self.inputs[rows], self.labels[rows]


@functools.lru_cache(maxsize=4)
def _permutation(size, seed, epoch):
    return np.random.default_rng([seed, epoch]).permutation(size)


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


def sklearn_datasets(workload: str) -> Any:
    """The module `sklearn.datasets`, for the workload of this name.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    try:
        import sklearn.datasets
    except ImportError as error:
        raise ImportError(f"The workload {workload!r} needs scikit-learn: pip install 'keras-lrsched[compare]'") from error
    return sklearn.datasets

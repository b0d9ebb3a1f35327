"""Problem of a study: the user's model and data, as functions of a seed, with checks of what would spoil a comparison."""

import dataclasses
import hashlib
import itertools
import re
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_lrsched._core import keras_private
from keras_lrsched._core.random_state import random_state, restore_random_state
from keras_lrsched.study import _batches

OURS_IN_COMPILE = ("optimizer", "loss", "metrics")
OURS_IN_FIT = (
    "x", "y", "batch_size", "epochs", "callbacks", "validation_data", "validation_split", "validation_batch_size", "shuffle",
    "initial_epoch", "steps_per_epoch", "validation_freq",
)  # fmt: skip

TOLERATED_OVERLAP = 0.1
"""Share of validation examples that may be among the training examples, as discrete data have them by chance."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Model, data and loss of a study. All that is random is a function of the study's seed and the number of a run's seed.

    Args:
        build_model: A function without arguments that returns a new model, compiled or not, with random weights.
        train: Arrays `(x, y)` or `(x, y, sample_weight)`, a `PyDataset`, a `tf.data.Dataset`, a torch `DataLoader`, or a
            function of the seed that returns one of these or an iterable of batches.
        validation: The same, but not an iterable that can be gone through only once. A function is called with the seed 0.
        loss: As in `compile`. Defaults to `None`: that of the compiled model.
        metrics: As in `compile`. Defaults to `None`: those of the compiled model.
        batch_size: Of arrays. Defaults to `32`.
        seed: The seed of the study. Defaults to `0`.
        monitor: The name of the training loss in the logs of a batch. Defaults to `"loss"`.
        compile_options: Further arguments of `compile`. Defaults to `None`.
        fit_options: Further arguments of `fit`, such as `class_weight`. Defaults to `None`.
        callbacks: A function without arguments that returns new callbacks for a run. Defaults to `None`.
        same_weights: Whether runs of all seeds may begin with the same weights, as those of a pretrained model.
            Defaults to `False`.
        allow_overlap: Whether validation examples may be among the training examples. Defaults to `False`.
    """

    build_model: Callable[[], keras.Model]
    train: Any
    validation: Any
    loss: Any = None
    metrics: Any = None
    batch_size: int = 32
    seed: int = 0
    monitor: str = "loss"
    compile_options: dict[str, Any] | None = None
    fit_options: dict[str, Any] | None = None
    callbacks: Callable[[], Any] | None = None
    same_weights: bool = False
    allow_overlap: bool = False

    def keras_seed(self, number: int) -> int:
        """The seed for `keras.utils.set_random_seed` of the runs with a number of a seed."""
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])

    def model(self, number: int) -> keras.Model:
        """A new model with the weights of a seed, after all random numbers were set to that seed."""
        keras.utils.set_random_seed(self.keras_seed(number))
        model = self.build_model()
        if not isinstance(model, keras.Model):
            raise ValueError(f"`build_model` must return a keras.Model. Received: {model!r:.200}")
        return model

    def compile(self, model: keras.Model, make_optimizer: Callable[[], keras.optimizers.Optimizer]) -> None:
        """Compile a model with an optimizer, whose constructor does not change the random numbers of the run."""
        before = random_state()
        optimizer = make_optimizer()
        options = {**(self.compile_options or {}), "loss": self.loss, "metrics": _fresh(self.metrics)}
        options = {name: value for name, value in options.items() if value is not None}
        if options or type(model).compile is keras.Model.compile or not model.compiled:
            model.compile(**{**keras_private.compile_arguments(model), **options, "optimizer": optimizer})
        else:
            model.optimizer = optimizer  # a `compile` of the user's own, which takes other arguments
        restore_random_state(before)

    def build(self, model: keras.Model) -> None:
        """Create all variables of a compiled model, as `fit` does from its first batch. Random numbers stay as they were."""
        before, data = random_state(), self.validation_data()
        if isinstance(data, tuple):
            batch = tuple(keras.tree.map_structure(lambda array: array[: self.batch_size], part) for part in data)
        else:
            batch = _batches.first(data)
        keras_private.build_symbolically(model, batch)
        restore_random_state(before)

    def batches(self, number: int) -> Any:
        """The batches of the runs with a number of a seed, without end, for `fit`."""
        return _batches.endless("train", self.train, self.batch_size, self.seed, number, self.keras_seed(number))

    def validation_data(self) -> Any:
        """The validation data, for `fit` and `evaluate`."""
        data = _batches.resolved("validation", self.validation, 0)
        return _batches.as_arrays("validation", data) if _batches.kind_of("validation", data) == "arrays" else data

    def fit(self, model: keras.Model, number: int, steps_per_epoch: int, epochs: int, callbacks: list) -> None:
        """Train a compiled model on the batches of a seed, and evaluate it after each epoch."""
        data, own = self.validation_data(), self.callbacks() if self.callbacks is not None else []
        model.fit(
            self.batches(number),
            steps_per_epoch=steps_per_epoch,
            epochs=epochs,
            validation_data=data,
            validation_batch_size=self.batch_size if isinstance(data, tuple) else None,
            callbacks=[*own, *callbacks],
            **{"shuffle": False, "verbose": 0, **(self.fit_options or {})},
        )

    def steps_per_epoch(self) -> int | None:
        """Batches in one pass over the training data; `None` if that is not known."""
        data = _batches.resolved("train", self.train, self.keras_seed(0))
        return _batches.steps_per_epoch(data, self.batch_size)

    def evaluate(self, model: keras.Model) -> dict[str, float]:
        """The metrics of a compiled model on the validation data, by the names that they have in the logs of `fit`."""
        data = self.validation_data()
        arrays = dict(zip(("x", "y", "sample_weight"), data, strict=False)) if isinstance(data, tuple) else {"x": data}
        size = self.batch_size if isinstance(data, tuple) else None
        options = {"steps": (self.fit_options or {}).get("validation_steps")}
        logs = model.evaluate(**arrays, batch_size=size, verbose=0, return_dict=True, **options)
        return {f"val_{name}": float(np.mean(keras.ops.convert_to_numpy(value))) for name, value in logs.items()}

    def fingerprint(self) -> dict[str, Any]:
        """Data and options as JSON: digests of arrays, and of the first batch of other data."""
        return {
            "train": digest(_leaves(self.train if _is_arrays(self.train) else _batches.first(self.batches(0)))),
            "validation": digest(_leaves(_batches.first(_stream(self.validation_data())))),
            "loss": repr(_described(self.loss)),
            "metrics": repr(keras.tree.map_structure(_described, self.metrics)),
            "monitor": self.monitor,
            "compile_options": _text(self.compile_options),
            "fit_options": _text(self.fit_options),
            "callbacks": "" if self.callbacks is None else getattr(self.callbacks, "__qualname__", "a function"),
        }

    def check(self, metric: str) -> "Facts":
        """Look for what would spoil the study, before any run.

        Args:
            metric: The metric by which runs are compared.

        Raises:
            ValueError: If validation data are missing or overlap the training data, data are not finite, batches or weights
                are not a function of the seed, the model is returned twice, or `metric` does not exist.
        """
        self._check_data()
        before = random_state()
        try:
            self._check_batches()
            return self._check_model(metric)
        finally:
            restore_random_state(before)

    def check_arguments(self) -> None:
        """Check what can be without calling any function of the user.

        Raises:
            ValueError: If a function is none, data are of an unknown kind or missing, or an option is the study's own.
        """
        if not callable(self.build_model) or isinstance(self.build_model, keras.Model):
            raise ValueError(f"`build_model` must be a function that returns a model. Received: {self.build_model!r:.200}")
        if self.callbacks is not None and not callable(self.callbacks):
            raise ValueError(
                f"`callbacks` must be a function that returns new ones for each run. Received: {self.callbacks!r:.200}"
            )
        for name, ours in (("compile_options", OURS_IN_COMPILE), ("fit_options", OURS_IN_FIT)):
            both = [key for key in (getattr(self, name) or {}) if key in ours]
            if both:
                raise ValueError(f"The study sets {both[0]!r} itself: leave it out of `{name}`. Received: {both}")
        if self.validation is None:
            raise ValueError(
                "`validation` is missing: the losses of a study are those on data that no run trains on. "
                "Received: validation=None"
            )
        _batches.kind_of("train", self.train)
        _batches.kind_of("validation", self.validation)

    def _check_data(self) -> None:
        train = _batches.resolved("train", self.train, self.keras_seed(0))
        validation = self.validation_data()
        if _batches.kind_of("validation", validation) == "iterable" and iter(validation) is validation:
            raise ValueError(f"`validation` can be gone through only once. Received: validation of {type(validation)}")
        parts = {"train": train, "validation": validation}
        arrays = {k: _batches.as_arrays(k, v) for k, v in parts.items() if _batches.kind_of(k, v) == "arrays"}
        for name, each in arrays.items():
            _check_finite(name, each)
        if train is validation:
            raise ValueError(f"`train` and `validation` are the same object. Received: {type(train)}")
        if len(arrays) == 2 and not self.allow_overlap:
            _check_overlap(arrays["train"], arrays["validation"])

    def _check_batches(self) -> None:
        """Check that two runs of a seed get the same batches, and that the first ones are finite."""
        batches = []
        for _ in range(2):
            keras.utils.set_random_seed(self.keras_seed(0))
            batch = _batches.first(self.batches(0))
            parts = batch if isinstance(batch, tuple) else (batch,)
            batches.append([_batches._array(leaf) for leaf in keras.tree.flatten(parts)])
        for leaf in batches[0]:
            _check_finite("train", (leaf,))
        if digest(batches[0]) != digest(batches[1]):
            raise ValueError(
                "`train` has other batches each time that it is gone through, and runs of one seed would differ: give "
                f"a function of the seed that returns it. Received: train={self.train!r:.200}"
            )

    def _check_model(self, metric: str) -> "Facts":
        models: list[keras.Model] = []
        for number in (0, 1, 0):
            model = self.model(number)
            if any(model is other for other in models):
                raise ValueError(
                    f"`build_model` must return a new model each time. Received: twice the same object, {model.name!r}"
                )
            self.compile(model, lambda: keras.optimizers.SGD(0.0))
            self.build(model)
            models.append(model)
        names = self.evaluate(models[0])
        if metric not in names:
            raise ValueError(
                f"The metric {metric!r} does not exist. Those that do: {', '.join(names)}. Received: metric={metric!r}"
            )
        _check_weights(models, self.same_weights)
        return Facts(names, _layout(models[0]), type(models[0]).__name__)


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts that a check has found.

    Args:
        initial: The metrics of the model of seed 0 before training, by their names in the logs of `fit`.
        layout: A digest of the shapes of the weights and of the configuration.
        kind: The class of the model.
    """

    initial: dict[str, float]
    layout: str
    kind: str


def digest(arrays: Any) -> str:
    """A short digest of arrays: of their bytes, shapes and types."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).data)
    return found.hexdigest()[:16]


def _leaves(data: Any) -> list[np.ndarray]:
    parts = data if isinstance(data, tuple) else (data,)
    return [_batches._array(leaf) for leaf in keras.tree.flatten(parts) if leaf is not None]


def _is_arrays(data: Any) -> bool:
    return _batches.kind_of("train", data) == "arrays"


def _stream(data: Any) -> Any:
    """Something whose first element stands for validation data: arrays as a whole, else the batches."""
    return [data] if isinstance(data, tuple) else data


def _described(thing: Any) -> str:
    """A loss or metric as text, the same in another program."""
    if hasattr(thing, "get_config"):
        return f"{type(thing).__name__}({_text(thing.get_config())})"
    return getattr(thing, "__qualname__", None) or str(thing)


def _text(value: Any) -> str:
    return re.sub(r" at 0x\w+", "", repr(value))


def _fresh(metrics: Any) -> Any:
    """New metrics without state, and what else stands for metrics as it is."""

    def copied(metric: Any) -> Any:
        return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.Metric) else metric

    return keras.tree.map_structure(copied, metrics)


def _layout(model: keras.Model) -> str:
    shapes = [(tuple(weight.shape), str(weight.dtype), weight.trainable) for weight in model.weights]
    try:
        config = re.sub(r"'name': '[^']*'|_\d+\b| at 0x\w+", "", repr(model.get_config()))
    except Exception:  # a subclassed model need not have one
        config = ""
    return hashlib.sha256(f"{shapes}{config}".encode()).hexdigest()[:16]


def _check_finite(name: str, parts: tuple) -> None:
    for path, leaf in _batches.named_leaves(name, parts):
        if leaf.dtype.kind not in "fc" and leaf.dtype.name != "bfloat16":
            continue
        finite = np.isfinite(leaf)
        if not finite.all():
            row = int(np.argwhere(~finite)[0][0]) if leaf.ndim else 0
            raise ValueError(
                f"`{name}` must be finite. Received: {path} with {np.count_nonzero(~finite)} values that are NaN or "
                f"infinite, the first one in example {row}"
            )


def _check_overlap(train: tuple, validation: tuple) -> None:
    known, rows = _rows(train), _rows(validation)
    found = len(known & rows)
    if _share_memory(train[0], validation[0]) or found > TOLERATED_OVERLAP * len(rows):
        raise ValueError(
            f"`validation` overlaps `train`: {found} of its {len(rows)} different examples are among those that runs train "
            f"on. Take other examples, or give allow_overlap=True. Received: {found / len(rows):.0%} overlap"
        )
    if found:
        warnings.warn(f"{found} examples of `validation` are in `train`, too.", stacklevel=5)


def _share_memory(train: Any, validation: Any) -> bool:
    pairs = itertools.product(keras.tree.flatten(train), keras.tree.flatten(validation))
    return any(np.shares_memory(left, right) for left, right in pairs)


def _rows(parts: tuple) -> set[bytes]:
    """Digests of the different examples, inputs and targets."""
    leaves = [leaf for part in parts[:2] for leaf in keras.tree.flatten(part)]
    if any(leaf.dtype == object for leaf in leaves):
        return {hashlib.blake2b(repr(row).encode(), digest_size=8).digest() for row in zip(*leaves, strict=True)}
    flat = [np.ascontiguousarray(leaf).reshape(len(leaf), -1) for leaf in leaves]
    found = set()
    for i in range(len(flat[0])):
        row = hashlib.blake2b(digest_size=8)
        for leaf in flat:
            row.update(leaf[i].data)
        found.add(row.digest())
    return found


def _check_weights(models: list[keras.Model], same_weights: bool) -> None:
    first, other, again = ([np.asarray(keras.ops.convert_to_numpy(w)) for w in m.weights] for m in models)
    held = {id(weight) for weight in models[0].weights}
    if any(id(weight) in held for model in models[1:] for weight in model.weights):
        raise ValueError("`build_model` must return a model with layers of its own. Received: models that share weights")
    if not all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(first, again, strict=True)):
        raise ValueError(
            "`build_model` must return the same weights after the same `keras.utils.set_random_seed`. "
            "Received: other weights"
        )
    trainable = [i for i, weight in enumerate(models[0].weights) if weight.trainable]
    if not same_weights and all(np.array_equal(first[i], other[i]) for i in trainable):
        raise ValueError(
            "The weights of `build_model` must depend on the seed that `keras.utils.set_random_seed` sets: leave fixed seeds"
            " out of its initializers, or give same_weights=True for pretrained ones. Received: the same for two seeds"
        )

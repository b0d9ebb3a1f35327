"""Counters that a running `fit` keeps for callbacks: samples of a batch, resets of the metrics."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_lrsched._core import keras_private
from keras_lrsched._core.training_loop import callbacks_of_fit, epoch_iterator, place_first, place_last
from keras_lrsched._core.training_loop.step_hooks import add_hook, hooks, make_step, remove_hook, variables_to_reuse


def watch_metric_resets(model: keras.Model) -> "_CountsResets":
    """Something whose `number` counts how often the metrics of a model are reset, from now to the end of the training.

    In a training loop of one's own, `train_on_batch` resets them at each call, which `fit` does between epochs only.
    """
    watch = vars(model).get("reset_metrics")
    if not isinstance(watch, _CountsResets):
        watch = _CountsResets(model)
        place_last(watch)
    return watch


class _CountsResets(keras.callbacks.Callback):
    """A replacement of `model.reset_metrics`."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.number = 0
        self._reset = model.reset_metrics
        vars(model)["reset_metrics"] = self

    def __call__(self) -> None:
        self.number += 1
        self._reset()

    def on_train_end(self, logs: dict | None = None) -> None:
        vars(self._reset.__self__).pop("reset_metrics", None)


def watch_batch_size(model: keras.Model) -> "_StoresBatchSize | _BatchSize":
    """Something whose `read()` is the number of samples of the last batch that `fit` has trained, or 0 if it is not known.

    To be called within `fit`, in `on_train_begin`; for models with a `train_step` of their own, of which nothing is known.
    The number is the length of the first axis of the first array of the batch, of all replicas and processes together. On
    TensorFlow the compiled step stores it; on JAX and PyTorch, where a batch is fetched before its step, it is read there.

    What it has to do ends with `fit`, if a `CallbackList` is running.
    """
    if keras.backend.backend() != "tensorflow":
        return _watch_data()
    watch = next((hook for hook in hooks(model) if isinstance(hook, _StoresBatchSize)), None)
    if watch is None:
        watch = _StoresBatchSize(model)
    if not any(isinstance(it, _LeavesStep) and it.hook is watch for it in callbacks_of_fit()):
        place_first(_LeavesStep(watch))
    return watch


def _watch_data() -> "_BatchSize":
    iterator = epoch_iterator()
    watch = keras_private.batch_watcher(iterator)
    if watch is None:
        watch = _BatchSize()
        if iterator is not None:
            keras_private.watch_batches(iterator, watch)
    return watch


class _BatchSize:
    size = 0

    def __call__(self, batch: Any) -> None:
        self.size = next(part.shape[0] for part in keras.tree.flatten(batch) if part is not None and len(part.shape))

    def read(self) -> int:
        return int(self.size)


class _StoresBatchSize:
    """A hook in the training step of TensorFlow.

    Attributes:
        checks: Functions of what the step logs, which may raise while the step is traced, before anything is trained.
    """

    def __init__(self, model: keras.Model) -> None:
        import tensorflow as tf

        self.step_key = (type(self),)
        self.checks: list = []
        self._model = model
        add_hook(model, self)
        self._size: Any = variables_to_reuse(model, self).get("size")
        if self._size is None:
            with model.distribute_strategy.scope():
                self._size = tf.Variable(
                    0,
                    trainable=False,
                    dtype="int64",
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.SUM,
                )
        self.step_variables = {"size": self._size}
        make_step(model)

    @contextlib.contextmanager
    def in_step(self, args: Any) -> Iterator:
        self._size.assign(_samples(args))
        yield

    def after_step(self, logs: dict | None) -> None:
        for check in self.checks:
            check(logs)

    def read(self) -> int:
        return int(self._size.read_value().numpy())

    def leave_step(self) -> None:
        remove_hook(self._model, self)


class _LeavesStep(keras.callbacks.Callback):
    """A callback that removes a hook from the training step when `fit` ends."""

    def __init__(self, hook: Any) -> None:
        super().__init__()
        self.hook = hook

    def on_train_end(self, logs: dict | None = None) -> None:
        self.hook.leave_step()

    def state(self) -> dict:
        return {}

    def restore_state(self, state: Any) -> None:
        pass


def _samples(batch: Any) -> Any:
    import tensorflow as tf

    part = next(part for part in keras.tree.flatten(batch) if part is not None and part.shape.rank != 0)
    if isinstance(part, tf.RaggedTensor):
        size = part.nrows()
    else:
        size = part.dense_shape[0] if isinstance(part, tf.SparseTensor) else tf.shape(part)[0]
    return tf.cast(size, "int64")

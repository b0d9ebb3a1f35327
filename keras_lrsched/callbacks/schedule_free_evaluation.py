"""With a Schedule-Free optimizer: the averaged weights where results are taken, the others where training continues."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import keras_private, training_loop
from keras_lrsched._core.registry import register
from keras_lrsched._core.runs import Run
from keras_lrsched.callbacks._batch_norm_statistics import check_batch_norm_data, recompute_batch_norm, statistics
from keras_lrsched.callbacks.controller import refuse_backups
from keras_lrsched.optimizers._schedule_free import AveragedWeights


@register(
    title="Averaged weights of Schedule-Free optimizers",
    paper="arXiv:2405.15682",
    code=("facebookresearch/schedule_free",),
    checked="read",
    against="`optimizer.train()` and `optimizer.eval()` of the official code",
    deviations="called by Keras instead of by hand",
    kind="averager",
)
class ScheduleFreeEvaluation(keras.callbacks.Callback):
    """Evaluation, prediction and saving with the averaged weights x of a Schedule-Free optimizer, which trains with y.

    x is in the model during `evaluate`, also that of `fit`, from an epoch's end to the next one's begin, and after `fit`. So
    what callbacks save or compare at the end of an epoch (`ModelCheckpoint`, `EarlyStopping`) is x, which `val_loss` is
    of, wherever in the list they stand. What is saved then can be used as it is; training that continues from it, also from
    a file, goes back to y. Weights that are set from outside take the place of those that the model has at that time, x
    or y, and move the other by as much.

    Neither costs memory: each of x and y is computed from the other and the state of the optimizer, at the cost of a
    rounding in the last digit. With `master_weights`, that is one of float32.

    BatchNorm's moving statistics belong to y. Give `batch_norm_data` to have them computed for x each time it comes into the
    model after an update; those of the training are put back with y.

    Args:
        batch_norm_data: Training data, as for `recompute_batch_norm`: arrays, a dataset, or a list of batches, of which
            about 50 are usual. Defaults to `None`.
        keep_average: Whether the model has x when `fit` is done, instead of y. Defaults to `True`.

    Raises:
        ValueError: When `fit`, `evaluate` or `predict` begins, if the optimizer is not a Schedule-Free one of this package.
            When `fit` begins, if `batch_norm_data` is given and there is no BatchNorm, the model cannot be called on the
            data, or Keras' `BackupAndRestore` is in the list, which does not save the statistics of the training; if a
            callback restores the best weights, which are x, and `keep_average=False`.

    Reference:
        Defazio et al., The Road Less Scheduled, arXiv:2405.15682, whose code has `optimizer.train()` and `optimizer.eval()`
        to be called by hand.

    Example:

    >>> from keras_lrsched.optimizers import ScheduleFreeSGD
    >>> weight = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    >>> model = keras.Sequential([keras.layers.Input((1,)), weight])
    >>> model.compile(ScheduleFreeSGD(0.25), loss="mse")
    >>> data = {"x": np.ones((2, 1)), "y": np.ones((2, 1)), "batch_size": 1, "verbose": 0}
    >>> history = model.fit(**data, callbacks=[ScheduleFreeEvaluation()])
    >>> model.get_weights()[0].item()  # the mean of 0.5 and 0.75
    0.625
    """

    keeps_schedule_free_average = True
    """The attribute by which a Schedule-Free optimizer finds this callback when weights of an epoch are restored."""

    def __init__(self, batch_norm_data: Any = None, keep_average: bool = True) -> None:
        super().__init__()
        self.batch_norm_data = batch_norm_data
        self.keep_average = keep_average
        self._run: Run | None = None
        self.goes_back = False  # after an evaluation
        self.of_training: list = []  # BatchNorm's statistics for y, while the model has x
        self.of_average: list = []  # those for x
        self.computed_after = -1  # this many updates

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        training_loop.place_first(self)  # what others do at an epoch's end is done with x

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        model, _ = self._model_and_optimizer()
        if self._run is not None and self._run != Run(model):
            self._begin_anew()
        self._run = Run(model)
        if self.batch_norm_data is not None:
            refuse_backups(type(self).__name__)
            check_batch_norm_data(model, self.batch_norm_data)
        if not self.keep_average:
            _refuse_best_weights()
        self._to_training()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._to_training()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._to_average()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.keep_average:
            self._to_average()
        else:
            self._to_training()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.goes_back = self._to_average()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.goes_back:
            self._to_training()

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.on_test_begin()

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        self.on_test_end()

    def _to_average(self) -> bool:
        """Whether anything had to be done."""
        model, optimizer = self._model_and_optimizer()
        if optimizer.is_averaged:
            return False
        optimizer.use_average()
        if self.batch_norm_data is not None:
            self.of_training = _values(statistics(model))
            self._set_statistics(model, int(ops.convert_to_numpy(keras_private.iterations(optimizer))))
        return True

    def _to_training(self) -> None:
        model, optimizer = self._model_and_optimizer()
        optimizer.use_training_weights()
        if self.of_training:
            _assign(statistics(model), self.of_training)
            self.of_training = []

    def _set_statistics(self, model: keras.Model, updates: Any) -> None:
        if self.computed_after == updates:
            _assign(statistics(model), self.of_average)
        else:
            recompute_batch_norm(model, self.batch_norm_data)
            self.of_average, self.computed_after = _values(statistics(model)), updates

    def _model_and_optimizer(self) -> tuple[keras.Model, Any]:
        model = self.model
        optimizer = model.optimizer
        while not isinstance(optimizer, AveragedWeights) and hasattr(optimizer, "inner_optimizer"):
            optimizer = optimizer.inner_optimizer
        if not isinstance(optimizer, AveragedWeights):
            raise ValueError(
                "ScheduleFreeEvaluation needs ScheduleFreeSGD, ScheduleFreeAdamW, ScheduleFreeRAdam or ScheduleFreeWrapper "
                f"of keras_lrsched. Received: optimizer={optimizer!r}"
            )
        return model, optimizer

    def _begin_anew(self) -> None:
        self.goes_back = False
        self.of_training, self.of_average, self.computed_after = [], [], -1


def _refuse_best_weights() -> None:
    """Raise for callbacks that set the weights when `fit` ends: to x of an epoch, where the optimizer has y by then."""
    for callback in training_loop.callbacks_of_fit():
        if getattr(callback, "restore_best_weights", False):
            raise ValueError(
                f"{type(callback).__name__} restores averaged weights: use it with keep_average=True. "
                f"Received: ScheduleFreeEvaluation(keep_average=False) beside {type(callback).__name__}"
            )


def _values(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [np.array(variable.numpy()) for variable in variables]


def _assign(variables: list[keras.Variable], values: Any) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)

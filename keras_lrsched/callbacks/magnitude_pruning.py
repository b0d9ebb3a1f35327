"""Magnitude pruning: the smallest weights become 0, more and more of them during training (Zhu & Gupta 2017)."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_lrsched._core import path_rules, validation
from keras_lrsched._core.registry import register
from keras_lrsched.callbacks.gradient_controller import GradientController
from keras_lrsched.schedules.per_update import refuse_per_update
from keras_lrsched.schedules.schedule import as_schedule, compute


@register(
    title="Magnitude pruning",
    paper="arXiv:1710.01878",
    checked="memory",
    deviations="the official code and arXiv:2003.02389 (learning-rate rewinding, one ranking over all layers) were not read",
    kind="controller",
)
class MagnitudePruning(GradientController):
    """Pruning by magnitude: the round(sparsity(t) n) smallest of n weights are set to 0 before update t, and stay there.

    Whenever the schedule's value changes, the weights to prune are chosen anew: `SparsityRamp(..., frequency=100)` does so
    every 100 updates. In between, the pruned ones are set back to 0 within the compiled step, after each update. What was
    pruned stays pruned as long as the sparsity does not fall.

    All weights named kernel (of dense, convolutional, recurrent and attention layers) are pruned; biases, embeddings and
    normalization are not. There is nothing to strip: after `fit` the model is a plain one with zeros in it, and files saved
    on the way hold no more than its weights. A model that has no weights yet is built from the data of `fit`. A later `fit`
    with this callback continues the schedule at `optimizer.iterations`.

    With learning-rate rewinding, let the optimizer have `LearningRateRewinding(schedule, T, k, cycles)`, and the sparsity
    steps at T, T + k, ...: the weights are pruned before these updates, which replay the schedule's last k. Under gradient
    accumulation t counts updates.

    Args:
        sparsity: A schedule with values in [0, 1], such as `SparsityRamp`, or a number.
        scope: `"layer"`, for the same sparsity in each kernel, or `"global"`, for one ranking over all. Defaults to
            `"layer"`.
        exclude_from_pruning: A list of regular expressions; kernels in whose path one is found are not pruned. Defaults to
            `None`.

    Attributes:
        pruned_to: The sparsity now; `None` before the first update of a `fit`.

    Raises:
        ValueError: At construction, if an argument is not of its kind. When `fit` begins, as `GradientController`, if the
            model has nothing to prune, or nothing that an expression fits. Before an update, if the value is outside of
            [0, 1].

    Reference: arXiv:1710.01878 (ranking within a layer); learning-rate rewinding, arXiv:2003.02389, ranks over all layers.
    That paper and the official codes were not read.

    Example:

    >>> import keras
    >>> from keras_lrsched.schedules import SparsityRamp
    >>> model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(1)])
    >>> model.compile("adam", loss="mse")
    >>> pruning = MagnitudePruning(SparsityRamp(0.0, 0.8, begin_step=2, end_step=8))
    >>> history = model.fit(np.ones((10, 4)), np.ones((10, 1)), batch_size=1, verbose=0, callbacks=[pruning])
    >>> [round(np.mean(np.asarray(layer.kernel) == 0).item(), 6) for layer in model.layers]
    [0.8, 0.8]
    """

    saved = ("pruned_to",)
    sets_learning_rate = False
    step_settings = ("_kernel_paths",)

    def __init__(
        self,
        sparsity: LearningRateSchedule | float,
        scope: Literal["layer", "global"] = "layer",
        exclude_from_pruning: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.sparsity = as_schedule("sparsity", sparsity)
        refuse_per_update("MagnitudePruning", "sparsity", self.sparsity)
        self.scope = validation.one_of("scope", scope, ("layer", "global"))
        self.exclude_from_pruning = path_rules.patterns("exclude_from_pruning", exclude_from_pruning)
        self.pruned_to: float | None = None

    def begin(self) -> None:
        self.build_optimizer()
        kernels = [v for v in self.model.trainable_variables if v.name.endswith("kernel")]
        self._kernels = [
            kernel
            for kernel, included in zip(
                kernels, path_rules.included("exclude_from_pruning", self.exclude_from_pruning, kernels), strict=True
            )
            if included
        ]
        if not self._kernels:
            raise ValueError(
                f"The model has no kernels to prune. Received: exclude_from_pruning={self.exclude_from_pruning}"
            )
        self._kernel_paths = tuple(kernel.path for kernel in self._kernels)
        super().begin()
        self._masks = [
            self.add_variable(f"mask_{i}", kernel.shape, "bool", "ones") for i, kernel in enumerate(self._kernels)
        ]
        self.pruned_to = None  # so that a model that is trained further is masked as it is

    def before_update(self) -> None:
        value = self._value()
        if value != self.pruned_to:
            self._prune(value)
            self.pruned_to = value

    def after_apply(self, gradients: list[Any], variables: list[keras.Variable]) -> None:
        for kernel, mask in zip(self._kernels, self._masks, strict=True):
            weights = ops.convert_to_tensor(kernel)
            kernel.assign(ops.where(ops.convert_to_tensor(mask), weights, ops.zeros_like(weights)))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if logs is not None:
            logs["sparsity"] = self.pruned_to

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        self._kernels = self._masks = []

    def _value(self) -> float:
        step = np.asarray(self.applied() // self.accumulation_steps)
        return validation.fraction("sparsity", float(compute(self.sparsity, step, np)))

    def _prune(self, sparsity: float) -> None:
        _ = self.model  # on JAX, this takes all state out of the compiled step
        weights = [np.asarray(ops.convert_to_numpy(kernel)) for kernel in self._kernels]
        sizes = [np.abs(each).astype("float64").ravel() for each in weights]
        if self.scope == "global":
            parts = np.cumsum([each.size for each in sizes])[:-1]
            kept = np.split(_largest(np.concatenate(sizes), sparsity), parts)
        else:
            kept = [_largest(each, sparsity) for each in sizes]
        for kernel, mask, weight, keep in zip(self._kernels, self._masks, weights, kept, strict=True):
            keep = keep.reshape(weight.shape)
            mask.assign(keep)
            kernel.assign(np.where(keep, weight, np.zeros_like(weight)))


def _largest(sizes: np.ndarray, sparsity: float) -> np.ndarray:
    """A mask of the entries that remain when the smallest are pruned; of equal ones, the first are."""
    keep = np.ones(sizes.size, bool)
    keep[np.argsort(sizes, kind="stable")[: round(sparsity * sizes.size)]] = False
    return keep

"""The coordinate check: how much each layer's outputs change in a few updates, at several widths."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_lrsched._core import keras_private, validation
from keras_lrsched._core.registry import register
from keras_lrsched._core.role_rules import NORMALIZATIONS


@dataclass(frozen=True)
class CoordinateCheck:
    """Changes of the outputs of layers at several widths.

    Attributes:
        widths: The widths.
        changes: For each layer, the RMS of the change of its outputs: an array (seeds, widths).
        slopes: For each layer, the power of the width that the change grows by: the slope of the mean of log RMS over seeds
            on log width. Near 0, a learning rate is good at each width; above 0, wide models diverge; below 0, their layers
            do not learn. NaN for a layer that did not change at all.
    """

    widths: Sequence[int]
    changes: dict[str, np.ndarray]
    slopes: dict[str, float]

    def plot(self, ax: Any = None) -> Any:
        """Draw the change of each layer against the width; return the Matplotlib axes."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        for name, changes in self.changes.items():
            ax.loglog(self.widths, np.exp(np.log(changes).mean(0)), "o-", label=f"{name} ({self.slopes[name]:+.2f})")
        ax.set_xticks(self.widths, map(str, self.widths))
        ax.minorticks_off()
        ax.set_xlabel("width")
        ax.set_ylabel("RMS of the change of outputs")
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))  # lines may lie anywhere
        return ax


@register(
    title="how fast the outputs of each layer change, by width",
    paper="arXiv:2203.03466",
    code=("microsoft/mup",),
    checked="memory",
    kind="check",
)
def coordinate_check(
    make_model: Callable[[int], keras.Model],
    widths: Sequence[int],
    x: Any,
    y: Any,
    steps: int = 4,
    seeds: Sequence[int] = (0, 1, 2),
) -> CoordinateCheck:
    """Train a model at several widths for a few updates on one batch, and measure how its layers' outputs change.

    Changes are measured, not values: right after their initialization, models are fine in any parameterization. Layers are
    those that have weights of their own, apart from normalizations, whose outputs have a fixed size. Where heads grow, and
    the multiplier of attention is part of the kernel of queries, the slope of these is 0.5 lower.

    Args:
        make_model: A function from a width to a compiled model. It should make its initial values from Keras' global seed.
        widths: At least two widths, in increasing order.
        x: Inputs of the batch.
        y: Its targets.
        steps: Updates. Defaults to `4`.
        seeds: Keras' seeds, one a model. Small models are noisy: take three or more. Defaults to `(0, 1, 2)`.

    Returns:
        A `CoordinateCheck` with `slopes` and `plot`. Layers have the names that they have in the first model.

    Raises:
        ValueError: If an argument is out of its range, or models have different numbers of layers.

    Reference:
        Yang et al., Tensor Programs V, arXiv:2203.03466, appendix D.1, as microsoft/mup does it.

    Example:

    >>> def make(width):
    ...     layers = [keras.layers.Dense(width), keras.layers.Dense(1, kernel_initializer="zeros")]
    ...     model = keras.Sequential([keras.Input((3,)), *layers])
    ...     model.compile(keras.optimizers.Adam(0.01), "mse")
    ...     return model
    >>> result = coordinate_check(make, [16, 256], np.ones((8, 3)), np.ones((8, 1)), steps=1)
    >>> [_, logits] = result.slopes.values()
    >>> logits > 0.2  # the standard parameterization
    True
    """
    widths = validation.increasing("widths", widths, validation.positive_int)
    seeds = validation.each("seeds", seeds, validation.non_negative_int)
    if len(widths) < 2 or not seeds:
        raise ValueError(f"`widths` must be two or more, and `seeds` one or more. Received: {widths} and {seeds}")
    measured = {
        (seed, width): _changes(make_model, width, seed, x, y, validation.positive_int("steps", steps))
        for seed in seeds
        for width in widths
    }
    names = list(measured[seeds[0], widths[0]])
    if len({len(each) for each in measured.values()}) > 1:
        raise ValueError(f"Models must have as many layers at each width. Received: {[len(e) for e in measured.values()]}")
    values = np.array([[list(measured[seed, width].values()) for width in widths] for seed in seeds])
    log_width = np.log(widths) - np.mean(np.log(widths))
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN for a layer that does not change, such as a frozen one
        slopes = log_width @ np.log(values).mean(0) / (log_width @ log_width)
    return CoordinateCheck(
        widths,
        {name: values[:, :, i] for i, name in enumerate(names)},
        {name: float(slope) for name, slope in zip(names, slopes, strict=True)},
    )


def _changes(make_model: Callable, width: int, seed: int, x: Any, y: Any, steps: int) -> dict[str, float]:
    keras.utils.set_random_seed(seed)
    model = make_model(width)
    before = _outputs(model, x)
    for _ in range(steps):
        model.train_on_batch(x, y)
    after = _outputs(model, x)
    return {name: float(np.sqrt(np.mean((after[name] - before[name]) ** 2))) for name in before}


def _outputs(model: keras.Model, x: Any) -> dict[str, np.ndarray]:
    """The outputs of all layers with weights of their own, without dropout; for a layer of several calls, the last ones."""
    outputs: dict[str, np.ndarray] = {}
    with contextlib.ExitStack() as stack:
        for layer in keras_private.layers_of(model):
            if keras_private.own_trainable_variables(layer) and not isinstance(layer, NORMALIZATIONS):
                stack.callback(keras_private.watch_outputs(layer, _keeping(outputs, layer)))
        model(x, training=False)
    return outputs


def _keeping(outputs: dict[str, np.ndarray], layer: keras.Layer) -> Callable[[Any], None]:
    """A function that keeps the first output of a layer under its path."""

    def keep(result: Any) -> None:
        first = keras.tree.flatten(result)[0]
        outputs[layer.path or layer.name] = keras.ops.convert_to_numpy(first).astype("float64")

    return keep

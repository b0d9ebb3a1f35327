"""QK-clip: queries and keys of attention heads are scaled down where their logits grow too large."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import backends, keras_private, validation
from keras_lrsched._core.registry import register


@register(
    title="QK-clip of attention heads",
    paper="arXiv:2507.20534",
    checked="memory",
    against="own numbers of the formula in secondary texts",
    deviations="the latent attention of the paper is not offered; biases are scaled with their kernels (our own remark)",
    kind="controller",
)
class QKClip(keras.callbacks.Callback):
    """Bound on attention logits: after an update, heads whose logits were too large have their queries and keys scaled down.

        S = the largest logit q k / sqrt(size) of a head in the batch, of all positions that its mask admits
        gamma = min(1, threshold / S)
        W_q = gamma^alpha W_q;  W_k = gamma^(1 - alpha) W_k;  their biases in the same way
        W_q = gamma W_q                                             where several heads share their keys

    It is the other half of MuonClip, for any optimizer: Muon's steps let the logits grow more than Adam's do. Momentum
    is not touched, and float32 copies of weights (`master_weights`) follow. Under gradient accumulation, S is the
    largest of all micro-batches. The layers are `MultiHeadAttention` and `GroupQueryAttention` of Keras, and those
    derived from them that compute their logits by `_compute_attention`. Each has a weight more, `max_logits`, while
    `fit` runs, so that a checkpoint of weights from within has it, too. Logits are computed a second time for it.

    Args:
        threshold: The largest logit, above 0. Defaults to `100`.
        alpha: The part of gamma for the queries, from 0 to 1. Defaults to `0.5`.

    Attributes:
        max_logits: A dictionary from the path of each layer to S of its heads in the last update, as NumPy.
        clipped: How many heads were scaled so far.

    Raises:
        ValueError: At construction, if an argument is out of its range. When `fit` begins, if the model has no such
            layer, on several replicas, whose largest logits are not known to each other, or if `steps_per_execution` is
            above 1. In the first step, if a layer attends to several axes.

    Reference: Kimi K2, arXiv:2507.20534, from memory and secondary texts.

    Example:

    >>> import keras
    >>> inputs = keras.Input((4, 8))
    >>> attended = keras.layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    >>> model = keras.Model(inputs, keras.layers.Dense(1)(attended))
    >>> model.compile("sgd", loss="mse")
    >>> clip = QKClip(threshold=0.5)
    >>> history = model.fit(10 * np.ones((4, 4, 8)), np.ones((4, 4, 1)), batch_size=2, verbose=0, callbacks=[clip])
    >>> [values.shape for values in clip.max_logits.values()]
    [(2,)]
    """

    def __init__(self, threshold: float = 100.0, alpha: float = 0.5) -> None:
        super().__init__()
        self.threshold = validation.positive_float("threshold", threshold)
        self.alpha = validation.fraction("alpha", alpha)
        self.max_logits: dict[str, np.ndarray] = {}
        self.clipped = 0
        self._watched: list[tuple[Any, Any, Callable]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        model = self.model
        layers = keras_private.attention_layers(model)
        if not layers:
            raise ValueError(f"QKClip needs attention layers with heads. Received: model={model.name}, which has none")
        if backends.replicas_of(model) > 1:
            raise ValueError(f"QKClip is for one replica. Received: {backends.replicas_of(model)} replicas")
        if model.steps_per_execution not in (None, 1):
            raise ValueError(
                f"QKClip clips after each update. Received: steps_per_execution={model.steps_per_execution}, which must be 1"
            )
        for layer in layers:
            variable, restore = keras_private.watch_attention(layer, _heads(layer), _watch)
            self._watched.append((layer, variable, restore))
        self._updates = self._count()
        model.make_train_function(force=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.model and self._count() != self._updates:  # else a micro-step of an accumulation
            self._updates = self._count()
            for layer, variable, _ in self._watched:
                largest = np.array(ops.convert_to_numpy(variable))
                self.max_logits[layer.path] = largest
                variable.assign(np.zeros_like(largest))
                gamma = np.minimum(1.0, self.threshold / np.maximum(largest, 1e-30))
                if np.any(gamma < 1):
                    self.clipped += int(np.sum(gamma < 1))
                    self._scale(layer, gamma)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for _, _, restore in self._watched:
            restore()
        self._watched = []
        self.model.make_train_function(force=True)

    def _count(self) -> int:
        return int(ops.convert_to_numpy(self.model.optimizer.iterations))

    def _scale(self, layer: Any, gamma: np.ndarray) -> None:
        queries, keys, shares = keras_private.projections(layer)
        parts = [(queries, 1.0)] if shares else [(queries, self.alpha), (keys, 1 - self.alpha)]
        for variables, power in parts:
            for variable in variables:
                value = ops.convert_to_numpy(ops.cast(variable, "float32"))
                variable.assign(ops.cast(value * (gamma**power).astype("float32")[:, None], variable.dtype))


def _heads(layer: Any) -> int:
    (queries, *_), _, _ = keras_private.projections(layer)
    return queries.shape[-2]


def _watch(variable: Any, query: Any, key: Any, scale: float, mask: Any, is_causal: bool) -> None:
    """Raise the largest logit of each head to that of these queries and keys, (batch, positions, heads, size)."""
    if len(query.shape) != 4:
        raise ValueError(f"QKClip is for attention to one axis. Received: queries of shape {tuple(query.shape)}")
    logits = ops.einsum("bqhd,bkhd->bhqk", ops.cast(query, "float32"), ops.cast(key, "float32")) * scale
    if mask is not None:
        mask = ops.cast(mask, "bool")
        logits = ops.where(ops.expand_dims(mask, 1) if len(mask.shape) == 3 else mask, logits, 0.0)
    if is_causal:
        places = ops.arange(logits.shape[-1])
        logits = ops.where(places[None, :] <= ops.arange(logits.shape[-2])[:, None], logits, 0.0)
    variable.assign(ops.stop_gradient(ops.maximum(variable, ops.max(logits, axis=(0, 2, 3)))))

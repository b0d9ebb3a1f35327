"""Balanced factors for low-rank training."""

import keras
import numpy as np
from keras import ops

from keras_lrsched._core import keras_private
from keras_lrsched._core.registry import register
from keras_lrsched.optimizers.reset_moments import reset_moments


@register(
    title="balanced factors of LoRA",
    checked="memory",
    against="no source under this name; our own reading",
    kind="restart",
)
def refactorize_low_rank(model: keras.Model, reset: bool = True) -> int:
    """Replace the factors A B of each layer with LoRA by balanced ones with the same product, outside of the training step.

        A B = U S V^T (its singular value decomposition);   A = U S^(1/2),   B = S^(1/2) V^T

    After it both factors have the same norm, and their gradients the same scale. Layers whose product is 0, such as those
    that have not been trained yet, stay as they are. It is for layers of which both factors
    have two axes: `Dense`, `Embedding`, and `EinsumDense` with a kernel of two.

    Args:
        model: A model with layers on which `enable_lora` was called.
        reset: Whether the optimizer's state of these factors is what it was at first, see `reset_moments`, since it belongs
            to the old ones; the optimizer must be one of this package. Defaults to `True`.

    Returns:
        The number of layers that were changed.

    Raises:
        ValueError: If no layer has factors; if `reset` is true and the optimizer is one of Keras.

    Reference:
        From memory: no source was found under this name; the rule is our own reading.

    Example:

    >>> dense = keras.layers.Dense(2)
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> dense.enable_lora(1)
    >>> _ = dense.lora_kernel_a.assign([[8.0], [0.0]])
    >>> _ = dense.lora_kernel_b.assign([[0.5, 0.0]])
    >>> refactorize_low_rank(model)
    1
    >>> abs(dense.lora_kernel_a.numpy()).ravel(), abs(dense.lora_kernel_b.numpy()).ravel()
    (array([2., 0.], dtype=float32), array([2., 0.], dtype=float32))
    """
    pairs = [pair for layer in keras_private.layers_of(model) if (pair := _factors(layer)) is not None]
    if not pairs:
        raise ValueError(f"No layer has two factors: call `enable_lora(rank)` on some. Received: model={model.name}")
    changed = []
    for a, b in pairs:
        left, right = (np.asarray(ops.convert_to_numpy(ops.cast(v, "float32")), "float64") for v in (a, b))
        rank = left.shape[1]
        u, s, v = np.linalg.svd(left @ right, full_matrices=False)
        if s[0] == 0:
            continue
        root = np.sqrt(s[:rank])
        a.assign(u[:, :rank] * root)
        b.assign(root[:, None] * v[:rank])
        changed.append((a, b))
    optimizer = getattr(model, "optimizer", None)
    if reset and changed and optimizer is not None and optimizer.built:
        reset_moments(optimizer, [variable for pair in changed for variable in pair])
    return len(changed)


def _factors(layer: keras.Layer) -> tuple | None:
    """The factors of a layer, if both are matrices."""
    for name in ("kernel", "embeddings"):
        pair = getattr(layer, f"lora_{name}_a", None), getattr(layer, f"lora_{name}_b", None)
        if all(variable is not None and len(variable.shape) == 2 for variable in pair):
            return pair
    return None

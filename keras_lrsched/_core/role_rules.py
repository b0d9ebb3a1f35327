"""Rules for the role of a variable: by the class of its layer, else by names, else by its shape.

A rule returns a dictionary of fields of `keras_lrsched._core.roles.Role`, or `None`.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_lrsched._core import keras_private

LAYERS = keras.layers
RECURRENT = (LAYERS.LSTMCell, LAYERS.GRUCell, LAYERS.SimpleRNNCell)
NORMALIZATIONS = (
    LAYERS.BatchNormalization,
    LAYERS.GroupNormalization,
    LAYERS.LayerNormalization,
    LAYERS.RMSNormalization,
)

CONVOLUTIONS = (LAYERS.Conv1D, LAYERS.Conv2D, LAYERS.Conv3D)
TRANSPOSED_CONVOLUTIONS = (LAYERS.Conv1DTranspose, LAYERS.Conv2DTranspose, LAYERS.Conv3DTranspose)
LINEAR = (LAYERS.Dense, LAYERS.EinsumDense, *CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, LAYERS.Embedding)
"""Layers that can be the output layer of a model: an embedding as far as it also multiplies with its transpose."""


CONVOLUTION = "convolution_kernel"


def by_layer(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    """The fields of a variable, by the class of its layer and its name there; `None` for those of other classes."""
    for classes, rule in RULES:
        if isinstance(layer, classes):
            found = rule(layer, name, shape)
            if found:
                return found
    names = [each.__name__ for each in type(layer).__mro__ if issubclass(each, LAYERS.Layer)]
    for pattern, rule in RULES_BY_CLASS_NAME:
        if any(re.search(pattern, each) for each in names):
            found = rule(layer, name, shape)
            if found:
                return found
    return None


def by_name(path: str, shape: Sequence[int]) -> dict | None:
    """The fields of a variable by the end of its path, as Keras and KerasHub name variables; `None` for other names."""
    *layers, name = path.lower().split("/")
    parent = layers[-1] if layers else ""
    if re.search(r"(^|_)bias$", name):
        return {"kind": "bias"}
    if is_named_normalization(path, shape):
        return {"kind": "normalization"}
    if name == "reverse_embeddings":
        return {**_last_axis("kernel", shape), "head": True}
    if re.search(r"^lora_\w+_[ab]$", name):
        return _last_axis("embedding" if name == "lora_embeddings_a" else f"lora_{name[-1]}", shape)
    if re.search(r"embed|(^|_)(pos|position|rel_pos|tokens?)(_|$)|relative_position", name) and len(shape) > 1:
        return {"kind": "other"} if is_vector(shape) and len(shape) > 2 else _last_axis("embedding", shape)
    if name == "kernel" and len(shape) == 3 and parent in ("query", "key", "value"):
        return _kernel((0,), (1, 2))
    if name == "kernel" and len(shape) == 3 and parent == "attention_output":
        return _kernel((0, 1), (2,))
    return None


def is_named_normalization(path: str, shape: Sequence[int]) -> bool:
    """Return `True` for a scale or an offset along one axis, by the names that normalization layers give them."""
    *layers, name = path.lower().split("/")
    return is_vector(shape) and (name in ("gamma", "beta", "scale") or "norm" in "".join(layers[-1:]))


def by_shape(shape: Sequence[int]) -> dict | None:
    """The fields of a variable by its shape alone: inputs before outputs, as in the layers of Keras."""
    if len(shape) < 2 or (len(shape) > 2 and is_vector(shape)):
        return {"kind": "other"}
    return _last_axis("kernel", shape)


def is_vector(shape: Sequence[int]) -> bool:
    """Return `True` if at most one axis is longer than 1."""
    return sum(size != 1 for size in shape) <= 1


def _axes(shape: Sequence[int]) -> tuple:
    return tuple(range(len(shape)))


def _kernel(inputs: Sequence[int], outputs: Sequence[int], stack: Sequence[int] = (), kind: str = "kernel") -> dict:
    return {"kind": kind, "inputs": tuple(inputs), "outputs": tuple(outputs), "stack": tuple(stack)}


def _last_axis(kind: str, shape: Sequence[int]) -> dict:
    """A matrix of which the last axis are the outputs, all others the inputs."""
    return _kernel(_axes(shape)[:-1], _axes(shape)[-1:], kind=kind)


# By class


def _dense(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    match name:
        case "kernel" | "lora_kernel_a" | "lora_kernel_b":
            return _last_axis(_kind(name), shape)
        case "bias":
            return {"kind": "bias"}
    return None


def _einsum_dense(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    if name == "bias":
        return {"kind": "bias"}
    inputs, outputs, stack = equation_axes(layer.equation)
    if name == "kernel":
        return _kernel(inputs, outputs, stack)
    if name not in ("lora_kernel_a", "lora_kernel_b"):
        return None
    # kernel = A B, where A has all axes of the kernel but the last, for which it has the rank, and B has that one.
    last = max((*inputs, *outputs, *stack))
    if last in outputs:
        if name == "lora_kernel_b":
            return _kernel((0,), (1,), kind="lora_b")
        return _kernel(inputs, outputs, stack, kind="lora_a")
    if name == "lora_kernel_b":  # the inputs meet B first
        return _kernel((1,), (0,), kind="lora_b")
    return _kernel(inputs, outputs, [axis for axis in stack if axis != last], kind="lora_a")


def equation_axes(equation: str) -> tuple:
    """The axes of an `EinsumDense` kernel that are inputs, outputs, and those that number independent matrices.

    Args:
        equation: The one of the layer, such as `"btd,ndh->btnh"`: an axis of the kernel that only the inputs of the layer
            have is summed over, so an input; one that only the outputs have is an output; one that both have numbers
            matrices.

    >>> equation_axes("btd,ndh->btnh")
    ((1,), (0, 2), ())
    """
    arguments, result = equation.replace(" ", "").split("->")
    values, kernel = arguments.split(",")
    stack = tuple(i for i, axis in enumerate(kernel) if axis in values and axis in result)
    outputs = tuple(i for i, axis in enumerate(kernel) if axis in result and i not in stack)
    inputs = tuple(i for i, axis in enumerate(kernel) if axis not in result)
    return inputs, outputs, stack


def _convolution(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    if name == "kernel" and layer.groups > 1 and shape[-2] == 1:
        return _kernel(_axes(shape)[:-2], (), _axes(shape)[-2:], kind="depthwise_kernel")
    return _last_axis(CONVOLUTION, shape) if name == "kernel" else _dense(layer, name, shape)


def _transposed_convolution(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    if name == "kernel":  # (height, width, outputs, inputs)
        return _kernel(_axes(shape)[-1:], _axes(shape)[:-1], kind=CONVOLUTION)
    return _dense(layer, name, shape)


def _depthwise_convolution(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    if name in ("kernel", "depthwise_kernel"):  # (height, width, channels, outputs of each)
        return _kernel(_axes(shape)[:-2], _axes(shape)[-1:], _axes(shape)[-2:-1], kind="depthwise_kernel")
    return _dense(layer, name, shape)


def _separable_convolution(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    if name == "pointwise_kernel":
        return _last_axis(CONVOLUTION, shape)
    return _depthwise_convolution(layer, name, shape)


def _embedding(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    match name:
        case "embeddings" | "lora_embeddings_a":  # a row for each token
            return _last_axis("embedding", shape)
        case "lora_embeddings_b":
            return _last_axis("lora_b", shape)
        case "reverse_embeddings":
            return {**_last_axis("kernel", shape), "head": True}
    return None


def _recurrent_convolution(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    return _last_axis(CONVOLUTION, shape) if name in ("kernel", "recurrent_kernel") else _dense(layer, name, shape)


def _recurrent(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    if name == "recurrent_kernel":
        return _last_axis("recurrent_kernel", shape)
    return _dense(layer, name, shape)


def _normalization(layer: Any, name: str, shape: Sequence[int]) -> dict:
    return {"kind": "normalization"}


def _scale(layer: Any, name: str, shape: Sequence[int]) -> dict:
    return {"kind": "scale"}


def _experts(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    """(experts, inputs, outputs), as KerasHub's mixtures have them."""
    if len(shape) == 3 and not name.endswith("bias"):
        return _kernel((1,), (2,), (0,))
    return {"kind": "bias"} if name.endswith("bias") else None


def _gated_delta_net(layer: Any, name: str, shape: Sequence[int]) -> dict | None:
    return _kernel((1,), (), (0,), kind="depthwise_kernel") if name == "conv1d_kernel" else None


def _kind(name: str) -> Any:
    return {"lora_kernel_a": "lora_a", "lora_kernel_b": "lora_b"}.get(name, "kernel")


RULES = (
    (LAYERS.Dense, _dense),
    (LAYERS.EinsumDense, _einsum_dense),
    ((LAYERS.SeparableConv1D, LAYERS.SeparableConv2D), _separable_convolution),
    ((LAYERS.DepthwiseConv1D, LAYERS.DepthwiseConv2D), _depthwise_convolution),
    (TRANSPOSED_CONVOLUTIONS, _transposed_convolution),
    (CONVOLUTIONS, _convolution),
    (LAYERS.Embedding, _embedding),
    (RECURRENT, _recurrent),
    (NORMALIZATIONS, _normalization),
    ((LAYERS.PReLU, LAYERS.Attention, LAYERS.AdditiveAttention), _scale),
)
"""For the layers of Keras and their subclasses; variables that a subclass adds are known by name or shape."""

RULES_BY_CLASS_NAME = (
    (r"^ConvLSTMCell$", _recurrent_convolution),
    (r"Experts$", _experts),
    (r"GatedDeltaNet$", _gated_delta_net),
    (r"LayerScale$|LearnableAffine", _scale),
    (r"Norm(alization|alizer)?(\d[dD])?(Gated)?$", _normalization),
)
"""For layers of KerasHub, which is no dependency, and of others who name theirs so."""


# What a layer is to the block around it


def block_of(layer: Any, parents: Callable) -> Any:
    """The part of a Transformer's block that a layer is: `"query"`, `"feed_forward"`, ...; `None` if it is none or unknown.

    Args:
        layer: A layer with weights.
        parents: A function from a layer to the layers that directly contain it.
    """
    for parent in parents(layer):
        part = _part_of(layer, parent, parents)
        if part:
            return part
    return None


def block_by_name(path: str) -> Any:
    """The block by a path, as Keras and KerasHub name layers; `None` for other names."""
    if not ANY_BLOCK.search(path) or "norm" in path:
        return None
    return next(part for part, pattern in BLOCK_PATTERNS.items() if re.search(pattern, path))


BLOCK_PATTERNS = {
    "query": r"(^|/)query(_dense)?/",
    "key": r"(^|/)key(_dense)?/",
    "value": r"(^|/)value(_dense)?/",
    "attention_output": r"(^|/)attention_output(_dense)?/",
    "feed_forward": r"feed_?forward|(^|/)(ffn|mlp)",
}
ANY_BLOCK = re.compile("|".join(BLOCK_PATTERNS.values()))


def _part_of(layer: Any, parent: Any, parents: Callable) -> Any:
    is_graph = keras_private.is_graph(parent)
    names = [layer.name] if is_graph else [*_attributes(parent, layer), layer.name]
    if any(re.search(r"router|sparse_feedforward_gate|shared_expert_gate", name) for name in names):
        return "router"
    if _is_attention(parent) or any(re.search(r"atten|attn", name) for name in names):  # or it lies in the block itself
        return next(filter(None, map(_attention_part, names)), None)
    return "feed_forward" if _is_feed_forward(layer, parent, parents, names) else None


def _is_feed_forward(layer: Any, parent: Any, parents: Callable, names: Any) -> bool:
    """Return `True` for a layer beside the attention of a block, or in a feed-forward layer there, by structure or name."""
    is_dense = isinstance(layer, (LAYERS.Dense, LAYERS.EinsumDense))
    blocks = [each for each in parents(parent) if not keras_private.is_graph(each)]
    if keras_private.is_graph(parent):  # a sequential model as a part of a block
        return is_dense and any(map(_has_attention, blocks))
    if _has_attention(parent):
        return is_dense and not any("per_layer" in name for name in names)
    name = f"{type(parent).__name__} {parent.name}"
    if not blocks or "head" in parent.name:
        return False
    if re.search(r"mlp|ffn|ffw|feed_?forward|moe|expert", name.lower()):
        return True
    return bool(re.search(r"Intermediate|Output", name)) and any(map(_has_attention, blocks))


def _has_attention(layer: Any) -> bool:
    return any(map(_is_called_attention, keras_private.children(layer)))


def _attention_part(name: str) -> Any:
    """The projection that a layer of an attention layer is, by its name."""
    words = set(name.lower().strip("_").split("_"))
    if "qkv" in words or {"query", "key", "value"} <= words:
        return "query_key_value"
    for part, short in (("query", "q"), ("key", "k"), ("value", "v")):
        if words & {part, short}:
            return part
    if words & {"o", "out", "output", "proj", "projection", "projector"} and "in" not in words:
        return "attention_output"
    return None


def _attributes(parent: Any, layer: Any) -> list:
    """The names that a layer has as an attribute of another; PyTorch keeps modules apart."""
    values = {**vars(parent), **vars(parent).get("_modules", {})}
    return [name for name, value in values.items() if value is layer]


def _is_attention(layer: Any) -> bool:
    """Return `True` if a layer is one of attention, not a block around one that has such a name, too."""
    return _is_called_attention(layer) and not any(_is_called_attention(each) for each in keras_private.children(layer))


def _is_called_attention(layer: Any) -> bool:
    is_called = re.search(r"atten|attn", f"{type(layer).__name__} {layer.name}".lower())
    return bool(is_called and keras_private.children(layer)) and not keras_private.is_graph(layer)

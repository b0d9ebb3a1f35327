"""Learning-rate multipliers by the path of a variable, as papers give them: functions that return {pattern: multiplier}.

A pattern is a regular expression that is searched for in paths such as `"dense_1/kernel"`; the first that is found counts.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import keras

from keras_lrsched._core import validation
from keras_lrsched._core.path_rules import path
from keras_lrsched._core.roles import Role, layers_in_order, roles
from keras_lrsched._core.types import Variable

Layers: TypeAlias = keras.Model | Sequence[str]
"""A model, or a regular expression for the variables of each layer."""

Shapes: TypeAlias = keras.Model | Mapping[str, Sequence[int]]
"""A model, or the shapes of its variables by path."""

BLOCKWISE_RULES = {
    "norm": "role:normalization",
    "query_key": "role:query_key",
    "value_output": "role:value_output",
    "feed_forward": "role:feed_forward",
    "embedding": "role:embedding",
}
"""Blocks of a Transformer, in the order in which they are looked for."""


def blockwise(
    norm: float | None = 1.0,
    value_output: float | None = 4.0,
    feed_forward: float | None = 6.0,
    query_key: float | None = 8.0,
    embedding: float | None = 10.0,
    patterns: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Rates by the sharpness of Transformer blocks (arXiv:2502.19002), with the multipliers of the authors' README.

    Blocks are found by the layers of Keras and KerasHub, and others whose attention layers are called so, see `Role`. A
    multiplier that is `None` leaves its block out: a model has to have all others. One matrix for query, key and value has
    the multiplier of values, with a warning. `patterns` replaces the rules of some blocks by regular expressions, by the
    names of these arguments. Example:

    >>> blockwise(norm=None, embedding=None, feed_forward=None, patterns={"value_output": "v_proj|o_proj"})
    {'role:query_key': 8.0, 'v_proj|o_proj': 4.0}
    """
    rates = {"norm": norm, "query_key": query_key, "value_output": value_output, "feed_forward": feed_forward}
    rates["embedding"] = embedding
    unknown = sorted(set(patterns or {}) - set(rates))
    if unknown:
        raise ValueError(f"`patterns` must have names among {', '.join(rates)}. Received: patterns={patterns!r}")
    rules = {**BLOCKWISE_RULES, **(patterns or {})}
    return {rules[name]: validation.non_negative_float(name, rate) for name, rate in rates.items() if rate is not None}


def lora_plus(ratio: float = 16.0) -> dict[str, float]:
    """LoRA+ (arXiv:2402.12354): the factor that starts from zero, which Keras calls B, learns `ratio` times faster."""
    return {r"(^|/)lora_\w+_b$": validation.positive_float("ratio", ratio)}


def layer_decay(decay: float, layers: Layers) -> dict[str, float]:
    """Each layer learns `decay` times as fast as the next one above it; the last has the full rate.

    Args:
        decay: Above 0 and at most 1.
        layers: From the input to the output: a list of regular expressions, each for the variables of one layer; or a model,
            each of whose layers with trainable weights then counts as one, as do those of models among them. A layer that is
            made of others, such as a block of a Transformer, counts as one.

    Raises:
        ValueError: If `decay` is out of its range, or the model has no trainable weights.

    >>> layer_decay(0.5, ["stem", "block_1", "head"])
    {'stem': 0.25, 'block_1': 0.5, 'head': 1.0}
    """
    validation.positive_fraction("decay", decay)
    rules = _layer_patterns(layers) if hasattr(layers, "layers") else list(layers)
    return {rule: float(decay) ** (len(rules) - 1 - i) for i, rule in enumerate(rules)}


def discriminative(layers: Layers, factor: float = 2.6) -> dict[str, float]:
    """Discriminative fine-tuning of ULMFiT (arXiv:1801.06146): each layer learns `factor` times slower than the next."""
    return layer_decay(1 / validation.at_least_one("factor", factor), layers)


def mup(
    base: Shapes, target: Shapes, rule: str = "adam", weight_decay_power: float = 1.0
) -> tuple[dict[str, float], dict[str, float]]:
    """muP (arXiv:2203.03466): multipliers for a wide model, with which the best rate of a narrow one is its best rate too.

    An axis that differs between the models counts as wide. A matrix has such inputs and such outputs, by its role in its
    layer; if `target` is no model, inputs come before outputs, as in Keras' (in, out) kernels. A vector has one of them.
    With the ratios r of wide to narrow,

        Adam    matrix: 1 / r_in              vector: 1
        SGD     matrix: r_out / r_in          vector: r

    and the weight decay of a matrix under Adam times r_in^weight_decay_power, under SGD all decay divided by the multiplier.

    Returns:
        Two dictionaries, from patterns to multipliers of the learning rate and of the weight decay.
    """
    validation.one_of("rule", rule, ("adam", "sgd"))
    power = validation.non_negative_float("weight_decay_power", weight_decay_power)
    narrow, wide = _shapes(base), _shapes(target)
    if set(narrow) != set(wide):
        raise ValueError(f"`base` and `target` must have the same paths. Only one has: {sorted(set(narrow) ^ set(wide))}")
    found = {role.path: role for role in roles(target)} if isinstance(target, keras.Model) else {}
    rates, decays = {}, {}
    for name, shape in wide.items():
        rate = mup_multiplier(narrow[name], shape, rule, found.get(name))
        if rate != 1:
            rates[f"^{re.escape(name)}$"] = rate
            decays[f"^{re.escape(name)}$"] = rate**-power if rule == "adam" else 1 / rate
    return rates, decays


def mup_multiplier(base_shape: Sequence[int], shape: Sequence[int], rule: str, role: Role | None = None) -> float:
    """The multiplier of one variable, from its shapes; with its `Role`, whose inputs and outputs may lie in any order.

    >>> mup_multiplier((64, 64), (256, 256), "adam"), mup_multiplier((64, 64), (256, 256), "sgd")
    (0.25, 1.0)
    >>> mup_multiplier((10, 64), (10, 256), "adam"), mup_multiplier((10, 64), (10, 256), "sgd")
    (1.0, 4.0)
    """
    if len(base_shape) != len(shape):
        raise ValueError(f"Shapes must have the same number of axes. Received: {tuple(base_shape)} and {tuple(shape)}")
    if role is not None and role.outputs and role.inputs:
        ratios = [math.prod(shape[axis] / base_shape[axis] for axis in axes) for axes in (role.inputs, role.outputs)]
        ratios = [ratio for ratio in ratios if ratio != 1]
    else:
        ratios = [new / old for old, new in zip(base_shape, shape, strict=True) if new != old]
    if len(ratios) > 2:
        raise ValueError(
            f"muP is defined for variables with at most two wide axes. Received: {tuple(base_shape)} and {tuple(shape)}"
        )
    if len(ratios) == 2:
        return 1 / ratios[0] if rule == "adam" else ratios[1] / ratios[0]
    return ratios[0] if ratios and rule == "sgd" else 1.0


def _layer_patterns(model: keras.Model) -> list[str]:
    """A pattern for the trainable weights of each layer, from input to output; the first layer has those that are shared."""
    known: dict[str, int] = {}
    patterns = []
    for layer in layers_in_order(model):
        new = [variable for variable in layer.trainable_variables if known.get(path(variable)) != id(variable)]
        for variable in new:
            if known.setdefault(path(variable), id(variable)) != id(variable):
                _raise_shared_path(variable, layer)
        if new:
            patterns.append(f"^({'|'.join(re.escape(path(variable)) for variable in new)})$")
    if not patterns:
        raise ValueError(
            "The layers of the model have no trainable weights: build it first, or name the layers by regular expressions. "
            f"Received: model={model.name}, built={model.built}"
        )
    return patterns


def _raise_shared_path(variable: Variable, layer: keras.Layer) -> None:
    raise ValueError(
        f"Two variables have the path {path(variable)!r}, the second one, of shape {tuple(variable.shape)}, in the layer "
        f"{layer.name!r} of the class {type(layer).__name__}: rules go by path. Give the layers names of their own."
    )


def _shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    if not isinstance(model, keras.Model):
        return dict(model)
    shapes: dict[str, tuple[int, ...]] = {}
    for variable in model.trainable_variables:
        if path(variable) in shapes:
            raise ValueError(
                f"Two variables of {model.name} have the path {path(variable)!r}, of shapes {shapes[path(variable)]} and "
                f"{tuple(variable.shape)}: rules go by path. Give their layers names of their own."
            )
        shapes[path(variable)] = tuple(variable.shape)
    return shapes

"""Learning-rate multipliers by the path of a variable, as papers give them: functions that return {pattern: multiplier}.

A pattern is a regular expression that is searched for in paths such as `"dense_1/kernel"`; the first that is found counts.
"""

import re

import keras

from keras_lrsched.optimizers.paths import path
from keras_lrsched.schedules import checks

BLOCKWISE_PATTERNS = {
    "norm": r"norm",
    "query_key": r"(^|/)(query|key)(_dense)?/",
    "value_output": r"(^|/)(value|attention_output)(_dense)?/",
    "feed_forward": r"feed_?forward|(^|/)(ffn|mlp)",
    "embedding": r"(^|/)embeddings$",
}
"""Blocks of a Transformer as Keras and KerasHub name their variables, in the order in which they are looked for."""


def blockwise(norm=1.0, value_output=4.0, feed_forward=6.0, query_key=8.0, embedding=10.0, patterns=None):
    """Rates by the sharpness of Transformer blocks (arXiv:2502.19002), with the multipliers of the authors' README.

    A multiplier that is `None` leaves its block out: a model has to have all others. `patterns` replaces the regular
    expressions of some blocks, by the names of these arguments. Example:

    >>> blockwise(norm=None, embedding=None, feed_forward=None)["(^|/)(query|key)(_dense)?/"]
    8.0
    """
    rates = {"norm": norm, "query_key": query_key, "value_output": value_output, "feed_forward": feed_forward}
    rates["embedding"] = embedding
    unknown = sorted(set(patterns or {}) - set(rates))
    if unknown:
        raise ValueError(f"`patterns` must have names among {', '.join(rates)}. Received: patterns={patterns!r}")
    rules = {**BLOCKWISE_PATTERNS, **(patterns or {})}
    return {rules[name]: checks.non_negative_float(name, rate) for name, rate in rates.items() if rate is not None}


def lora_plus(ratio=16.0):
    """LoRA+ (arXiv:2402.12354): the factor that starts from zero, which Keras calls B, learns `ratio` times faster."""
    return {r"(^|/)lora_\w+_b$": checks.positive_float("ratio", ratio)}


def layer_decay(decay, layers):
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
    checks.positive_fraction("decay", decay)
    rules = _layer_patterns(layers) if hasattr(layers, "layers") else list(layers)
    return {rule: float(decay) ** (len(rules) - 1 - i) for i, rule in enumerate(rules)}


def discriminative(layers, factor=2.6):
    """Discriminative fine-tuning of ULMFiT (arXiv:1801.06146): each layer learns `factor` times slower than the next."""
    return layer_decay(1 / checks.at_least_one("factor", factor), layers)


def mup(base, target, rule="adam", weight_decay_power=1.0):
    """muP (arXiv:2203.03466): multipliers for a wide model, with which the best rate of a narrow one is its best rate too.

    An axis that differs between the models counts as wide. A matrix has two such axes, inputs before outputs as in Keras'
    (in, out) kernels; a vector has one. With the ratios r of wide to narrow,

        Adam    matrix: 1 / r_in              vector: 1
        SGD     matrix: r_out / r_in          vector: r

    and the weight decay of a matrix under Adam times r_in^weight_decay_power, under SGD all decay divided by the multiplier.

    Returns:
        Two dictionaries, from patterns to multipliers of the learning rate and of the weight decay.
    """
    checks.one_of("rule", rule, ("adam", "sgd"))
    power = checks.non_negative_float("weight_decay_power", weight_decay_power)
    narrow, wide = _shapes(base), _shapes(target)
    if set(narrow) != set(wide):
        raise ValueError(f"`base` and `target` must have the same paths. Only one has: {sorted(set(narrow) ^ set(wide))}")
    rates, decays = {}, {}
    for name, shape in wide.items():
        rate = mup_multiplier(narrow[name], shape, rule)
        if rate != 1:
            rates[f"^{re.escape(name)}$"] = rate
            decays[f"^{re.escape(name)}$"] = rate**-power if rule == "adam" else 1 / rate
    return rates, decays


def mup_multiplier(base_shape, shape, rule):
    """The multiplier of one variable, from its shapes.

    >>> mup_multiplier((64, 64), (256, 256), "adam"), mup_multiplier((64, 64), (256, 256), "sgd")
    (0.25, 1.0)
    >>> mup_multiplier((10, 64), (10, 256), "adam"), mup_multiplier((10, 64), (10, 256), "sgd")
    (1.0, 4.0)
    """
    if len(base_shape) != len(shape):
        raise ValueError(f"Shapes must have the same number of axes. Received: {tuple(base_shape)} and {tuple(shape)}")
    ratios = [new / old for old, new in zip(base_shape, shape, strict=True) if new != old]
    if len(ratios) > 2:
        raise ValueError(f"muP knows variables with two wide axes at most. Received: {tuple(base_shape)} and {tuple(shape)}")
    if len(ratios) == 2:
        return 1 / ratios[0] if rule == "adam" else ratios[1] / ratios[0]
    return ratios[0] if ratios and rule == "sgd" else 1.0


def _layer_patterns(model):
    """A pattern for the trainable weights of each layer, from input to output; the first layer has those that are shared."""
    known: set[str] = set()
    patterns = []
    for layer in _layers_in_order(model):
        names = [path(variable) for variable in layer.trainable_variables if path(variable) not in known]
        known.update(names)
        if names:
            patterns.append(f"^({'|'.join(map(re.escape, names))})$")
    if not patterns:
        raise ValueError(
            "The layers of the model have no trainable weights: build it first, or name the layers by regular expressions. "
            f"Received: model={model.name}, built={model.built}"
        )
    return patterns


def _layers_in_order(model):
    """The layers of a model, and in the place of a model among them, its layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers_in_order(layer)
        else:
            yield layer


def _shapes(model):
    if isinstance(model, keras.Model):
        return {path(variable): tuple(variable.shape) for variable in model.trainable_variables}
    return dict(model)

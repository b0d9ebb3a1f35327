"""A factorization machine (Rendle 2010) with embedding tables, on clicks that are generated from a fixed seed."""

import itertools

import keras
import numpy as np
from keras import layers, ops

from keras_lrsched._core.registry import register
from keras_lrsched.study.workloads.base import ShuffledEpochs, Workload

SIZES = {"user": 400, "item": 200, "hour": 24}
"""Fields, and how many values each has."""


@register(
    "factorization",
    title="generated clicks, factorization machine",
    kind="recommendation",
    paper="https://doi.org/10.1109/ICDM.2010.127",
)
class FactorizationMachine(Workload):
    """40,000 clicks of users on items by the hour to train on, 8,000 to validate, of a known law.

    The logit of a click is a + sum of biases + sum over pairs of fields of the products of their vectors, the law as the
    model: P(click) = 1 / (1 + exp(-logit)). Users and items are as frequent as 1 / rank. Adam.

    Target: a validation loss of 0.58 nats a click, where the law itself has 0.49.
    """

    batch_size = 128
    rank = 8
    peak_learning_rate = 0.02
    budgets = (150, 600)
    use_xla = False
    metric = "val_loss"
    target = 0.58
    larger_is_better = False

    def __init__(self, data_dir=None):
        random = np.random.default_rng(0)
        self.law = Law(random)
        rows, clicks = self.law.draw(48_000, random)
        self._train = ShuffledEpochs(rows[:40_000], clicks[:40_000], self.batch_size)
        self.validation = _by_name(rows[40_000:]), clicks[40_000:]

    def train_batch(self, step, seed):
        rows, clicks = self._train.batch(step, seed)
        return _by_name(rows), clicks

    def build_model(self):
        inputs = {name: keras.Input((1,), dtype="int32", name=name) for name in SIZES}
        vectors = [self._table(name, "vectors", self.rank, "normal")(inputs[name]) for name in SIZES]
        biases = [self._table(name, "biases", 1, "zeros")(inputs[name]) for name in SIZES]
        # The sum over pairs of fields, in linear time
        squares = [ops.square(each) for each in vectors]
        pairs = 0.5 * ops.sum(ops.square(layers.add(vectors)) - layers.add(squares), axis=-1)
        return keras.Model(inputs, layers.Flatten()(layers.add(biases)) + pairs)

    def _table(self, field, part, width, kind):
        initial = keras.initializers.RandomNormal(stddev=0.2) if kind == "normal" else kind
        return layers.Embedding(SIZES[field], width, embeddings_initializer=initial, name=f"{field}_{part}")

    def loss(self):
        return keras.losses.BinaryCrossentropy(from_logits=True)

    def metrics(self):
        return []

    def optimizer(self, learning_rate):
        return keras.optimizers.Adam(learning_rate)


class Law:
    """The factorization machine that the clicks are drawn from.

    Args:
        random: The `numpy.random.Generator` of its vectors and biases.
    """

    def __init__(self, random):
        self.vectors = {name: random.normal(0, 0.6, (size, FactorizationMachine.rank)) for name, size in SIZES.items()}
        self.biases = {name: random.normal(0, 0.5, size) for name, size in SIZES.items()}

    def logits(self, fields):
        """The logits of rows of fields."""
        vectors = [self.vectors[name][fields[name][:, 0]] for name in SIZES]
        pairs = sum(np.sum(one * other, axis=-1) for one, other in itertools.combinations(vectors, 2))
        return sum(self.biases[name][fields[name][:, 0]] for name in SIZES) + pairs

    def draw(self, rows, random):
        """Fields of so many rows, and the clicks, 0 or 1."""
        users, items = (_by_rank(SIZES[name], rows, random) for name in ("user", "item"))
        fields = np.stack([users, items, random.integers(SIZES["hour"], size=rows)], axis=1).astype("int32")
        probability = 1 / (1 + np.exp(-self.logits(_by_name(fields))))
        return fields, (random.random(rows) < probability).astype("float32")[:, None]


def _by_rank(size, rows, random):
    """Numbers below `size`, with frequencies of 1 / (number + 1)."""
    weights = 1 / np.arange(1, size + 1)
    return random.choice(size, rows, p=weights / weights.sum())


def _by_name(fields):
    return {name: fields[:, i : i + 1] for i, name in enumerate(SIZES)}

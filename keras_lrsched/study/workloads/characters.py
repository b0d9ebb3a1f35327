"""Character models: windows of a text at random places, and transformers over them."""

import keras
import numpy as np
from keras import layers, ops

from keras_lrsched.study.workloads.base import Workload


class TextWindows(Workload):
    """Windows of a text at random places, and the characters that follow; the last tenth of the text is held out.

    A subclass calls `_use(text)` with its text. Its `target` is a validation loss in nats a character.
    """

    batch_size = 16
    context = 32
    metric = "val_loss"
    larger_is_better = False

    def _use(self, text):
        self.vocabulary = sorted(set(text))
        index = {character: i for i, character in enumerate(self.vocabulary)}
        codes = np.array([index[character] for character in text], "int32")
        held_out = len(codes) // 10
        self._train, validation = codes[:-held_out], codes[-held_out:]
        starts = np.linspace(0, len(validation) - self.context - 1, num=128).astype(int)
        self.validation = _windows(validation, starts, self.context)

    def train_batch(self, step, seed):
        rng = np.random.default_rng([seed, step])
        starts = rng.integers(len(self._train) - self.context, size=self.batch_size)
        return _windows(self._train, starts, self.context)


class Characters(TextWindows):
    """A character language model: a small decoder-only transformer that predicts each next character of a text."""

    layers, width, heads = 2, 64, 2
    peak_learning_rate = 0.005
    budgets = (50, 200)

    def build_model(self):
        size = len(self.vocabulary)
        return transformer(self.context, size, size, self.layers, self.width, self.heads, causal=True)

    def optimizer(self, learning_rate):
        return keras.optimizers.AdamW(learning_rate, weight_decay=0.1, beta_2=0.99)


def transformer(context, tokens, classes, blocks=2, width=64, heads=2, causal=False, train_positions=False):
    """A transformer with normalization before each part. Takes `context` tokens, returns logits of `classes` for each.

    The vectors of positions are constants, random ones, unless `train_positions`.
    """
    inputs = keras.Input((context,), dtype="int32")
    x, places = _embedding(tokens, width)(inputs), ops.arange(context)
    if train_positions:
        x += _embedding(context, width)(ops.zeros_like(inputs) + places)
    else:
        x += ops.stop_gradient(_embedding(context, width)(places))  # no part of the graph, nor its derivative in PyTorch
    for _ in range(blocks):
        h = layers.LayerNormalization()(x)
        x += layers.MultiHeadAttention(heads, width // heads)(h, h, use_causal_mask=causal)
        h = layers.LayerNormalization()(x)
        x += layers.Dense(width)(layers.Dense(4 * width, activation="relu")(h))
    return keras.Model(inputs, layers.Dense(classes)(layers.LayerNormalization()(x)))


def _embedding(size, width):
    # Keras' default of +-0.05 leaves the model on a plateau for a thousand updates before it attends to anything.
    return layers.Embedding(size, width, embeddings_initializer=keras.initializers.RandomNormal(stddev=0.5))


def _windows(codes, starts, length):
    """Windows of `length` codes, and the codes that follow each of them."""
    rows = starts[:, None] + np.arange(length)
    return codes[rows], codes[rows + 1]

"""A character language model: a small decoder-only transformer that predicts each next character of a text."""

import keras
import numpy as np
from keras import layers, ops

from keras_lrsched.study.workloads.base import Workload


class Characters(Workload):
    """Windows of a text at random places; the last tenth of the text is held out.

    A subclass calls `_use(text)` with its text. Its `target` is a validation loss in nats a character.
    """

    batch_size = 16
    context = 32
    layers, width, heads = 2, 64, 2
    peak_learning_rate = 0.005
    budgets = (50, 200)
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

    def build_model(self):
        tokens = keras.Input((self.context,), dtype="int32")
        x = self._embedding(len(self.vocabulary))(tokens) + self._embedding(self.context)(ops.arange(self.context))
        for _ in range(self.layers):
            h = layers.LayerNormalization()(x)
            x += layers.MultiHeadAttention(self.heads, self.width // self.heads)(h, h, use_causal_mask=True)
            h = layers.LayerNormalization()(x)
            x += layers.Dense(self.width)(layers.Dense(4 * self.width, activation="relu")(h))
        return keras.Model(tokens, layers.Dense(len(self.vocabulary))(layers.LayerNormalization()(x)))

    def _embedding(self, size):
        # Keras' default of +-0.05 leaves the model on a plateau for a thousand updates before it attends to anything.
        return layers.Embedding(size, self.width, embeddings_initializer=keras.initializers.RandomNormal(stddev=0.5))

    def optimizer(self, learning_rate):
        return keras.optimizers.AdamW(learning_rate, weight_decay=0.1, beta_2=0.99)


def _windows(codes, starts, length):
    """Windows of `length` codes, and the codes that follow each of them."""
    rows = starts[:, None] + np.arange(length)
    return codes[rows], codes[rows + 1]

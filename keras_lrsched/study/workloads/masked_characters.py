"""Masked characters of the help texts of Python, found by a transformer that looks both ways (Devlin et al. 2018)."""

import keras
import numpy as np

from keras_lrsched._core.registry import register
from keras_lrsched.data.masked_language_model_masking import masked
from keras_lrsched.study.workloads.characters import TextWindows, transformer
from keras_lrsched.study.workloads.pydoc import help_texts

NOT_MASKED = -1
"""The label of a character that the loss does not count."""


@register(
    "masked_characters",
    title="Python help texts, masked character transformer",
    kind="masked language model",
    paper="arXiv:1810.04805",
)
class MaskedCharacters(TextWindows):
    """Windows of 32 characters of the Python language reference, 30 % of them chosen to be found (arXiv:2202.08005).

    Of the chosen ones 80 % become the mask, 10 % a random character, and 10 % stay. The loss is the mean over the chosen
    ones; all others have the label -1.

    Target: a validation loss of 2.6 nats a masked character.
    """

    batch_size = 32
    rate = 0.3
    peak_learning_rate = 0.01
    budgets = (100, 400)
    target = 2.6

    def __init__(self, data_dir=None):
        self._use(help_texts())
        # Each window under four masks: few characters are chosen.
        self.validation = self._masked(np.repeat(self.validation[0], 4, axis=0), np.random.default_rng(0))

    def _masked(self, codes, random):
        size = len(self.vocabulary)
        inputs, targets, chosen = masked(codes, self.rate, mask_token=size, vocabulary_size=size, random=random)
        return inputs, np.where(chosen > 0, targets, NOT_MASKED).astype("int32")

    def train_batch(self, step, seed):
        return self._masked(super().train_batch(step, seed)[0], np.random.default_rng([seed, step, 1]))

    def build_model(self):
        size = len(self.vocabulary)
        return transformer(self.context, size + 1, size, blocks=1, train_positions=True)

    def loss(self):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=NOT_MASKED)

    def metrics(self):
        return []  # an accuracy would count the label -1

    def optimizer(self, learning_rate):
        return keras.optimizers.AdamW(learning_rate, weight_decay=0.1, beta_2=0.99)

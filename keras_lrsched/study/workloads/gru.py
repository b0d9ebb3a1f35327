"""Next characters of the help texts of Python, by a gated recurrent unit (Cho et al. 2014)."""

import keras
from keras import layers

from keras_lrsched._core.registry import register
from keras_lrsched.study.workloads.characters import TextWindows
from keras_lrsched.study.workloads.pydoc import help_texts


@register("gru", title="Python help texts, character GRU", kind="language model", paper="arXiv:1406.1078")
class RecurrentCharacters(TextWindows):
    """The characters of `pydoc`, with one layer of 96 gated recurrent units; Adam.

    Target: a validation loss of 2.1 nats a character.
    """

    peak_learning_rate = 0.04
    budgets = (50, 200)
    target = 2.1

    def __init__(self, data_dir=None):
        self._use(help_texts())

    def build_model(self):
        return keras.Sequential(
            [
                layers.Input((self.context,), dtype="int32"),
                layers.Embedding(len(self.vocabulary), 32),
                layers.GRU(96, return_sequences=True),
                layers.Dense(len(self.vocabulary)),
            ]
        )

    def optimizer(self, learning_rate):
        return keras.optimizers.Adam(learning_rate)

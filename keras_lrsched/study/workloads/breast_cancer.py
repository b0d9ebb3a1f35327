"""Cells of breast tumors (Wisconsin, 569 rows of 30 numbers) of scikit-learn, with a residual net for tables."""

import keras
import numpy as np
from keras import layers

from keras_lrsched._core.registry import register
from keras_lrsched.study.workloads.base import ShuffledEpochs, Workload, sklearn_datasets


@register(
    "breast_cancer",
    title="breast tumors, residual net for tables",
    kind="tabular classification",
    paper="https://archive.ics.uci.edu/dataset/17",
    deviations="the net is the residual one of arXiv:2106.11959 without normalization and dropout",
)
class BreastCancer(Workload):
    """398 tumors to train on, 171 to validate, by 30 standardized numbers; malignant or benign; AdamW.

    Target: a validation loss of 0.1 nats.
    """

    batch_size = 32
    width, blocks = 32, 2
    peak_learning_rate = 0.002
    budgets = (50, 200)
    use_xla = False
    metric = "val_loss"
    target = 0.1
    larger_is_better = False

    def __init__(self, data_dir=None):
        rows, labels = sklearn_datasets(self.name).load_breast_cancer(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(rows))
        train, held_out = order[:398], order[398:]
        rows = ((rows - rows[train].mean(axis=0)) / rows[train].std(axis=0)).astype("float32")
        labels = labels.astype("float32")[:, None]
        self._train = ShuffledEpochs(rows[train], labels[train], self.batch_size)
        self.validation = rows[held_out], labels[held_out]

    def train_batch(self, step, seed):
        return self._train.batch(step, seed)

    def build_model(self):
        rows = keras.Input((30,))
        x = layers.Dense(self.width)(rows)
        for _ in range(self.blocks):
            h = layers.Dense(self.width, activation="relu")(x)
            x += layers.Dense(self.width, kernel_initializer="zeros")(h)
        return keras.Model(rows, layers.Dense(1)(layers.ReLU()(x)))

    def loss(self):
        return keras.losses.BinaryCrossentropy(from_logits=True)

    def metrics(self):
        return [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]  # of logits

    def optimizer(self, learning_rate):
        return keras.optimizers.AdamW(learning_rate, weight_decay=0.1)

"""Handwritten digits of scikit-learn (UCI, 1,797 images of 8 x 8 pixels) with a small convolutional net."""

import keras
import numpy as np

from keras_lrsched._core.registry import register
from keras_lrsched.study.workloads.base import ShuffledEpochs, Workload, sklearn_datasets


@register(
    "digits",
    title="handwritten digits, small convolutional net",
    kind="image classification",
    paper="https://archive.ics.uci.edu/dataset/80",
)
class Digits(Workload):
    """1,437 digits to train on, 360 to validate; 19,418 weights; SGD with momentum.

    Target: a validation accuracy of 0.98.
    """

    batch_size = 32
    peak_learning_rate = 0.1
    budgets = (50, 200)
    metric = "val_accuracy"
    target = 0.98

    def __init__(self, data_dir=None):
        train, self.validation = digits(self.name)
        self._train = ShuffledEpochs(*train, self.batch_size)

    def train_batch(self, step, seed):
        return self._train.batch(step, seed)

    def build_model(self):
        def convolution(filters, strides=1):
            yield keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)
            yield keras.layers.BatchNormalization(momentum=0.9)  # runs are short: the statistics must follow
            yield keras.layers.ReLU()

        return keras.Sequential(
            [
                keras.layers.Input((8, 8, 1)),
                *convolution(16),
                *convolution(32, strides=2),
                *convolution(32),
                keras.layers.Flatten(),
                keras.layers.Dense(10),
            ]
        )

    def optimizer(self, learning_rate):
        return keras.optimizers.SGD(learning_rate, momentum=0.9)


def digits(workload: str) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Images in [0, 1] with labels: 1,437 to train on, and 360 that are held out, for the workload of this name."""
    images, labels = sklearn_datasets(workload).load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(images))
    train, held_out = order[:1437], order[1437:]
    return (images[train], labels[train]), (images[held_out], labels[held_out])

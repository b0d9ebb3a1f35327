"""Matrix sensing (Recht et al. 2010): a matrix of low rank from inner products with random ones, by two factors."""

import keras
import numpy as np
from keras import layers

from keras_lrsched._core.registry import register
from keras_lrsched.study.workloads.base import ShuffledEpochs, Workload


@register(
    "matrix_sensing", title="generated matrix, its factors from measurements", kind="regression", paper="arXiv:0706.4138"
)
class MatrixSensing(Workload):
    """3,000 measurements y = <A, X> + noise to train on, 1,000 to validate, of a matrix X of 32 x 32 of rank 4.

    The entries of A are normal; the singular values of X are 1, 1/2, 1/4 and 1/8 of the largest, and scaled so that y has
    variance 1; the noise has a standard deviation of 0.1. The model has two factors of rank 8: y = <A, U V'>, a linear net
    of two layers without biases, with the mean squared error, which is not convex in them. SGD with momentum.

    Target: a validation loss of 0.02, where X itself has 0.01.
    """

    batch_size = 64
    size, rank = 32, 8
    noise = 0.1
    peak_learning_rate = 0.02
    budgets = (100, 400)
    use_xla = False
    metric = "val_loss"
    target = 0.02
    larger_is_better = False

    def __init__(self, data_dir=None):
        random = np.random.default_rng(0)
        left, right = (np.linalg.qr(random.standard_normal((self.size, 4)))[0] for _ in range(2))
        values = 2.0 ** -np.arange(4)
        self.matrix = left * (values / np.linalg.norm(values)) @ right.T
        measured_by = random.standard_normal((4000, self.size, self.size)).astype("float32")
        measured = np.tensordot(measured_by, self.matrix, 2) + self.noise * random.standard_normal(4000)
        measured = measured.astype("float32")[:, None]
        self._train = ShuffledEpochs(measured_by[:3000], measured[:3000], self.batch_size)
        self.validation = measured_by[3000:], measured[3000:]

    def train_batch(self, step, seed):
        return self._train.batch(step, seed)

    def build_model(self):
        """<A, U V'> is the sum of the entries of A V times those of U."""
        return keras.Sequential(
            [
                layers.Input((self.size, self.size)),
                layers.Dense(self.rank, use_bias=False, name="right"),
                layers.Flatten(),
                layers.Dense(1, use_bias=False, name="left"),
            ]
        )

    def loss(self):
        return keras.losses.MeanSquaredError()

    def metrics(self):
        return []

    def optimizer(self, learning_rate):
        return keras.optimizers.SGD(learning_rate, momentum=0.9)
